"""What a cell of a notebook shows besides its source and its figures: attached pictures, and what was printed."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

__all__ = ["attachments", "printed"]

LONGEST = 20_000


def attachments(cell: Mapping[str, Any]) -> tuple[tuple[str, bytes], ...]:
    """The pictures that are attached to a cell of a notebook, by name; what is none is left out."""
    found, attached = [], cell.get("attachments")
    for name, forms in attached.items() if isinstance(attached, dict) else ():
        for text in forms.values() if isinstance(forms, dict) else ():
            try:
                found.append((str(name)[:200], base64.b64decode(text if isinstance(text, str) else "".join(text))))
            except (TypeError, ValueError, binascii.Error):
                continue
            break
    return tuple(found[:8])


def printed(outputs: Any) -> str:
    """What the outputs of a cell say in words: what was printed, the results, the errors."""
    texts = []
    for output in outputs if isinstance(outputs, list) else []:
        if not isinstance(output, dict):
            continue
        data = output.get("data")
        plain = output.get("text") if output.get("output_type") == "stream" else None
        if isinstance(data, dict) and "image/png" not in data:
            plain = data.get("text/plain")
        if output.get("output_type") == "error":
            plain = f"{output.get('ename')}: {output.get('evalue')}\n"
        texts += [plain] if isinstance(plain, str) else [one for one in plain or () if isinstance(one, str)]
    return "".join(texts).encode("utf-8", "replace").decode("utf-8")[:LONGEST]

"""The answers that a person grades: what belongs to one, the hash by which a mark knows it, and where a grading keeps them."""

import functools
import hashlib
import io
import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.course.assignment import TEXT_STUB, Part
from dynot_lite.course.submissions import Cell, Submission
from dynot_lite.course.texts import squeezed, write_whole

__all__ = ["Answer", "Piece", "answers_of", "read", "suffix_of", "write"]

FILE, PICTURES = "answers.json", "answers"
KINDS = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif"}
LARGEST_PICTURE, MOST_PICTURES, MOST_PIXELS = 4 * 2**20, 40, 10**7


@dataclass(frozen=True)
class Piece:
    """A cell of an answer: ``pictures`` it shows and ``attachments`` by name are keys of the answer's ``files``."""

    kind: str
    source: str
    pictures: tuple[str, ...] = ()
    attachments: tuple[tuple[str, str], ...] = ()
    printed: str = ""


@dataclass(frozen=True)
class Answer:
    """What a student handed in for one part: its cells, their pictures by file name, the hash, and whether it is empty."""

    pieces: tuple[Piece, ...]
    hash: str
    empty: bool
    files: Mapping[str, bytes]


def answers_of(submission: Submission, parts: Iterable[Part], released: Mapping[str, str]) -> dict[str, Answer]:
    """The answers of one submission to those of ``parts`` that a person grades; ``released`` has the sources students got."""
    return {
        part.id: _answer([cell for cell in submission.cells if cell.id == part.id], released.get(part.id, ""))
        for part in parts
        if part.manual
    }


def _answer(cells: list[Cell], released: str) -> Answer:
    files: dict[str, bytes] = {}
    digest, pieces, empty = hashlib.sha256(), [], True
    pixels = functools.cache(lambda file: _pixels(files[file]))
    for cell in cells:
        pictures = [_kept(picture, files) for picture in cell.pictures]
        attached = [(name, _kept(content, files)) for name, content in cell.attachments]
        piece = Piece(
            cell.kind,
            cell.source,
            tuple(filter(None, pictures)),
            tuple((name, file) for name, file in attached if file),
            cell.printed,
        )
        pieces.append(piece)
        empty = empty and not piece.attachments and squeezed(cell.source) in ("", squeezed(released), squeezed(TEXT_STUB))
        seen = sorted(pixels(file) for _, file in piece.attachments)
        for text in (cell.kind, _normal(cell.source), *(pixels(file) for file in piece.pictures), "attached", *seen):
            digest.update(f"{len(text)}:{text};".encode("utf-8", "replace"))
    # Begins with a letter: a spreadsheet would take 12e4567890123456 for a number, and round it.
    return Answer(tuple(pieces), f"h{digest.hexdigest()[:15]}", empty, files)


def _normal(source: str) -> str:
    """What no editor changes when it saves a notebook again: line ends, spaces at their ends, the form of Unicode."""
    lines = unicodedata.normalize("NFC", source).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip()


def _kept(content: bytes, files: dict[str, bytes]) -> str:
    """The name of a picture, which is put into ``files``; empty if it is none, or too large, or there are many."""
    suffix = suffix_of(content)
    if not suffix or len(content) > LARGEST_PICTURE:
        return ""
    name = hashlib.sha256(content).hexdigest()[:32] + suffix
    if name not in files and len(files) >= MOST_PICTURES:
        return ""
    files[name] = content
    return name


def suffix_of(content: bytes) -> str:
    """The suffix of a picture's file; empty for what is no PNG, JPEG or GIF."""
    return next((suffix for start, suffix in KINDS.items() if content.startswith(start)), "")


def _pixels(content: bytes) -> str:
    """A hash of what a picture shows: the same figure, saved again with another date in its header, is the same."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["PNG", "JPEG", "GIF"]) as image:
            if image.width * image.height <= MOST_PIXELS:
                return hashlib.sha256(repr(image.size).encode() + image.convert("RGBA").tobytes()).hexdigest()
    except Exception:  # whatever a file that calls itself a picture makes of the library
        pass
    return hashlib.sha256(content).hexdigest()


def write(folder: Path, assignment: str, answers: Mapping[str, Mapping[str, Answer]]) -> None:
    """Keep the answers of all students in ``folder``: ``answers.json``, and their pictures in ``answers/``."""
    place = folder / PICTURES
    place.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"assignment": assignment, "students": {}}
    used = set()
    for student, parts in answers.items():
        record["students"][student] = {
            part: {"hash": answer.hash, "empty": answer.empty, "pieces": [asdict(piece) for piece in answer.pieces]}
            for part, answer in parts.items()
        }
        for name, content in ((name, content) for answer in parts.values() for name, content in answer.files.items()):
            used.add(name)
            if not (place / name).exists():
                write_whole(place / name, content)
    write_whole(folder / FILE, json.dumps(record))
    for old in {path.name for path in place.iterdir() if path.suffix in KINDS.values()} - used:
        (place / old).unlink()


def read(folder: Path) -> tuple[str, dict[str, dict[str, Answer]]]:
    """The problem set and the answers that the last grading kept in ``folder``, by student and part, without the files.

    Raises NotebookError if nothing was graded into this folder.
    """
    try:
        record = json.loads((folder / FILE).read_text(encoding="utf-8"))
        students = {who: {part: _stored(one) for part, one in parts.items()} for who, parts in record["students"].items()}
        return record["assignment"], students
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise NotebookError(f"{folder} has no answers: first grade into it, with course grade DIR --to {folder}") from None


def _stored(record: Mapping[str, Any]) -> Answer:
    pieces = [
        Piece(one["kind"], one["source"], tuple(one["pictures"]), tuple(map(tuple, one["attachments"])), one["printed"])
        for one in record["pieces"]
    ]
    return Answer(tuple(pieces), record["hash"], record["empty"], {})

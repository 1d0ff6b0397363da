"""Names and texts that others wrote, made printable at the door; and the tables that spreadsheets read and write."""

import csv
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dynot_lite.companion.notebooks import NotebookError

__all__ = ["decoded", "distinct", "file_name", "key", "plain", "printable", "quoted", "read_table", "write_table"]

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
JOINERS = "\u200c\u200d"  # cannot be seen, but are spelling in Persian and in the scripts of India
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{k}" for port in ("COM", "LPT") for k in range(1, 10))}
FORMULA = ("=", "+", "-", "@", "\t", "\r")
LARGEST_TABLE = 10 * 2**20


def printable(text: Any, *, most: int = 120, lines: bool = False) -> str:
    """The text in Unicode's form NFC and without what cannot be printed or stored, cut to ``most`` characters.

    Bytes of a file name that are not UTF-8 are read as cp1252; half a surrogate pair and control characters become U+FFFD. A
    name, which is the default, is one line without invisible signs; with ``lines``, line breaks, tabs and all other signs stay.
    """
    whole = "".join(_character(one) for one in str(text)[: 4 * most])  # NFC makes it shorter, by less than that
    whole = unicodedata.normalize("NFC", whole)
    if lines:
        whole = re.sub("\r\n?", "\n", whole)
        whole = "".join(UNKNOWN if unicodedata.category(one) == "Cc" and one not in "\n\t" else one for one in whole)
    else:
        whole = " ".join(
            "".join(one if one.isprintable() or one.isspace() or one in JOINERS else UNKNOWN for one in whole).split()
        )
    return whole if len(whole) <= most else whole[: most - 1] + "…"


def _character(one: str) -> str:
    if "\udc80" <= one <= "\udcff":  # how Python shows a byte of a file name that is not UTF-8
        return bytes([ord(one) - 0xDC00]).decode("cp1252", "replace")
    return UNKNOWN if "\ud800" <= one <= "\udfff" else one


def key(text: str) -> str:
    """What is left of a name to compare it with another: letters and digits, without case."""
    return "".join(one for one in unicodedata.normalize("NFKC", printable(text)).casefold() if one.isalnum())


def file_name(name: str) -> str:
    """The name of a file that every system takes: no separators, no names that Windows keeps, at most 200 bytes."""
    stem = re.sub(r'[<>:"/\\|?*]', "_", printable(name)).strip(" .") or "_"
    if stem.split(".")[0].upper() in RESERVED:
        stem = f"_{stem}"
    while len(stem.encode()) > 200:
        stem = stem[:-1]
    return stem


def distinct(origins: Sequence[str], shown: Sequence[str], alike: Callable[[str], str] = str) -> list[str]:
    """``shown``, each unlike every other: of those that are ``alike``, all but the unchanged one get a piece of a hash.

    The hash is that of the name in ``origins``, so that a student's name does not depend on who else handed in.
    """
    count, taken, made = Counter(map(alike, shown)), set(), []
    for origin, name in zip(origins, shown, strict=True):
        digest = hashlib.sha256(origin.encode("utf-8", "surrogatepass")).hexdigest()
        length, one = 6, name
        if count[alike(name)] > 1 and not name == origin == alike(name):
            one = f"{name}~{digest[:length]}"
        while alike(one) in taken:
            length += 6
            one = f"{name}~{digest[:length]}"
        taken.add(alike(one))
        made.append(one)
    return made


def decoded(content: bytes, errors: str = "strict") -> tuple[str, str]:
    """The text of a file in UTF-8, UTF-16 or else cp1252, without its byte order mark, and what was remarkable about it."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, errors), "" if encoding == "utf-8" else "it is in UTF-16"
    # Without a mark, a file in UTF-16 that begins with an ASCII character has a zero in its first two bytes.
    for start, encoding in ((slice(0, 1), "utf-16-be"), (slice(1, 2), "utf-16-le")):
        if content[start] == b"\0":
            return content.decode(encoding, errors), "it is in UTF-16"
    try:
        return content.decode("utf-8"), ""
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace"), "it is not in UTF-8: read as cp1252"


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table with a header, as a spreadsheet saves it: commas, semicolons or tabs, in any usual encoding.

    Raises NotebookError if there is no such file, or nothing in it.
    """
    try:
        if path.stat().st_size > LARGEST_TABLE:
            raise NotebookError(f"{path} is larger than {LARGEST_TABLE >> 20} MB: not a table of students")
        text, _ = decoded(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise NotebookError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not a text'}") from None
    head = text.split("\n", 1)[0]
    separator = max(",;\t", key=head.count)
    try:
        rows = list(csv.DictReader(text.splitlines(keepends=True), delimiter=separator, restkey="", restval=""))
    except csv.Error as error:
        raise NotebookError(f"{path} is not a table: {error}") from None
    table = [{_cell(name): _cell(entry) for name, entry in row.items() if name} for row in rows]
    if not table:
        raise NotebookError(f"{path} has no rows: expected a header and a line per student")
    return table


def _cell(entry: str | None) -> str:
    return plain(printable(entry or "", most=2000, lines=True).strip())


def write_table(path: Path, head: Sequence[str], rows: Sequence[Sequence[object]], *, exact: bool = False) -> None:
    """Write a table that a spreadsheet opens without taking a name for a formula; the old file stays until this is complete.

    ``exact`` is for another system's own table that goes back to it: there an apostrophe too many is another name.
    """
    partial, shown = path.with_name(f"{path.name}.partial"), str if exact else quoted
    with open(partial, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([head, *([shown(entry) for entry in row] for row in rows)])
    partial.replace(path)


def quoted(entry: object) -> str:
    """An entry that a spreadsheet would take for a formula gets an apostrophe before it."""
    return f"'{entry}" if str(entry).startswith(FORMULA) else str(entry)


def plain(entry: str) -> str:
    """An entry of a table as it was before :func:`write_table` quoted it."""
    return entry[1:] if entry[:1] == "'" and entry[1:].startswith(FORMULA) else entry


def first(row: Mapping[str, str], *names: str) -> str:
    """The first entry of ``row`` that is not empty, of the columns with these names, however they are written."""
    found = {key(name): entry for name, entry in row.items()}
    return next((found[key(name)] for name in names if found.get(key(name))), "")

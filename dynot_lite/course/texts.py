"""Names and texts that others wrote, made printable at the door; and the tables that spreadsheets read and write."""

import csv
import hashlib
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dynot_lite.companion.notebooks import NotebookError

__all__ = ["decoded", "distinct", "file_name", "first", "key", "plain", "printable", "read_table", "rows_of", "squeezed"]
__all__ += ["words", "write_table", "write_whole"]

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
JOINERS = "\u200c\u200d"  # cannot be seen, but are spelling in Persian and in the scripts of India
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{k}" for port in ("COM", "LPT") for k in range(1, 10))}
# More marks on one letter than in any language; to put many in order takes time in their square (Unicode, UAX 15).
MOST_MARKS = 30
FORMULA = ("=", "+", "-", "@", "\t", "\r")
LARGEST_TABLE = 20 * 2**20


def printable(text: Any, *, most: int = 120, lines: bool = False) -> str:
    """The text in Unicode's form NFC and without what cannot be printed or stored, cut to ``most`` characters.

    Bytes of a file name that are not UTF-8 are read as cp1252; half a surrogate pair and control characters become U+FFFD. A
    name, which is the default, is one line without invisible signs; with ``lines``, line breaks, tabs and all other signs stay.
    """
    whole = "".join(_character(one) for one in str(text)[: 4 * most])  # NFC makes it shorter, by less than that
    whole = unicodedata.normalize("NFC", _bounded(whole))
    if lines:
        whole = re.sub("\r\n?", "\n", whole)
        whole = "".join(UNKNOWN if unicodedata.category(one) == "Cc" and one not in "\n\t" else one for one in whole)
    else:
        whole = " ".join(
            "".join(one if one.isprintable() or one.isspace() or one in JOINERS else UNKNOWN for one in whole).split()
        )
    return whole if len(whole) <= most else whole[: most - 1] + "…"


def words(error: Exception) -> str:
    """What an error says, in a line."""
    return printable(getattr(error, "strerror", None) or f"{type(error).__name__}: {error}".rstrip(": "), most=200)


def squeezed(text: str) -> str:
    """The text with one space for any number of spaces and lines: to compare what was written, not how."""
    return " ".join(text.split())


def _character(one: str) -> str:
    if "\udc80" <= one <= "\udcff":  # how Python shows a byte of a file name that is not UTF-8
        return bytes([ord(one) - 0xDC00]).decode("cp1252", "replace")
    return UNKNOWN if "\ud800" <= one <= "\udfff" else one


def _bounded(text: str) -> str:
    """The text without the marks that are more than ``MOST_MARKS`` in a row."""
    if text.isascii():
        return text
    kept, run = [], 0
    for one in text:
        run = run + 1 if unicodedata.category(one)[0] == "M" else 0
        if run <= MOST_MARKS:
            kept.append(one)
    return "".join(kept)


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
    """The rows of a table with a header, as a spreadsheet saves it; entries are plain, printable and at most 2000 long.

    Raises NotebookError as :func:`rows_of`, or if there are no rows.
    """
    cell = lambda entry: plain(printable(entry, most=2000, lines=True).strip())
    table = [{cell(name): cell(entry) for name, entry in row.items()} for _, row in rows_of(path)[1]]
    if not table:
        raise NotebookError(f"{path} has no rows: expected a header and a line per student")
    return table


def rows_of(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header of a table, and its rows with the numbers of their lines, as they stand there.

    Commas, semicolons and tabs are read, in any usual encoding, also below empty lines and Excel's line ``sep=;``.
    Raises NotebookError if there is no such file, or no table in it.
    """
    try:
        if path.stat().st_size > LARGEST_TABLE:
            raise NotebookError(f"{path} is larger than {LARGEST_TABLE >> 20} MB: not a table of students")
        lines = list(io.StringIO(decoded(path.read_bytes(), "replace")[0], newline=""))
    except OSError as error:
        raise NotebookError(f"{path} cannot be read: {error.strerror}") from None
    skipped = 0
    while skipped < len(lines) and (not lines[skipped].strip() or lines[skipped].lower().startswith("sep=")):
        skipped += 1
    head = lines[skipped] if skipped < len(lines) else ""
    reader = csv.DictReader(lines[skipped:], delimiter=max(",;\t", key=head.count), restkey="", restval="")
    try:
        names = [name for name in reader.fieldnames or () if name]
        return names, [(skipped + reader.line_num, {name: row[name] for name in names}) for row in reader]
    except csv.Error as error:
        raise NotebookError(f"{path}, line {skipped + reader.line_num}, is not a line of a table: {error}") from None


def write_table(
    path: Path, head: Sequence[str], rows: Sequence[Sequence[object]], *, exact: bool = False, separator: str = ",", bom: str = ""
) -> None:
    """Write a table that a spreadsheet opens without taking a name for a formula.

    ``exact`` is for another system's own table that goes back to it: there an apostrophe too many is another name. ``bom`` comes
    first: a byte order mark, without which Excel reads cp1252. Raises NotebookError if the file cannot be replaced.
    """
    stream, shown = io.StringIO(), str if exact else quoted
    writer = csv.writer(stream, delimiter=separator, lineterminator="\n")
    writer.writerows([head, *([shown(entry) for entry in row] for row in rows)])
    try:
        write_whole(path, bom + stream.getvalue())
    except PermissionError:
        raise NotebookError(f"{path} cannot be written: close it in the spreadsheet, and run the command again") from None


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file: the old one stays until the new one is complete and on the disk. Raises OSError if that fails."""
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "wb") as stream:
        stream.write(content.encode("utf-8", "replace") if isinstance(content, str) else content)
        stream.flush()
        os.fsync(stream.fileno())
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

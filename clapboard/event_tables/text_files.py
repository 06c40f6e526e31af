"""Text files from strangers: any line ends, byte order marks, the encodings that programs write; bounded lines."""

from __future__ import annotations

import codecs
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO

from clapboard.errors import EventTableError
from clapboard.event_tables.event_row import shown

MAX_LINE = 100_000
"""How many characters a line may have."""

_AT_ONCE = 1 << 20
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Each line with its number from 1, and with the end that it has in the file.

    UTF-8, UTF-16 with a byte order mark, else Windows' Western code page. Raises `EventTableError` for a file that
    can't be read, is none of these, or has a line of more than `MAX_LINE` characters.
    """
    encoding = encoding_of(path)
    try:
        with path.open("r", encoding=encoding, newline="") as file:
            for count in range(1, 1 << 62):
                line = file.readline(MAX_LINE)
                if not line:
                    return
                if len(line) == MAX_LINE and line[-1] not in "\r\n":
                    raise EventTableError(
                        f"{shown(path.name)}, line {count}: the line is longer than {MAX_LINE} characters: check that "
                        "it is a table of events."
                    )
                yield count, line
    except UnicodeDecodeError:
        raise EventTableError(f"{shown(path.name)} isn't text: save it as UTF-8.") from None
    except OSError as error:
        raise unreadable(path, error) from None


def encoding_of(path: Path) -> str:
    """The file's encoding. Raises `EventTableError` if it can't be read, or isn't text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as file:
            start = file.read(4)
            for mark, encoding in _BYTE_ORDER_MARKS.items():
                if start.startswith(mark):
                    return encoding
            part = start + file.read(_AT_ONCE)
            while part:
                decoder.decode(part)
                part = file.read(_AT_ONCE)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "cp1252"  # what Raven and Excel write on Windows
    except OSError as error:
        raise unreadable(path, error) from None
    return "utf-8"


def unreadable(path: Path, error: OSError) -> EventTableError:
    """The error of a file that can't be opened or read."""
    return EventTableError(f"{shown(path.name)} can't be read ({error.strerror}): check the path.")


def unwritable(path: Path, error: OSError) -> EventTableError:
    """The error of a file that can't be written."""
    return EventTableError(f"{shown(path.name)} can't be written ({error.strerror}): check the folder.")


@contextmanager
def written_whole(path: Path) -> Iterator[TextIO]:
    """A text file that gets its name only once it is complete. Raises `EventTableError` if it can't be written."""
    with _published(path, "w") as file:
        yield file  # type: ignore[misc]


@contextmanager
def _published(path: Path, mode: str) -> Iterator[IO[str]]:
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            mode, dir=path.parent, prefix=".clapboard-", delete=False, encoding="utf-8", newline=""
        ) as file:
            temporary = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # as an ordinary new file, for people to share
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

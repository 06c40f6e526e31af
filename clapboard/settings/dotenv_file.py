"""The file `.env`, of which no line is silently ignored."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from clapboard.errors import SettingsError


def read_dotenv(file: Path) -> Mapping[str, str | None]:
    """The file's values by name; None for a name without `=`. Empty if there is no such file.

    Raises `SettingsError` if the file can't be read, isn't UTF-8, or has a line that can't be parsed.
    """
    text = _text(file)
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            raise SettingsError(f"Line {binding.original.line} of {file} can't be read: write NAME=value.")
    return dotenv_values(stream=io.StringIO(text))


def _text(file: Path) -> str:
    try:
        content = file.read_bytes()
    except (FileNotFoundError, IsADirectoryError):  # some people name their virtual environment's folder so
        return ""
    except OSError as error:
        raise SettingsError(f"The file {file} can't be read ({error.strerror}): check its permissions.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        kind = " but UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content[:4] else ""
        raise SettingsError(f"The file {file} is not UTF-8 text{kind}: save it as UTF-8.")
    return text

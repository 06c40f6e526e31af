"""Output of the commands: tables and progress bars for people, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from rich.console import Console
from rich.markup import escape

from clapboard.errors import ClapboardError, RequestError

if TYPE_CHECKING:
    from rich.progress import Progress

    from clapboard.settings import Settings

_WIDTH_OF_A_FILE = 160

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ProjectId = Annotated[int, typer.Option("--project", "-p", help="Number of the Label Studio project.", min=1)]
Model = Annotated[str | None, typer.Option("--model", help="CLAP checkpoint: hub id, folder, or `mini`.")]


def console() -> Console:
    """Standard output, for people. Wide if it is not a terminal, so that tables aren't cut."""
    is_terminal = sys.stdout.isatty()
    return Console(soft_wrap=not is_terminal, width=None if is_terminal else _WIDTH_OF_A_FILE)


def errors_console() -> Console:
    """Standard error: messages and progress, so that standard output stays clean."""
    return Console(stderr=True, soft_wrap=not sys.stderr.isatty())


def write_json(value: Any) -> None:
    """Write the value to standard output, as JSON on one line."""
    sys.stdout.write(json.dumps(value, default=str) + "\n")
    sys.stdout.flush()


class JsonList:
    """Context manager: a JSON list on standard output, written item by item, each on its own line.

    The list is always closed. An error after its first item goes to standard error, so that the output stays JSON.
    """

    def __init__(self) -> None:
        self._has_begun = False

    def __enter__(self) -> Self:
        return self

    def write(self, item: Any) -> None:
        """Write the next item."""
        sys.stdout.write((",\n" if self._has_begun else "[\n") + json.dumps(item, default=str))
        sys.stdout.flush()
        self._has_begun = True

    def __exit__(self, _kind: object, error: BaseException | None, _trace: TracebackType | None) -> None:
        if self._has_begun and not isinstance(error, BrokenPipeError):
            sys.stdout.write("\n]\n")
        elif error is None:
            sys.stdout.write("[]\n")
        if self._has_begun and isinstance(error, ClapboardError):
            errors_console().print(f"[bold red]error:[/] {escape(printable(str(error)))}", highlight=False)
            raise typer.Exit(error.exit_code)


def printable(text: str) -> str:
    """The text for one line of a terminal: control characters as escapes, and «�» for bytes that aren't Unicode."""
    shown = os.fsencode(text).decode("utf-8", "replace") if not text.isascii() else text
    return "".join(
        sign if sign.isprintable() or sign == "�" else sign.encode("unicode_escape").decode() for sign in shown
    )


def require_text(texts: list[str], subject: str) -> None:
    """Raises `RequestError` if an argument isn't valid UTF-8; `subject` is what the sentence calls it."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RequestError(f"{subject} “{printable(text)}” is not UTF-8 text: type it again.") from None


def progress_bar() -> Progress:
    """A progress bar with count and time left, on standard error; silent if that is not a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=errors_console(), disable=not sys.stderr.isatty())


def settings_with(*, writes_for_others: bool = False, **overrides: Any) -> Settings:
    """The settings, with the command line's overrides.

    From now on, files that the command creates are as private as MODEL_DIR. With `writes_for_others`, for results in a
    folder that the user named, the user's umask stays.
    """
    from clapboard.settings import load_settings
    from clapboard.settings.state_folder import keep_private

    settings = load_settings().with_overrides(**overrides)
    if not writes_for_others:
        keep_private(settings.model_dir)
    return settings

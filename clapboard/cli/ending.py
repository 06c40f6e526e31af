"""How a command ends: any error is one sentence, or a JSON object with `--json`, and an exit code."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from clapboard.errors import ClapboardError

if TYPE_CHECKING:
    from sqlalchemy.exc import SQLAlchemyError

FAILED, WRONG_USAGE, NOT_THERE, INTERRUPTED = 1, 2, 3, 130

_NO_HOME = "This user has no home folder: set HOME, and MODEL_DIR, to folders that it may write to."


def run_to_the_end(command: Callable[[], Any], *, as_json: bool) -> int:
    """Run a command that returns an exit code or None, and flush its output. Returns the exit code.

    An error is printed on standard error or, as `{"error", "detail"}`, on standard output, which then holds only that.
    """
    prepare_streams()
    try:
        code = _run(command, as_json)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader closed the pipe
        _discard_output()
        return FAILED
    except OSError as error:
        _discard_output()
        _report("os", _system_error(error), as_json=False)
        return WRONG_USAGE
    return code


def prepare_streams() -> None:
    """Make standard output and error accept any text: file names that aren't Unicode, and a stream that is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            # Bytes that aren't Unicode are written unchanged, characters that the encoding lacks as escapes.
            is_unicode = stream.encoding.lower().replace("-", "") == "utf8"
            stream.reconfigure(errors="surrogateescape" if is_unicode else "backslashreplace")


def _run(command: Callable[[], Any], as_json: bool) -> int:
    try:
        code = command()
    except ClapboardError as error:
        return _report(error.code, str(error), as_json=as_json, exit_code=error.exit_code)
    except typer.TyperException as error:
        if not error.format_message():  # there was no command, so typer has printed the help
            return error.exit_code
        return _report("usage", _usage(error), as_json=as_json, exit_code=error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        return _report("os", _system_error(error), as_json=as_json)
    except Exception as error:
        if "home directory" in str(error):  # Python's words; some libraries ask for it at import
            return _report("settings", _NO_HOME, as_json=as_json)
        return _report_unexpected(error, as_json=as_json)
    if code == INTERRUPTED:
        typer.echo("Stopped.", err=True)
    return code if isinstance(code, int) else 0


def _report(code: str, sentence: str, *, as_json: bool, exit_code: int = WRONG_USAGE) -> int:
    if as_json:
        sys.stdout.write(json.dumps({"error": code, "detail": sentence}) + "\n")
    else:
        from rich.markup import escape

        from clapboard.cli.output import errors_console, printable

        errors_console().print(f"[bold red]error:[/] {escape(printable(sentence))}", highlight=False)
    return exit_code


def _usage(error: typer.TyperException) -> str:
    """What is wrong with the command, and which help to read."""
    context = getattr(error, "ctx", None)
    sentence = error.format_message().rstrip()
    sentence += "" if sentence.endswith((".", "?", "!", ")")) else "."
    return f"{sentence} `{context.command_path} --help` shows how." if context else sentence


def _system_error(error: OSError) -> str:
    subject = (
        f"{os.fsdecode(error.filename)} can't be used"
        if isinstance(error.filename, str | bytes)
        else "Reading or writing failed"
    )
    return f"{subject}: {error.strerror or type(error).__name__}."


def _report_unexpected(error: Exception, *, as_json: bool) -> int:
    from sqlalchemy.exc import SQLAlchemyError

    from clapboard.logs import describe, is_set_up

    if isinstance(error, SQLAlchemyError):
        return _report("store", _store_error(error), as_json=as_json, exit_code=NOT_THERE)
    if is_set_up():  # the exception hook then logs it
        raise error
    sentence = f"An unexpected error, which is a bug in Clapboard: {describe(error)}."
    return _report("internal", sentence, as_json=as_json, exit_code=FAILED)


def _store_error(error: SQLAlchemyError) -> str:
    return f"The store can't be used ({type(error).__name__}): check CLAPBOARD_DATABASE_URL or MODEL_DIR, and its disk."


def _discard_output() -> None:
    """Discard what is still in the output's buffer, which Python would fail to write when it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())

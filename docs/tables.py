"""The tables that the documentation takes from the code: settings, metrics, commands, routes, errors, kinds of jobs."""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from typer.main import get_command

from backend.app import create_app
from backend.metrics import Metrics
from clapboard.cli import app
from clapboard.errors import ClapboardError
from clapboard.label_studio.tally import RequestTally
from clapboard.settings import Settings, env_name, section
from clapboard.store import Store
from workers.worker_metrics import WorkerMetrics


def settings() -> str:
    """Every setting with its default and what it is, section by section."""
    sections: dict[str, list[tuple[str, str, str]]] = {}
    for name, field in Settings.model_fields.items():
        row = f"`{env_name(name)}`", default(name), field.description or ""
        sections.setdefault(section(name), []).append(row)
    titles = ("setting", "default", "what it is")
    return "\n\n".join(f"### {title}\n\n{_table(titles, rows)}" for title, rows in sections.items())


def default(field: str) -> str:
    """The field's default, as it would be written in a `.env` file."""
    value: Any = Settings.model_fields[field].default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    elif isinstance(value, tuple):
        value = ",".join(value)
    elif isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, float):
        value = f"{value:g}"
    return f"`{value}`" if value != "" else "empty"


def backend_metrics() -> str:
    """What the backend's `/metrics` serves."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Settings(MODEL_DIR=Path(folder)))
        rows = list(_metrics(Metrics(store).registry))
        store.close()
    return _table(("metric", "type", "labels", "what it is"), rows)


def worker_metrics() -> str:
    """What a worker's `/metrics` serves."""
    registry = WorkerMetrics(RequestTally(), torch.device("cpu"), dict).registry
    return _table(("metric", "type", "labels", "what it is"), _metrics(registry))


def _metrics(registry: CollectorRegistry) -> Iterator[tuple[str, ...]]:
    labels = {
        collector._name: collector._labelnames  # type: ignore[attr-defined]
        for collector in registry._collector_to_names
        if hasattr(collector, "_labelnames")
    }
    for family in registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        of_family = labels.get(family.name) or getattr(family, "_labelnames", ())
        shown = ", ".join(f"`{label}`" for label in of_family) or "–"
        yield f"`{name}`", family.type, shown, family.documentation


def commands() -> str:
    """Every command and subcommand, with its usage, arguments and options."""
    root = get_command(app)
    return "\n\n".join(_command(command, path) for path, command in leaves(root, ("clapboard",)))


def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The commands below that do something, with the words that call them."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, member in command.commands.items():
        yield from leaves(member, (*path, name))


def _command(command: Any, path: tuple[str, ...]) -> str:
    context = command.context_class(command, info_name=" ".join(path))
    usage = " ".join(command.collect_usage_pieces(context))
    records = (parameter.get_help_record(context) for parameter in command.params)
    rows = [(f"`{names}`", _escaped(text)) for names, text in filter(None, records)]
    text = _escaped(inspect.cleandoc(command.help or ""))
    return "\n\n".join(
        (f"### {' '.join(path)}", text, f"`{' '.join(path)} {usage}`", _table(("parameter", "what it is"), rows))
    )


def _escaped(text: str) -> str:
    """The text with what Markdown would take for a link or HTML written out; code in it stays."""
    return re.sub(r"(`[^`]*`)|([<\[\]])", lambda part: part[1] or f"\\{part[2]}", text)


def exit_codes() -> str:
    """What each exit code of `clapboard` says."""
    told = (app.info.epilog or "").removeprefix("Exit codes: ").rstrip(".")
    return _table(("exit code", "meaning"), (part.split(" ", 1) for part in told.split(", ")))


def errors() -> str:
    """Every error by its stable code, and what follows from it."""
    kinds: list[type[ClapboardError]] = list(ClapboardError.__subclasses__())
    for kind in kinds:
        kinds += kind.__subclasses__()
    unique: dict[str, type[ClapboardError]] = {}
    for kind in kinds:  # the more general before the special: a code may stand for both
        if kind.__module__ == ClapboardError.__module__:
            unique.setdefault(kind("").code, kind)
    return _table(
        ("code", "meaning", "tried again", "HTTP status", "exit code"),
        (
            (
                f"`{code}`",
                inspect.getdoc(kind) or "",
                "yes" if kind.retryable else "no",
                kind.http_status,
                kind.exit_code,
            )
            for code, kind in sorted(unique.items())
        ),
    )


def routes() -> str:
    """Every HTTP route with the statuses of its answers, and those that any of them may give."""
    with tempfile.TemporaryDirectory() as folder:
        paths = create_app(Settings(MODEL_DIR=Path(folder))).openapi()["paths"]
    operations = [
        (f"`{method.upper()} {path}`", " ".join(operation["description"].split()), set(operation["responses"]))
        for path, methods in sorted(paths.items())
        for method, operation in methods.items()
    ]
    shared = set.intersection(*(statuses for _, _, statuses in operations)) - {"200"}
    rows = ((route, text, ", ".join(sorted(statuses - shared))) for route, text, statuses in operations)
    return f"{_table(('route', 'what it does', 'answers'), rows)}\n\nAny may answer {', '.join(sorted(shared))} too."


TABLES: dict[str, Callable[[], str]] = {
    "settings": settings,
    "backend-metrics": backend_metrics,
    "worker-metrics": worker_metrics,
    "commands": commands,
    "exit-codes": exit_codes,
    "errors": errors,
    "routes": routes,
}
"""By the name that a page's marker gives."""


def _table(titles: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    names = list(titles)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: object) -> str:
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|")

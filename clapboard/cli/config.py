"""`config`: the settings in force."""

from __future__ import annotations

from typing import Any

import typer
from pydantic import SecretStr
from rich.markup import escape
from rich.table import Table

from clapboard.cli.output import AsJson, console, settings_with, write_json
from clapboard.settings import env_name, provenance


def add_commands(app: typer.Typer) -> None:
    """Register this module's command."""
    app.command()(config)


def config(as_json: AsJson = False) -> None:
    """The settings in force and where each came from, secrets masked."""
    settings, origins = settings_with(), provenance()
    rows = [
        {"setting": env_name(field), "value": _masked(getattr(settings, field)), "from": origins[field]}
        for field in type(settings).model_fields
    ]
    if as_json:
        write_json(rows)
        return
    table = Table("setting", "value", "from", title="Settings")
    for row in rows:
        table.add_row(row["setting"], escape(str(row["value"])), row["from"])
    console().print(table)


def _masked(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return "********" if value.get_secret_value() else ""
    return ", ".join(value) if isinstance(value, tuple) else value if isinstance(value, int | float) else str(value)

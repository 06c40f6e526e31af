"""`config`: the settings and where they come from."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from clapboard.cli.output import AsJson, console, settings_with, write_json


def add_commands(app: typer.Typer) -> None:
    """Register this module's command."""
    app.command()(config)


def config(
    as_json: AsJson = False,
    password: Annotated[
        bool, typer.Option("--password", help="Only print the user:password that the backend requires.")
    ] = False,
) -> None:
    """Show every setting, its value and where it comes from. Secrets are masked."""
    if password:
        _show_password(as_json)
        return
    from clapboard.settings import env_name, provenance

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
    from pydantic import SecretStr

    if isinstance(value, SecretStr):
        return "********" if value.get_secret_value() else ""
    return ", ".join(value) if isinstance(value, tuple) else value if isinstance(value, int | float) else str(value)


def _show_password(as_json: bool) -> None:
    """Print user:password, as for `curl --user`; nothing if the backend requires no password."""
    from clapboard.installation.backend_password import with_password
    from clapboard.store import Store

    settings = settings_with()
    with_credentials = with_password(settings, Store.open(settings))
    user, secret = with_credentials.basic_auth_user, with_credentials.basic_auth_pass.get_secret_value()
    if as_json:
        write_json({"user": user, "password": secret})
    elif user:
        sys.stdout.write(f"{user}:{secret}\n")

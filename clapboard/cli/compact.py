"""`compact`: delete what is old, and give its space back."""

from __future__ import annotations

import typer

from clapboard.cli.output import AsJson, console, settings_with, write_json


def add_commands(app: typer.Typer) -> None:
    """Register this module's command."""
    app.command()(compact)


def compact(as_json: AsJson = False) -> None:
    """Delete what is older than CLAPBOARD_KEEP_DAYS, and give the store's free space back to the disk.

    Labels are never deleted. SQLite needs as much free disk as the store has, and nobody can write to it meanwhile.
    """
    from clapboard.store import Store
    from clapboard.store.retention import Retention
    from clapboard.store.retention import compact as give_back

    settings = settings_with()
    store = Store.open(settings)
    removed = Retention(store.database, store.clock, settings.keep_days).finish()
    before, after = give_back(store.database)
    store.close()
    if as_json:
        write_json({"deleted": dict(removed), "bytes_before": before, "bytes_after": after})
        return
    deleted = ", ".join(f"{num:,} {name}" for name, num in removed.items()) or "nothing"
    console().print(
        f"Deleted {deleted}. The store had {before / 1e6:,.1f} MB and has {after / 1e6:,.1f} MB: "
        f"{max(0, before - after) / 1e6:,.1f} MB were given back.",
        highlight=False,
    )

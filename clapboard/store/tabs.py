"""The tabs of the Data Manager that Clapboard made, so that it never touches others."""

from __future__ import annotations

from sqlalchemy import delete, select

from clapboard.store.database import Database
from clapboard.store.schema import tabs


class TabStore:
    """The tabs table."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def of_project(self, project: int) -> dict[str, int]:
        """By name, Label Studio's id of each tab that was made for the project."""
        with self._db.read() as connection:
            rows = connection.execute(select(tabs.c.name, tabs.c.tab).where(tabs.c.project == project))
            return {row.name: row.tab for row in rows}

    def forget(self, project: int, name: str) -> None:
        """Delete the record of a tab that is no longer there."""
        with self._db.write() as connection:
            connection.execute(delete(tabs).where(tabs.c.project == project, tabs.c.name == name))

    def put(self, project: int, name: str, tab: int) -> None:
        """Store the id of a tab that was made."""
        statement = self._db.insert(tabs).values(project=project, name=name, tab=tab)
        with self._db.write() as connection:
            connection.execute(
                statement.on_conflict_do_update(index_elements=[tabs.c.project, tabs.c.name], set_={"tab": tab})
            )

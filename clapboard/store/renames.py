"""Labels that have been renamed since people used them."""

from __future__ import annotations

from sqlalchemy import ColumnElement, delete, select

from clapboard.feedback.renames import Rename
from clapboard.store.database import Database
from clapboard.store.schema import label_renames


class RenameStore:
    """The label_renames table."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, project: int, rename: Rename) -> None:
        """Store that a label has a new name. An earlier rename of the new name itself is deleted."""
        names = {"new_control": rename.new_control, "new_label": rename.new_label}
        key = {"project": project, "control": rename.control, "label": rename.label}
        statement = self._db.insert(label_renames).values(key | names)
        with self._db.write() as connection:
            connection.execute(delete(label_renames).where(_of(project, rename.new_control, rename.new_label)))
            connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=names))

    def of_project(self, project: int) -> list[Rename]:
        """The project's renames, sorted by control and label."""
        query = select(label_renames).where(label_renames.c.project == project)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(label_renames.c.control, label_renames.c.label))
            return [Rename(row.control, row.label, row.new_control, row.new_label) for row in rows]


def _of(project: int, control: str, label: str) -> ColumnElement[bool]:
    of_project = label_renames.c.project == project
    return of_project & (label_renames.c.control == control) & (label_renames.c.label == label)

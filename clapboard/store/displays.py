"""What Label Studio shows of each project, and how far its predictions follow the version that serves.

The sweep (`workers.sweep`) goes round the project's tasks in the order of their ids. Each version that takes over sends
it once round from where it is, so that it comes to an end whatever process carries it on, and passes every task even if
versions follow each other faster than it goes round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, select, update

from clapboard.store.database import Database
from clapboard.store.schema import displays

SEQUENTIAL, UNCERTAINTY = "Sequential sampling", "Uncertainty sampling"
"""The orders, in Label Studio's words, in which it can be told beforehand which tasks people get next."""


@dataclass(frozen=True)
class Display:
    """A project's row; the table in `schema` says what its fields mean. Times are in seconds since 1970."""

    project: int
    shown_as: str = ""
    sampling: str = ""
    annotations_per_task: int = 1
    model_version: str = ""
    took_over_at: float = 0.0
    unswept_since: float = 0.0
    cursor: int = 0
    ends_at: int = 0
    has_wrapped: bool = False
    front: int = 0
    is_live: bool = False
    awaits_embeddings: bool = False
    answer_s: float = 0.0
    rests_until: float = 0.0

    @property
    def asks(self) -> bool:
        """Whether Label Studio is to ask for each task that its label stream opens, even if it has a suggestion.

        So it does while suggestions are brought up to date, if people may get any task next: at random, or one that
        others have annotated.
        """
        is_foreseen = self.sampling in ("", SEQUENTIAL, UNCERTAINTY) and self.annotations_per_task == 1
        return bool(self.model_version) and not is_foreseen


class DisplayStore:
    """The displays table."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._clock = clock

    def get(self, project: int) -> Display:
        """The project's row; one with the defaults if there is none."""
        with self._db.read() as connection:
            row = connection.execute(select(displays).where(displays.c.project == project)).one_or_none()
        return Display(**row._mapping) if row else Display(project)

    def asking(self) -> dict[int, str]:
        """By project, the version that Label Studio is to ask for, see `Display.asks`."""
        query = select(displays).where(displays.c.model_version != "")
        with self._db.read() as connection:
            rows = [Display(**row._mapping) for row in connection.execute(query)]
        return {display.project: display.model_version for display in rows if display.asks}

    def shows(self, project: int, shown_as: str) -> None:
        """Record the name whose predictions Label Studio was made to show."""
        self._put(project, shown_as=shown_as)

    def configured(self, project: int, sampling: str, annotations_per_task: int) -> None:
        """Record the project's settings in Label Studio."""
        self._put(project, sampling=sampling, annotations_per_task=annotations_per_task)

    def set_live(self, project: int, is_live: bool) -> None:
        """Record whether Label Studio was made to ask for what its label stream opens."""
        self._put(project, is_live=is_live)

    def begin_sweep(self, project: int, model_version: str) -> None:
        """Send the sweep once round, from where it is, with this version's suggestions."""
        now = self._clock()
        values = {
            "model_version": model_version,
            "took_over_at": now,
            "unswept_since": case((displays.c.model_version == "", now), else_=displays.c.unswept_since),
            "ends_at": displays.c.cursor,
            "has_wrapped": False,
        }
        with self._db.write() as connection:
            new = self._db.insert(displays).values(project=project)
            connection.execute(new.on_conflict_do_nothing())
            connection.execute(update(displays).where(displays.c.project == project).values(values))

    def advance(self, display: Display, cursor: int, *, is_at_end: bool) -> bool:
        """Record how far the sweep has come; False if another version has taken over meanwhile.

        `is_at_end`: no task follows in this half of the round: it goes on at the first task, or has come round.
        """
        values: dict[str, Any] = {"cursor": cursor}
        if is_at_end and (display.has_wrapped or not display.ends_at):
            values |= {"cursor": 0, "ends_at": 0, "has_wrapped": False, "model_version": ""}
        elif is_at_end:  # tasks may have become open again before the front
            values |= {"cursor": 0, "has_wrapped": True, "front": 0}
        same = (displays.c.project == display.project) & (displays.c.model_version == display.model_version)
        with self._db.write(durable=False) as connection:
            of_this_round = same & (displays.c.took_over_at == display.took_over_at)
            return connection.execute(update(displays).where(of_this_round).values(values)).rowcount > 0

    def await_embeddings(self, project: int, awaits: bool) -> None:
        """Record whether the sweep has queued tasks to be embedded, from which is learnt afterwards."""
        self._put(project, awaits_embeddings=awaits)

    def set_front(self, project: int, front: int) -> None:
        """Record the first task that is still open."""
        self._put(project, front=front)

    def rest(self, project: int, until: float, answer_s: float | None = None) -> None:
        """Leave Label Studio in peace until then; `answer_s` is how long it takes for a change when it is idle."""
        self._put(project, rests_until=until, **({} if answer_s is None else {"answer_s": answer_s}))

    def _put(self, project: int, **values: Any) -> None:
        statement = self._db.insert(displays).values(project=project, **values)
        with self._db.write(durable=False) as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["project"], set_=values))

"""Plans: what workers do on a schedule, and when next. They survive restarts, and each run happens only once.

All workers look at the same rows. The worker that moves a plan's `next_at` on has taken that run, and queues its jobs
in the same transaction. Runs that were missed while no worker was up are made up for by one run of the first worker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update

from clapboard.store.database import Database
from clapboard.store.schema import plans


@dataclass(frozen=True)
class Plan:
    """A row of the table. Times are in seconds since 1970; `next_at` is infinite if no run is planned."""

    name: str
    schedule: str  # as the setting has it
    next_at: float
    last_at: float | None = None  # when its jobs were last queued


class PlanStore:
    """The plans table."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._clock = clock

    def all(self) -> dict[str, Plan]:
        """Every plan by its name."""
        with self._db.read() as connection:
            return {row.name: Plan(**row._mapping) for row in connection.execute(select(plans))}

    def settle(self, plan: Plan, *, anew: bool = False) -> None:
        """Store the plan. If its schedule hasn't changed, it keeps its `next_at`, so that a missed run is still due.

        With `anew`, `next_at` is replaced in any case.
        """
        row = {"name": plan.name, "schedule": plan.schedule, "next_at": plan.next_at}
        statement = self._db.insert(plans).values(row)
        changed = None if anew else plans.c.schedule != plan.schedule
        with self._db.write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=row, where=changed))

    def drop(self, name: str) -> None:
        """Delete the plan."""
        with self._db.write() as connection:
            connection.execute(delete(plans).where(plans.c.name == name))

    def take(self, connection: Connection, plan: Plan, next_at: float) -> bool:
        """Take this run in the caller's transaction, and set the next one; False if another worker has taken it."""
        same = (plans.c.name == plan.name) & (plans.c.schedule == plan.schedule) & (plans.c.next_at == plan.next_at)
        moved = update(plans).where(same).values(next_at=next_at, last_at=self._clock())
        return bool(connection.execute(moved).rowcount)

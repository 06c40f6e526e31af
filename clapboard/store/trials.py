"""Trials: a version beside the one before it, judged by what people label while both are there.

`head`: fitted heads that took over, against the version that served before the first of them. `canary`: a finetuned
candidate that the gate found likely but not surely better; it is shown on a random half of the tasks, which a hash of
the trial and the task decides. A task answers for a trial once, and only by labels that neither version has learnt.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select, update

from clapboard.store.database import Database, in_chunks
from clapboard.store.schema import (
    annotation_states,
    inbox,
    labelled_tasks,
    ledger,
    trial_answers,
    trials,
)


class Kind(enum.StrEnum):
    """What is on trial."""

    HEAD = "head"
    CANARY = "canary"


class State(enum.StrEnum):
    """How a trial stands."""

    OPEN = "open"
    PROMOTED = "promoted"  # surely better: a candidate takes over; a head has done so and stays
    DROPPED = "dropped"  # surely worse: a candidate goes, a head is rolled back
    UNDECIDED = "undecided"  # neither after all its labels: the version that serves stays
    ENDED = "ended"  # something else took over, so that nothing is left to compare


@dataclass(frozen=True)
class Trial:
    """A trial. `shown_as` is the model version under which a canary's suggestions are shown; empty for heads."""

    project: int
    kind: Kind
    candidate: str  # model version; of heads, the first that took over
    reference: str  # model version
    num_labels: int  # after so many, it ends undecided
    alpha: float  # the chance of a wrong decision in each direction
    shown_as: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)  # what the gate had seen
    id: int = 0
    state: State = State.OPEN
    reason: str = ""
    after_event: int = 0  # the newest event of the inbox when it began
    looked_at: float = 0.0  # up to when labels have been looked at
    started_at: float = 0.0
    ended_at: float | None = None

    def shows_candidate(self, task: int) -> bool:
        """Whether the task belongs to the half that gets the candidate's suggestion."""
        return hashlib.sha256(f"{self.id}:{task}".encode()).digest()[0] % 2 == 1


@dataclass(frozen=True)
class Answer:
    """What a task's labels say of the two versions."""

    task: int
    model_version: str  # of the suggestion in view; empty if there was none
    lead: float  # the candidate's, in nearness
    right: float  # the candidate's share of controls suggested rightly, minus the reference's


@dataclass(frozen=True)
class Arrival:
    """A task that was labelled, or labelled anew, at this time, with the suggestion that was in view."""

    task: int
    received_at: float
    model_version: str


class TrialStore:
    """The tables of trials and of their answers."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._clock = clock

    def begin(self, trial: Trial) -> Trial:
        """Open the trial; the one of its kind that is open already if there is one."""
        now = self._clock()
        newest = select(func.coalesce(func.max(inbox.c.id), 0)).where(inbox.c.project == trial.project)
        row = {
            "project": trial.project,
            "kind": trial.kind,
            "candidate": trial.candidate,
            "reference": trial.reference,
            "num_labels": trial.num_labels,
            "alpha": trial.alpha,
            "shown_as": trial.shown_as,
            "evidence": dict(trial.evidence),
            "state": State.OPEN,
            "after_event": newest.scalar_subquery(),
            "looked_at": now,
            "started_at": now,
        }
        with self._db.write() as connection:
            connection.execute(self._db.insert(trials).values(row).on_conflict_do_nothing())
        begun = self.open(trial.project, trial.kind)
        assert begun is not None  # whoever ends trials holds the project's lock, as the caller does
        return begun

    def open(self, project: int, kind: Kind) -> Trial | None:
        """The project's open trial of this kind."""
        query = select(trials).where(trials.c.project == project, trials.c.kind == kind, trials.c.state == State.OPEN)
        with self._db.read() as connection:
            row = connection.execute(query).one_or_none()
        return _trial(row) if row else None

    def open_canaries(self) -> dict[int, Trial]:
        """By project, the canaries that are open."""
        query = select(trials).where(trials.c.kind == Kind.CANARY, trials.c.state == State.OPEN)
        with self._db.read() as connection:
            return {row.project: _trial(row) for row in connection.execute(query)}

    def needed(self, project: int) -> set[str]:
        """The versions that open trials may bring into service, or compare with."""
        query = select(trials.c.kind, trials.c.reference, trials.c.candidate)
        query = query.where(trials.c.project == project, trials.c.state == State.OPEN)
        needed: set[str] = set()
        with self._db.read() as connection:
            for kind, reference, candidate in connection.execute(query):
                needed |= {reference, candidate} if kind == Kind.CANARY else {reference}
        return needed

    def of_project(self, project: int) -> list[Trial]:
        """The project's trials, oldest first."""
        with self._db.read() as connection:
            rows = connection.execute(select(trials).where(trials.c.project == project).order_by(trials.c.id))
            return [_trial(row) for row in rows]

    def end(self, trial: Trial, state: State, reason: str) -> bool:
        """End the trial; False if it had ended."""
        values = {"state": state, "reason": reason, "ended_at": self._clock()}
        is_open = (trials.c.id == trial.id) & (trials.c.state == State.OPEN)
        with self._db.write() as connection:
            return connection.execute(update(trials).where(is_open).values(values)).rowcount > 0

    def put_answers(self, trial: Trial, answers: Sequence[Answer], looked_at: float) -> None:
        """Store answers, in their order, with the time up to which labels have been looked at.

        A task that has answered already isn't asked again.
        """
        of_trial = trial_answers.c.trial == trial.id
        with self._db.write() as connection:
            last = connection.scalar(select(func.coalesce(func.max(trial_answers.c.place), 0)).where(of_trial)) or 0
            rows = [
                vars(answer) | {"project": trial.project, "trial": trial.id, "place": place}
                for place, answer in enumerate(answers, last + 1)
            ]
            if rows:
                connection.execute(self._db.insert(trial_answers).on_conflict_do_nothing(), rows)
            connection.execute(update(trials).where(trials.c.id == trial.id).values(looked_at=looked_at))

    def answers(self, trial: Trial) -> list[Answer]:
        """The trial's answers, in the order in which they came."""
        columns = (trial_answers.c[name] for name in ("task", "model_version", "lead", "right"))
        query = select(*columns).where(trial_answers.c.trial == trial.id).order_by(trial_answers.c.place)
        with self._db.read() as connection:
            return [Answer(*row) for row in connection.execute(query)]

    def arrivals(self, trial: Trial) -> list[Arrival]:
        """The tasks that were first labelled since the trial began and haven't answered, in the order of arrival."""
        arrived = (
            select(labelled_tasks.c.task, labelled_tasks.c.received_at)
            .where(labelled_tasks.c.project == trial.project, labelled_tasks.c.received_at >= trial.looked_at)
            .order_by(labelled_tasks.c.received_at, labelled_tasks.c.task)
        )
        with self._db.read() as connection:
            received_at = {row.task: row.received_at for row in connection.execute(arrived)}
            in_view: dict[int, str] = {}
            for chunk in in_chunks(sorted(received_at)):
                of_trial = (trial_answers.c.trial == trial.id) & trial_answers.c.task.in_(chunk)
                for task in connection.scalars(select(trial_answers.c.task).where(of_trial)):
                    del received_at[task]
                states = select(annotation_states).where(
                    annotation_states.c.project == trial.project, annotation_states.c.task.in_(chunk)
                )
                annotations = {row.annotation: row for row in connection.execute(states)}
                before = select(ledger.c.annotation).where(
                    ledger.c.project == trial.project,
                    ledger.c.annotation.in_(annotations),
                    ledger.c.inbox_id <= trial.after_event,
                )
                for annotation in connection.scalars(before):
                    received_at.pop(annotations[annotation].task, None)
                for row in annotations.values():
                    if row.stands:
                        in_view.setdefault(row.task, row.model_version)
        return [Arrival(task, when, in_view.get(task, "")) for task, when in received_at.items()]


def _trial(row: Any) -> Trial:
    values = dict(row._mapping)
    return Trial(**values | {"kind": Kind(values["kind"]), "state": State(values["state"])})

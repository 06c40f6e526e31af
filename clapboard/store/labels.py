"""What each task's annotators agree on, kept task by task, with counts by label and an order to draw samples in.

Entering an event marks its tasks (`annotations`). `refresh` derives the labels of marked tasks anew: their own
annotations decide them, so that it costs the same in a project of any size. When the rules change, by another label
config or a renamed label, a new generation begins, which marks every task at once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Text, bindparam, cast, delete, select, update

from clapboard.feedback.consensus import Consensus, TaskLabels
from clapboard.feedback.left_out import LeftOut, left_out_sentence
from clapboard.feedback.task_labels import (
    Count,
    LabelledTask,
    LabelRules,
    Reason,
    as_json,
    by_task,
    draw,
    from_json,
    together,
)
from clapboard.store.annotations import AnnotationStore, lock_ledger
from clapboard.store.database import Database, in_chunks
from clapboard.store.schema import agreed_labels, label_counts, labelled_tasks, learning

_TASKS_AT_ONCE = 500


@dataclass(frozen=True)
class LabelCounts:
    """How many tasks have each label, or are left out for each reason."""

    num_tasks: Mapping[Count, int]

    @property
    def num_labelled(self) -> int:
        """How many tasks have labels."""
        return self.num_tasks.get(Count(Reason.LABELLED), 0)

    def of_label(self, control: str, label: str) -> int:
        """How many tasks have the label; the empty label: none of the control's."""
        return self.num_tasks.get(Count(Reason.LABEL, control, label), 0)

    @property
    def left_out(self) -> str:
        """What isn't learnt from, in a sentence; empty if there is nothing."""
        ordered = sorted(self.num_tasks.items())
        return left_out_sentence(
            [(count.control, number) for count, number in ordered if count.reason is Reason.TIE],
            [(count.control, number) for count, number in ordered if count.reason is Reason.SEVERAL],
            [(count.label, number) for count, number in ordered if count.reason is Reason.UNKNOWN],
            [(count.control, number) for count, number in ordered if count.reason is Reason.EXTENT],
        )


class LabelStore:
    """The tables of labelled tasks, of agreed labels and of their counts."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._annotations = AnnotationStore(database)

    def refresh(self, project: int, rules: LabelRules) -> None:
        """Derive the labels of all tasks that events, or other rules, have changed since the last call.

        Each batch is a transaction, so that what a killed process had begun is gone on with.
        """
        generation = self._generation(project, rules)
        while self._has_stale(project, generation) and self._refresh_batch(project, rules, generation):
            pass

    def consensus(self, project: int) -> Consensus:
        """The labels of all tasks, and what is left out, as of the last refresh."""
        return together(self.of_tasks(project))

    def left_out(self, project: int) -> LeftOut:
        """What isn't learnt from, as of the last refresh: of the tasks of which something isn't."""
        query = select(labelled_tasks.c.task, labelled_tasks.c.left_out)
        some = (labelled_tasks.c.project == project) & (cast(labelled_tasks.c.left_out, Text) != "[]")
        with self._db.read() as connection:
            rows = connection.execute(query.where(some)).all()
        return together({task: from_json({}, reasons) for task, reasons in rows}).left_out

    def of_tasks(self, project: int) -> dict[int, LabelledTask]:
        """By task, its labels as of the last refresh, and what is left out."""
        query = select(labelled_tasks.c.task, labelled_tasks.c.labels, labelled_tasks.c.left_out)
        with self._db.read() as connection:
            rows = connection.execute(query.where(labelled_tasks.c.project == project))
            return {task: from_json(labels, left_out) for task, labels, left_out in rows}

    def agreed(self, project: int, tasks: Iterable[int]) -> dict[int, TaskLabels]:
        """By task, its agreed labels as of the last refresh; tasks without any are absent."""
        # As text, because thousands of tasks have the same few labels.
        query = select(labelled_tasks.c.task, cast(labelled_tasks.c.labels, Text).label("labels"))
        query = query.where(labelled_tasks.c.project == project, self._db.among(labelled_tasks.c.task, "tasks"))
        decoded: dict[str, TaskLabels] = {}
        agreed: dict[int, TaskLabels] = {}
        with self._db.read(by_index=True) as connection:
            for chunk in in_chunks(tasks):
                for task, labels in connection.execute(query, {"tasks": chunk}):
                    if labels not in decoded:
                        decoded[labels] = from_json(json.loads(labels), []).labels
                    if decoded[labels]:
                        agreed[task] = decoded[labels]
        return agreed

    def counts(self, project: int) -> LabelCounts:
        """How many tasks have each label, as of the last refresh."""
        columns = (label_counts.c.reason, label_counts.c.control, label_counts.c.label, label_counts.c.num_tasks)
        query = select(*columns).where(label_counts.c.project == project, label_counts.c.num_tasks > 0)
        with self._db.read() as connection:
            rows = connection.execute(query).all()
        return LabelCounts({Count(Reason(reason), control, label): number for reason, control, label, number in rows})

    def first_drawn(self, project: int, control: str, label: str, limit: int) -> list[int]:
        """Up to `limit` of the tasks that have the label, in the order of their draw."""
        is_label = agreed_labels.c.label_key == Count(Reason.LABEL, control, label).key
        query = select(agreed_labels.c.task).where(agreed_labels.c.project == project, is_label)
        with self._db.read(by_index=True) as connection:
            return list(connection.scalars(query.order_by(agreed_labels.c.draw, agreed_labels.c.task).limit(limit)))

    def has_new(self, project: int, since: float, at_least: int) -> bool:
        """Whether so many labelled tasks have had an event after `since`, by our clock."""
        newest = (
            select(labelled_tasks.c.labels)
            .where(labelled_tasks.c.project == project, labelled_tasks.c.received_at > since)
            .order_by(labelled_tasks.c.received_at.desc())
        )
        num_labelled = 0
        with self._db.read() as connection:
            for labels in connection.execution_options(yield_per=100).scalars(newest):
                num_labelled += bool(labels)
                if num_labelled >= at_least:
                    return True
        return at_least <= 0

    def differences(self, project: int, expected: Mapping[int, LabelledTask]) -> tuple[set[int], set[Count]]:
        """The tasks and the counts that differ from what is expected of the project."""
        kept = {task: labelled for task, labelled in self.of_tasks(project).items() if labelled != LabelledTask()}
        tasks = {task for task in kept.keys() | expected.keys() if kept.get(task) != expected.get(task)}
        with self._db.read() as connection:
            rows = connection.execute(select(*agreed_labels.c).where(agreed_labels.c.project == project))
            tasks |= {row[-1] for row in {tuple(row) for row in rows} ^ _label_rows(project, expected)}
        counts, expected_counts = self.counts(project).num_tasks, _counts(expected.values())
        return tasks, {count for count, _ in counts.items() ^ expected_counts.items()}

    def _generation(self, project: int, rules: LabelRules) -> int:
        """The generation of these rules: a new one if the last labels were derived by others."""
        current = select(learning.c.rules, learning.c.generation).where(learning.c.project == project)
        with self._db.read() as connection:
            row = connection.execute(current).one_or_none()
        if row is not None and row.rules == rules.fingerprint:
            return int(row.generation)
        statement = self._db.insert(learning)
        fresh = {"rules": rules.fingerprint, "generation": learning.c.generation + 1}
        with self._db.write() as connection:
            lock_ledger(connection)
            row = connection.execute(current).one_or_none()
            if row is not None and row.rules == rules.fingerprint:
                return int(row.generation)
            statement = statement.values(project=project, num_entries=0, rules=rules.fingerprint, generation=1)
            statement = statement.on_conflict_do_update(index_elements=["project"], set_=fresh)
            return int(connection.scalar(statement.returning(learning.c.generation)) or 0)

    def _has_stale(self, project: int, generation: int) -> bool:
        with self._db.read() as connection:
            return connection.scalar(_stale(project, generation, [labelled_tasks.c.task]).limit(1)) is not None

    def _refresh_batch(self, project: int, rules: LabelRules, generation: int) -> bool:
        """Derive the labels of some tasks; False if another process has begun a later generation."""
        columns = [labelled_tasks.c.task, labelled_tasks.c.labels, labelled_tasks.c.left_out]
        current = select(learning.c.generation).where(learning.c.project == project)
        with self._db.write() as connection:
            lock_ledger(connection)
            if connection.scalar(current) != generation:
                return False
            rows = connection.execute(_stale(project, generation, columns).limit(_TASKS_AT_ONCE)).all()
            before = {task: from_json(labels, left_out) for task, labels, left_out in rows}
            standing = self._annotations.standing_within(connection, project, before)
            after = dict.fromkeys(before, LabelledTask()) | by_task(rules.consensus(standing))
            self._put(connection, project, generation, after)
            self._put_labels(connection, project, before, after)
            self._put_counts(connection, project, before, after)
        return True

    def _put(self, connection: Connection, project: int, generation: int, tasks: Mapping[int, LabelledTask]) -> None:
        of_project = labelled_tasks.c.project == bindparam("of_project")
        of_task = of_project & (labelled_tasks.c.task == bindparam("of_task"))
        fresh: dict[str, Any] = {name: bindparam(name) for name in ("generation", "labels", "left_out")}
        rows = [
            {"of_project": project, "of_task": task, "generation": generation} | as_json(labelled)
            for task, labelled in tasks.items()
        ]
        if rows:
            connection.execute(update(labelled_tasks).where(of_task).values(fresh), rows)

    def _put_labels(
        self,
        connection: Connection,
        project: int,
        before: Mapping[int, LabelledTask],
        after: Mapping[int, LabelledTask],
    ) -> None:
        old, new = _label_rows(project, before), _label_rows(project, after)
        names = ("project", "label_key", "draw", "task")
        row_is = [agreed_labels.c[name] == bindparam(f"of_{name}") for name in names]
        if gone := [dict(zip((f"of_{name}" for name in names), row, strict=True)) for row in sorted(old - new)]:
            connection.execute(delete(agreed_labels).where(*row_is), gone)
        if added := [dict(zip(names, row, strict=True)) for row in sorted(new - old)]:
            connection.execute(agreed_labels.insert(), added)

    def _put_counts(
        self,
        connection: Connection,
        project: int,
        before: Mapping[int, LabelledTask],
        after: Mapping[int, LabelledTask],
    ) -> None:
        changes = _counts(after.values())
        changes.subtract(_counts(before.values()))
        rows = [
            {"project": project, "label_key": count.key, "num_tasks": change}
            | {"reason": str(count.reason), "control": count.control, "label": count.label}
            for count, change in sorted(changes.items())
            if change
        ]
        statement = self._db.insert(label_counts)
        total = {"num_tasks": label_counts.c.num_tasks + statement.excluded.num_tasks}
        if rows:
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[label_counts.c.project, label_counts.c.label_key], set_=total
                ),
                rows,
            )


def _stale(project: int, generation: int, columns: Iterable[Any]) -> Any:
    of_older = (labelled_tasks.c.project == project) & (labelled_tasks.c.generation < generation)
    return select(*columns).where(of_older).order_by(labelled_tasks.c.generation, labelled_tasks.c.task)


def _label_rows(project: int, tasks: Mapping[int, LabelledTask]) -> set[tuple[int, int, int, int]]:
    return {
        (project, count.key, draw(project, task), task)
        for task, labelled in tasks.items()
        for count in labelled.counts
        if count.reason is Reason.LABEL
    }


def _counts(tasks: Iterable[LabelledTask]) -> Counter[Count]:
    counts = Counter[Count]()
    for labelled in tasks:
        counts.update(labelled.counts)
    return counts

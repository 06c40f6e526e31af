"""Labels kept task by task: always what the whole ledger says, whatever events come, in whatever order, after kills."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import MetaData, create_engine, select

from clapboard.feedback.entries import entries
from clapboard.feedback.renames import Rename
from clapboard.feedback.task_labels import LabelRules, by_task, draw
from clapboard.labels.label_config import parse_label_config
from clapboard.store import Store
from clapboard.store.migrations import VERSIONS, numbered
from clapboard.store.migrations.upgrade import upgrade
from clapboard.store.schema import metadata
from clapboard.store.tasks import KnownTask
from tests.support.annotation_events import (
    CREATED,
    UPDATED,
    annotation,
    bulk,
    clip,
    deleted,
    in_the_api,
    said,
    suggestion,
)
from tests.support.together import together

CONFIG = """<View><Audio name="audio" value="$audio"/>
<Choices name="clip" toName="audio"><Choice value="dog"/><Choice value="rain"/></Choices>
<Choices name="also" toName="audio" choice="multiple"><Choice value="loud"/><Choice value="far"/></Choices></View>"""
SPACES = {
    "all": parse_label_config(CONFIG),
    "no rain": parse_label_config(CONFIG.replace('<Choice value="rain"/>', "")),
    "one": parse_label_config(CONFIG.replace(' choice="multiple"', "")),
}
DOG, RAIN = clip("dog"), clip("rain")
projects = itertools.count(1)


def receive(store: Store, project: int, *events: tuple[str, dict[str, Any]]) -> None:
    for action, body in events:
        store.inbox.append(action, project, body, {"11": suggestion(DOG)})
    store.ledger.catch_up()


def rules_of(store: Store, project: int, space: str) -> LabelRules:
    return LabelRules(SPACES[space], store.renames.of_project(project))


def assert_as_recomputed(store: Store, project: int, space: str) -> None:
    """What is kept is what all entries say."""
    rules = rules_of(store, project, space)
    store.labels.refresh(project, rules)
    standing = store.annotations.recomputed(project)
    assert store.ledger.standing(project) == standing
    assert store.labels.consensus(project) == rules.consensus(standing)
    assert store.labels.differences(project, by_task(rules.consensus(standing))) == (set(), set())
    assert store.annotations.count(project) == len({entry.annotation for entry in standing})


numbers = st.integers(1, 4)
choices = st.lists(st.sampled_from(["dog", "rain", "gone"]), max_size=2, unique=True)
others = st.lists(st.sampled_from(["loud", "far"]), max_size=2, unique=True)


@st.composite
def any_annotation(draw_from: st.DrawFn) -> dict[str, Any]:
    results = [clip(*draw_from(choices)), clip(*draw_from(others), control="also")]
    return annotation(
        draw_from(numbers),
        *(result for result in results if result["value"]["choices"]),
        task=draw_from(st.integers(11, 13)),
        second=draw_from(st.integers(0, 4)),
        by=draw_from(st.integers(1, 3)),
        ground_truth=draw_from(st.booleans()),
        was_cancelled=draw_from(st.sampled_from([False, False, True])),
    )


events = st.one_of(
    st.builds(said, any_annotation(), st.sampled_from([CREATED, UPDATED])),
    st.builds(lambda one: in_the_api(said(one, UPDATED)), any_annotation()),
    st.lists(any_annotation(), min_size=1, max_size=3).map(lambda several: bulk(*several)),
    numbers.map(deleted),
    numbers.map(lambda number: in_the_api(deleted(number))),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("events"), st.lists(events, min_size=1, max_size=4)),
        st.tuples(st.just("config"), st.sampled_from(sorted(SPACES))),
        st.tuples(st.just("rename"), st.sampled_from([("gone", "dog"), ("rain", "dog"), ("gone", "rain")])),
        st.tuples(st.just("again"), st.integers(0, 8)),
        st.tuples(st.just("read"), st.none()),
        st.tuples(st.just("killed"), st.lists(events, min_size=1, max_size=2)),
    ),
    min_size=1,
    max_size=10,
)


def go_through(store: Store, sequence: list[tuple[str, Any]]) -> None:
    """Everything that may happen to a project, in this order; then what is kept is compared."""
    project = next(projects)
    space, sent = "all", []
    for kind, what in sequence:
        if kind == "events":
            receive(store, project, *what)
            sent += what
        elif kind == "config":
            space = what
        elif kind == "rename":
            store.renames.put(project, Rename("clip", what[0], "clip", what[1]))
        elif kind == "again":
            receive(store, project, *sent[what : what + 1])
        elif kind == "read":
            assert_as_recomputed(store, project, space)
        else:
            _killed(store, project, space, what)
            sent += what
    store.ledger.catch_up()
    assert_as_recomputed(store, project, space)


def _killed(store: Store, project: int, space: str, what: list[tuple[str, dict[str, Any]]]) -> None:
    """A process that dies between what it writes and the commit; the next one finds the events in the inbox."""
    for action, body in what:
        store.inbox.append(action, project, body)

    class Killed(BaseException):
        pass

    def die(*_arguments: object) -> None:
        raise Killed

    annotation_store, label_store = store.ledger._annotations, store.labels
    annotation_store._count_entries = die  # type: ignore[assignment, method-assign]
    with pytest.raises(Killed):
        store.ledger.catch_up()
    del annotation_store._count_entries
    label_store._put_counts = die  # type: ignore[assignment, method-assign]
    with suppress(Killed):
        label_store.refresh(project, rules_of(store, project, space))
    del label_store._put_counts


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=steps)
def test_whatever_happens_what_is_kept_is_what_the_ledger_says(store: Store, sequence: list[tuple[str, Any]]) -> None:
    go_through(store, sequence)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=steps)
def test_on_postgresql_too(store: Store, sequence: list[tuple[str, Any]]) -> None:
    go_through(store, sequence)


def test_processes_that_enter_and_derive_at_once_agree(open_store: Callable[[], Store]) -> None:
    """On PostgreSQL, two that read the same task's annotations at the same moment could each miss the other's."""
    stores, project = [open_store() for _ in range(4)], next(projects)
    for number in range(1, 61):
        action, body = said(annotation(number, clip(["dog", "rain"][number % 2]), task=11 + number % 3, by=number))
        stores[0].inbox.append(action, project, body)

    def work(store: Store) -> int:
        num_entered = 0
        for event in store.ledger.unread():
            num_entered += store.ledger.append(event, entries(event))
            store.labels.refresh(project, rules_of(store, project, "all"))
        return num_entered

    assert sum(together([lambda store=store: work(store) for store in stores])) == 60  # type: ignore[misc]
    assert_as_recomputed(stores[0], project, "all")


def test_other_rules_of_another_process_derive_all_anew_and_end(open_store: Callable[[], Store]) -> None:
    stores, project = [open_store() for _ in range(2)], next(projects)
    receive(stores[0], project, *(said(annotation(number, DOG, task=number)) for number in range(1, 30)))
    spaces = ["all", "no rain"]
    together([lambda i=i: stores[i].labels.refresh(project, rules_of(stores[i], project, spaces[i])) for i in (0, 1)])  # type: ignore[misc]
    for space in spaces:
        assert_as_recomputed(stores[0], project, space)


def test_what_is_derived_can_be_rebuilt_from_the_ledger(store: Store) -> None:
    project = next(projects)
    receive(store, project, said(annotation(1, DOG)), said(annotation(2, RAIN, by=2)), deleted(1), bulk(annotation(3)))
    assert_as_recomputed(store, project, "all")
    before = store.labels.of_tasks(project), store.labels.counts(project), store.ledger.num_entries(project)
    store.annotations.rebuild(project)
    assert_as_recomputed(store, project, "all")
    assert (store.labels.of_tasks(project), store.labels.counts(project), store.ledger.num_entries(project)) == before


def test_samples_are_drawn_by_label_the_same_everywhere(open_store: Callable[[], Store]) -> None:
    stores, project = [open_store() for _ in range(2)], next(projects)
    receive(stores[0], project, *(said(annotation(number, DOG, task=number)) for number in range(1, 41)))
    receive(stores[0], project, said(annotation(50, RAIN, task=50)), said(annotation(51, task=51)))
    assert_as_recomputed(stores[0], project, "all")
    first = stores[1].labels.first_drawn(project, "clip", "dog", 10)
    assert first == sorted(range(1, 41), key=lambda task: draw(project, task))[:10] != sorted(first)
    assert stores[1].labels.first_drawn(project, "clip", "rain", 10) == [50]
    assert stores[1].labels.first_drawn(project, "also", "", 10) == [51]  # none of the control's labels apply


def test_a_store_of_before_gets_all_of_it_when_it_is_opened(url: str, tmp_path: Path) -> None:
    project = next(projects)
    (before,) = (numbered(file.name)[1] for file in VERSIONS.glob("*_derive_labels.py"))
    with closing(Store(f"sqlite:///{tmp_path / 'source.db'}")) as source:
        receive(source, project, said(annotation(1, DOG)), said(annotation(2, RAIN, by=2), UPDATED), deleted(1, 99))
        receive(source, project, in_the_api(said(annotation(1, DOG, second=3))), bulk(annotation(4, DOG, task=12)))
        source.tasks.put(project, [KnownTask(task, f"u{task}", f"k{task}", "s", False) for task in (11, 12)])
        engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        upgrade(engine, to=str(before))
        old = MetaData()
        old.reflect(engine)
        with engine.begin() as connection:
            for name in ("inbox", "ledger", "ledger_events", "tasks"):
                connection.execute(old.tables[name].insert(), _rows(source, name, list(old.tables[name].c.keys())))
        engine.dispose()
        with closing(Store(url)) as store:
            assert_as_recomputed(store, project, "all")
            assert_as_recomputed(source, project, "all")
            for name in ("annotation_states", "labelled_tasks", "agreed_labels", "label_counts", "learning", "tasks"):
                assert _rows(store, name) == _rows(source, name), name


def _rows(store: Store, table: str, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    columns = [column for column in metadata.tables[table].c if not names or column.name in names]
    with store.database.read() as connection:
        rows = connection.execute(select(*columns)).all()
    return sorted((dict(zip((column.name for column in columns), row, strict=True)) for row in rows), key=str)

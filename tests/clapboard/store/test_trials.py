"""Trials and their answers, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clapboard.feedback.task_labels import LabelRules
from clapboard.labels.label_config import parse_label_config
from clapboard.store import Store
from clapboard.store.trials import Answer, Kind, State, Trial
from tests.support.fake_label_studio import CHOICES
from tests.support.together import together

PROJECT = 7
RULES = LabelRules(parse_label_config(CHOICES))


def trial(kind: Kind = Kind.HEAD, **fields: Any) -> Trial:
    return Trial(PROJECT, kind, "v2", "v1", 60, 0.05, **fields)


@pytest.fixture
def known(store: Store) -> Store:
    store.catalog.put_project(PROJECT, CHOICES, "v0")
    return store


def label(store: Store, clock: Callable[..., float], task: int, revision: int = 0, by: int = 1) -> None:
    """Somebody labels the task, or labels it anew."""
    result = {"id": "r", "from_name": "clip", "to_name": "audio", "type": "choices", "value": {"choices": ["dog"]}}
    annotation = {"id": 100 * by + task, "task": task, "result": [result], "completed_by": by}
    annotation |= {"updated_at": f"2026-11-30T10:00:{revision:02}Z", "created_at": "2026-11-30T10:00:00Z"}
    clock.advance(1)  # type: ignore[attr-defined]
    store.append_event("ANNOTATION_CREATED", PROJECT, {"annotation": annotation, "project": {"id": PROJECT}})
    store.ledger.catch_up()
    store.labels.refresh(PROJECT, RULES)


def test_of_several_that_begin_one_a_single_one_is_open(known: Store, open_store: Callable[[], Store]) -> None:
    stores = [known, open_store(), open_store()]
    begun = together([lambda store=store: store.trials.begin(trial()) for store in stores])
    assert len({one.id for one in begun}) == 1
    canary = known.trials.begin(trial(Kind.CANARY, shown_as="v1.c", evidence={"leads": [0.5], "right": 1.0}))
    assert known.trials.open_canaries() == {PROJECT: canary}
    assert (canary.evidence["leads"], canary.shown_as, canary.state) == ([0.5], "v1.c", State.OPEN)
    assert known.trials.needed(PROJECT) == {"v1", "v2"}
    assert known.trials.open(8, Kind.HEAD) is None


def test_it_ends_once_and_the_next_may_begin(known: Store, clock: Callable[..., float]) -> None:
    first = known.trials.begin(trial())
    assert known.trials.end(first, State.DROPPED, "It was worse.")
    assert not known.trials.end(first, State.PROMOTED, "It was better.")
    assert known.trials.open(PROJECT, Kind.HEAD) is None
    second = known.trials.begin(trial())
    ended, opened = known.trials.of_project(PROJECT)
    assert (ended.state, ended.reason, ended.ended_at) == (State.DROPPED, "It was worse.", clock())
    assert opened == second


def test_only_tasks_that_are_first_labelled_after_it_began_answer_and_each_once(
    known: Store, clock: Callable[..., float]
) -> None:
    label(known, clock, 1)
    begun = known.trials.begin(trial())
    label(known, clock, 1, revision=1)  # again
    label(known, clock, 1, by=2)  # by somebody else
    label(known, clock, 3)
    label(known, clock, 2)
    arrivals = known.trials.arrivals(begun)
    assert [arrival.task for arrival in arrivals] == [3, 2]
    known.trials.put_answers(begun, [Answer(3, "v2", 0.25, 1.0)], arrivals[0].received_at)
    looked = known.trials.open(PROJECT, Kind.HEAD)
    assert looked is not None
    assert [arrival.task for arrival in known.trials.arrivals(looked)] == [2]
    label(known, clock, 3, revision=2)
    known.trials.put_answers(looked, [Answer(2, "", -0.5, 0.0), Answer(3, "v2", -1.0, -1.0)], clock())
    assert known.trials.answers(begun) == [Answer(3, "v2", 0.25, 1.0), Answer(2, "", -0.5, 0.0)]


def test_about_half_of_the_tasks_show_the_candidate_the_same_in_every_process() -> None:
    shown = [trial(id=5).shows_candidate(task) for task in range(1000)]
    assert 450 < sum(shown) < 550
    assert shown == [trial(id=5).shows_candidate(task) for task in range(1000)]
    assert shown != [trial(id=6).shows_candidate(task) for task in range(1000)]

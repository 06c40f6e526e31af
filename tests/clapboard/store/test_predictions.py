from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from clapboard.store import Store
from clapboard.store.predictions import STORING_S, Delivery, StoredPrediction
from tests.support.together import together

LEASE_S = 30.0
RESULT = [{"from_name": "sound", "to_name": "audio", "type": "choices", "value": {"choices": ["Дождь «1»"]}}]


def prediction(task: int, *, uri_key: str = "uri", version: str = "v1", project: int = 1) -> StoredPrediction:
    return StoredPrediction(project, task, version, uri_key, 0.25, RESULT)


def put(store: Store, tasks: Sequence[int], *, push: bool) -> None:
    with store.database.write() as connection:
        for task in tasks:
            store.predictions.put(connection, [prediction(task)], push=push)


def take(store: Store, tasks: Sequence[int], since: float) -> list[int]:
    return sorted(store.predictions.take_for_answer(1, dict.fromkeys(tasks, "uri"), "v1", since=since))


def pushing(store: Store) -> list[int]:
    return [one.task for one in store.predictions.take_for_push(100, LEASE_S)]


# Keeping


def test_a_prediction_comes_back_as_it_was_put(store: Store, clock: Callable[..., float]) -> None:
    store.predictions.put_all([prediction(1)], push=False)
    (taken,) = store.predictions.take_for_answer(1, {1: "uri"}, "v1", since=clock()).values()
    assert taken.as_json() == json.loads(taken.as_text()) == prediction(1).as_json()
    assert prediction(1).as_json() == {"result": RESULT, "score": 0.25, "model_version": "v1"}


def test_an_answers_text_says_what_its_json_says(store: Store, clock: Callable[[], float]) -> None:
    result = [{"id": "«", "value": {"choices": ['dog "bark"', "🐶 雨"]}, "score": 1e-7}]
    store.predictions.put_all([StoredPrediction(1, 1, 'v"1', "uri", 0.1 + 0.2, result)], push=False)
    (taken,) = store.predictions.take_for_answer(1, {1: "uri"}, 'v"1', since=clock()).values()
    said = {"result": result, "score": 0.1 + 0.2, "model_version": 'v"1'}
    assert json.loads(taken.as_text()) == taken.as_json() == said


def test_all_or_none_takes_nothing_where_one_is_missing(store: Store, clock: Callable[[], float]) -> None:
    store.predictions.put_all([prediction(1), prediction(2)], push=False)
    wanted = {1: "uri", 2: "uri", 3: "uri"}
    assert store.predictions.take_for_answer(1, wanted, "v1", since=clock(), all_or_none=True) == {}
    assert store.predictions.counts(1, "v1") == {Delivery.READY: 2}
    del wanted[3]
    assert sorted(store.predictions.take_for_answer(1, wanted, "v1", since=clock(), all_or_none=True)) == [1, 2]
    assert store.predictions.take_for_answer(1, wanted, "v1", since=clock(), all_or_none=True) == {}  # on their way
    assert store.predictions.take_for_answer(1, {}, "v1", since=clock(), all_or_none=True) == {}


def test_only_the_very_uri_and_version_count_as_cached(store: Store) -> None:
    store.predictions.put_all([prediction(1), prediction(2, uri_key="old"), prediction(3, version="v0")], push=False)
    store.predictions.put_all([prediction(4, project=2)], push=False)
    assert store.predictions.cached(1, dict.fromkeys(range(1, 6), "uri"), "v1") == {1}
    assert store.predictions.cached(1, {}, "v1") == set()


def test_a_new_prediction_replaces_the_tasks_old_one(store: Store, clock: Callable[..., float]) -> None:
    store.predictions.put_all([prediction(1, uri_key="old")], push=False)
    store.predictions.put_all([prediction(1, uri_key="new")], push=False)
    assert store.predictions.cached(1, {1: "new"}, "v1") == {1}
    assert store.predictions.counts(1, "v1") == {Delivery.READY: 1}
    assert store.predictions.take_for_answer(1, {1: "old"}, "v1", since=clock()) == {}
    assert store.predictions.take_for_answer(1, {1: "new"}, "v1", since=clock())[1].uri_key == "new"


def test_a_prediction_that_was_delivered_is_not_delivered_again_because_two_computed_it(
    store: Store, clock: Callable[..., float]
) -> None:
    first_began, second_began = clock(), clock()
    clock.advance(1)
    put(store, [1, 2], push=False)
    assert take(store, [1, 2], first_began) == [1, 2]
    put(store, [1], push=False)
    put(store, [2], push=True)
    assert take(store, [1, 2], second_began) == []
    assert pushing(store) == []


def test_a_prediction_that_is_there_is_owed_once_somebody_wants_it_pushed(store: Store) -> None:
    put(store, [1], push=False)
    put(store, [1], push=True)
    put(store, [1], push=False)
    assert pushing(store) == [1]


def test_a_new_uri_is_delivered_again(store: Store, clock: Callable[..., float]) -> None:
    put(store, [1], push=True)
    assert pushing(store) == [1]
    store.predictions.put_all([prediction(1, uri_key="new")], push=False)
    store.predictions.pushed(1, [1], "v1")
    assert take(store, [1], clock()) == []
    assert list(store.predictions.take_for_answer(1, {1: "new"}, "v1", since=clock())) == [1]


def test_predictions_of_tasks_that_are_gone_are_dropped_in_every_version(store: Store) -> None:
    store.predictions.put_all(
        [prediction(1), prediction(1, version="v2"), prediction(2), prediction(1, project=2)], push=False
    )
    store.predictions.forget_tasks(1, [1])
    assert store.predictions.model_versions(1) == ["v1"]
    assert store.predictions.cached(1, {1: "uri", 2: "uri"}, "v1") == {2}
    assert store.predictions.cached(2, {1: "uri"}, "v1") == {1}


def test_model_versions_are_named_in_order_for_one_project_or_all(store: Store) -> None:
    store.predictions.put_all(
        [prediction(1, version="b"), prediction(2, version="a"), prediction(3, version="a")], push=False
    )
    store.predictions.put_all([prediction(1, version="c", project=2)], push=False)
    assert store.predictions.model_versions(1) == ["a", "b"]
    assert store.predictions.model_versions(None) == ["a", "b", "c"]


# Answering


def test_of_two_overlapping_requests_one_answers_and_a_later_one_answers_again(
    store: Store, clock: Callable[..., float]
) -> None:
    put(store, [1, 2], push=False)
    first_began = clock.advance(1)
    second_began = clock.advance(1)
    clock.advance(1)
    assert take(store, [1, 2], first_began) == [1, 2]
    clock.advance(1)
    assert take(store, [1, 2], second_began) == []
    later_began = clock.advance(1)
    clock.advance(1)
    assert take(store, [1, 2], later_began) == [1, 2]


def test_requests_that_begin_at_the_moment_of_delivery_dont_answer(store: Store, clock: Callable[..., float]) -> None:
    put(store, [1], push=False)
    assert take(store, [1], clock()) == [1]
    assert take(store, [1], clock()) == []


def test_concurrent_requests_share_the_predictions_out(
    open_store: Callable[[], Store], clock: Callable[..., float]
) -> None:
    stores = [open_store() for _ in range(5)]
    tasks = list(range(40))
    put(stores[0], tasks, push=False)
    orders = [tasks, tasks[::-1], tasks[20:] + tasks[:20], tasks, tasks[::-1]]
    taken = together([lambda pair=pair: take(*pair, since=clock()) for pair in zip(stores, orders, strict=True)])
    assert sorted(task for some in taken for task in some) == tasks


def test_nothing_is_taken_for_no_tasks_or_for_unknown_ones(store: Store, clock: Callable[..., float]) -> None:
    put(store, [1], push=False)
    assert take(store, [], clock()) == take(store, [2], clock()) == []
    assert store.predictions.take_for_answer(1, {1: "uri"}, "v2", since=clock()) == {}


def test_what_was_pushed_is_answered_only_to_requests_that_began_later(
    store: Store, clock: Callable[..., float]
) -> None:
    put(store, [1], push=True)
    began = clock.advance(1)
    assert pushing(store) == [1]
    assert take(store, [1], clock.advance(1)) == []  # on its way
    store.predictions.pushed(1, [1], "v1")
    assert take(store, [1], began) == []
    assert take(store, [1], clock.advance(1)) == [1]


# Pushing


def test_what_is_owed_is_pushed_once(store: Store) -> None:
    put(store, [1, 2], push=True)
    put(store, [3], push=False)
    assert store.predictions.num_owed() == 2
    assert pushing(store) == [1, 2]
    assert pushing(store) == []
    assert store.predictions.num_owed() == 2
    store.predictions.pushed(1, [1, 2], "v1")
    assert store.predictions.num_owed() == 0
    assert store.predictions.counts(1, "v1") == {Delivery.PUSHED: 2, Delivery.READY: 1}


def test_a_push_holds_one_project_and_version_and_no_more_than_was_asked(store: Store) -> None:
    with store.database.write() as connection:
        for project, version, task in [(1, "v1", 1), (1, "v2", 2), (2, "v1", 3), (1, "v1", 4), (1, "v1", 5)]:
            store.predictions.put(connection, [prediction(task, version=version, project=project)], push=True)
    batches = [[one.task for one in store.predictions.take_for_push(2, LEASE_S)] for _ in range(5)]
    assert sorted(batches) == [[], [1, 4], [2], [3], [5]]


def test_concurrent_pushers_never_take_the_same_prediction(open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(4)]
    tasks = list(range(40))
    put(stores[0], tasks, push=True)

    def push_all(store: Store) -> list[int]:
        batches = iter(lambda: [one.task for one in store.predictions.take_for_push(7, LEASE_S)], [])
        return [task for batch in batches for task in batch]

    taken = together([lambda store=store: push_all(store) for store in stores])
    assert sorted(task for some in taken for task in some) == tasks


def test_what_a_killed_pusher_held_is_pushed_by_another_after_the_lease(
    store: Store, clock: Callable[..., float]
) -> None:
    put(store, [1], push=True)
    assert pushing(store) == [1]
    clock.advance(LEASE_S)
    assert pushing(store) == []
    clock.advance(1)
    assert pushing(store) == [1]


def test_what_label_studio_refused_for_now_is_owed_again_later(store: Store, clock: Callable[..., float]) -> None:
    put(store, [1, 2], push=True)
    pushing(store)
    store.predictions.push_later(1, [1], "v1", 10)
    store.predictions.pushed(1, [2], "v1")
    assert store.predictions.num_owed() == 1
    clock.advance(9)
    assert pushing(store) == []
    clock.advance(1)
    assert pushing(store) == [1]


def test_what_is_put_off_may_still_be_answered(store: Store, clock: Callable[..., float]) -> None:
    put(store, [1], push=True)
    pushing(store)
    store.predictions.push_later(1, [1], "v1", 10)
    assert take(store, [1], clock()) == [1]
    clock.advance(11)
    assert pushing(store) == []


def test_what_label_studio_will_never_take_is_kept_for_who_asks(store: Store, clock: Callable[..., float]) -> None:
    put(store, [1], push=True)
    pushing(store)
    store.predictions.give_up_push(1, [1], "v1")
    assert store.predictions.num_owed() == 0
    assert take(store, [1], clock()) == [1]


@pytest.mark.parametrize("leave", ["pushed", "give_up_push"])
def test_only_what_is_being_pushed_can_leave_that_state(store: Store, leave: str) -> None:
    put(store, [1], push=False)
    put(store, [2], push=True)
    getattr(store.predictions, leave)(1, [1, 2], "v1")
    store.predictions.push_later(1, [1, 2], "v1", 10)
    assert store.predictions.counts(1, "v1") == {Delivery.READY: 1, Delivery.OWED: 1}
    assert pushing(store) == [2]


def test_owing_names_those_that_exist_and_arent_on_their_way(store: Store, clock: Callable[..., float]) -> None:
    put(store, [1, 2], push=False)
    put(store, [3], push=True)
    pushing(store)
    assert take(store, [2], clock()) == [2]
    assert store.predictions.owe(1, [1, 2, 3, 4], "v1") == {1, 2}
    assert store.predictions.num_owed() == 3


def test_one_that_was_just_answered_is_pushed_only_after_label_studio_had_time_to_store_it(
    store: Store, clock: Callable[..., float]
) -> None:
    put(store, [1, 2], push=False)
    assert take(store, [2], clock()) == [2]
    assert store.predictions.owe(1, [1, 2], "v1") == {1, 2}
    assert pushing(store) == [1]
    clock.advance(STORING_S)
    assert pushing(store) == [2]


@pytest.mark.parametrize("attempt", range(6))
def test_an_owed_prediction_is_answered_or_pushed_and_never_both(
    open_store: Callable[[], Store], clock: Callable[..., float], attempt: int
) -> None:
    stores = [open_store() for _ in range(3)]
    tasks = list(range(30))
    put(stores[0], tasks, push=True)
    half = tasks if attempt % 2 else tasks[::-1]
    calls = [
        lambda: [take(stores[0], [task], clock()) for task in half],
        lambda: [[one.task for one in stores[1].predictions.take_for_push(3, LEASE_S)] for _ in tasks],
        lambda: [[one.task for one in stores[2].predictions.take_for_push(2, LEASE_S)] for _ in tasks],
    ]
    delivered = [task for lists in together(calls) for some in lists for task in some]
    assert sorted(delivered) == tasks


def test_many_writers_of_every_kind_at_once_never_deadlock(
    open_store: Callable[[], Store], clock: Callable[..., float]
) -> None:
    stores = [open_store() for _ in range(5)]
    tasks = list(range(60))
    put(stores[0], tasks[::2] + tasks[::-1], push=True)
    rounds = range(10)
    calls: list[Callable[[], object]] = [
        lambda: [stores[0].predictions.put_all([prediction(task) for task in tasks], push=False) for _ in rounds],
        lambda: [stores[1].predictions.put_all([prediction(task) for task in tasks[::-1]], push=False) for _ in rounds],
        lambda: [take(stores[2], tasks, clock()) for _ in rounds],
        lambda: [stores[3].predictions.owe(1, tasks, "v1") for _ in rounds],
        lambda: [stores[4].predictions.pushed(1, pushing(stores[4]), "v1") for _ in rounds],
    ]
    together(calls)
    assert sum(stores[0].predictions.counts(1, "v1").values()) == len(tasks)


# Whole versions at once


def test_what_was_brought_to_label_studio_is_known_by_task_whatever_the_version(
    store: Store, clock: Callable[..., float]
) -> None:
    store.predictions.put_all([prediction(1), prediction(2), prediction(3)], push=False)
    assert store.predictions.delivered(1, [1, 2, 3]) == {}
    answered_at = clock()
    take(store, [1], since=clock() + 1)
    clock.advance(5)
    store.predictions.put_for_push([prediction(1, version="v2"), prediction(2, version="v2")])  # on their way
    store.predictions.pushed(1, [2], "v2")
    found = store.predictions.delivered(1, [1, 2, 3, 4])
    assert sorted(found) == [1, 2]
    assert sorted((one.model_version, one.delivered_at) for one in found[1]) == [("v1", answered_at), ("v2", clock())]
    assert (found[2][0].score, found[2][0].result) == (0.25, RESULT)
    assert store.predictions.delivered(2, [1, 2]) == {}


def test_a_new_versions_predictions_are_its_writers_to_push_and_nobody_elses(
    store: Store, clock: Callable[..., float]
) -> None:
    written = store.predictions.put_for_push([prediction(2), prediction(1)])
    assert sorted(one.task for one in written) == [1, 2]
    assert pushing(store) == []
    assert store.predictions.put_for_push([prediction(1), prediction(3)]) == [prediction(3)]
    assert take(store, [1, 2, 3], since=clock() + 1) == []
    store.predictions.pushed(1, [1, 2, 3], "v1")
    assert store.predictions.counts(1, "v1") == {Delivery.PUSHED: 3}


def test_if_their_writer_dies_somebody_else_pushes_them(store: Store, clock: Callable[..., float]) -> None:
    store.predictions.put_for_push([prediction(1), prediction(2)])
    clock.advance(LEASE_S + 1)
    assert pushing(store) == [1, 2]


def test_two_who_write_the_same_new_version_share_it(store: Store, open_store: Callable[[], Store]) -> None:
    stores = [store, open_store()]
    tasks = [prediction(task) for task in range(1, 60)]
    written: list[int] = []
    together(
        [
            lambda which=which, order=order: written.extend(
                one.task for one in which.predictions.put_for_push(tasks[::order])
            )
            for which, order in zip(stores, (1, -1), strict=True)
        ]
    )
    assert sorted(written) == list(range(1, 60))


def test_the_newest_names_are_those_that_were_delivered_last(store: Store, clock: Callable[..., float]) -> None:
    for name in ("b", "a", "c"):
        clock.advance(1)
        store.predictions.put_for_push([prediction(1, version=name), prediction(2, version=name)])
    store.predictions.put_all([prediction(1, version="never")], push=False)
    store.predictions.put_for_push([prediction(1, version="other", project=2)])
    assert store.predictions.names(1) == ["c", "a", "b", "never"]


def test_a_forgotten_version_is_gone_and_owed_no_more(store: Store) -> None:
    for name in ("v1", "v2", "v3"):
        store.predictions.put_all([prediction(1, version=name), prediction(2, version=name)], push=True)
    store.predictions.put_all([prediction(1, project=2)], push=True)
    store.predictions.forget_names(1, {"v1", "v3", "v9"})
    assert store.predictions.model_versions(1) == ["v2"]
    assert store.predictions.model_versions(2) == ["v1"]
    assert store.predictions.num_owed(1) == 2

from __future__ import annotations

from collections.abc import Callable

from clapboard.store import Store
from clapboard.store.embeddings import Recording
from clapboard.store.predictions import StoredPrediction
from clapboard.store.tasks import KnownTask
from tests.support.together import together


def known(task: int, *, uri: str = "https://host.example/{}.wav", held_out: bool = False) -> KnownTask:
    return KnownTask(task, uri.format(task), f"key-{task}", f"recording-{task}", held_out)


def listed(store: Store, project: int = 1, at_once: int = 5_000) -> list[list[int]]:
    return [[one.task for one in page] for page in store.tasks.of_project(project, at_once=at_once)]


def test_tasks_come_back_as_they_were_put_in_the_order_of_their_ids(store: Store) -> None:
    tasks = [known(9), known(3, held_out=True), known(-5), known(2**40)]
    store.tasks.put(1, tasks)
    store.tasks.put(2, [known(4)])
    (page,) = store.tasks.of_project(1)
    assert page == [tasks[2], tasks[1], tasks[0], tasks[3]]
    assert store.tasks.get(1, [3, 4, -5]) == {3: tasks[1], -5: tasks[2]}


def test_pages_are_no_longer_than_asked_and_leave_nobody_out(store: Store) -> None:
    store.tasks.put(1, [known(task) for task in range(1, 8)])
    assert listed(store, at_once=3) == [[1, 2, 3], [4, 5, 6], [7]]
    assert listed(store, at_once=7) == [[1, 2, 3, 4, 5, 6, 7]]
    assert listed(store, project=2) == []


def test_a_task_put_again_is_what_was_said_last(store: Store) -> None:
    store.tasks.put(1, [known(1), known(2)])
    moved = known(2, uri="https://elsewhere.example/{}.wav", held_out=True)
    store.tasks.put(1, [known(1), moved])
    store.tasks.put(1, [])
    assert store.tasks.get(1, [1, 2]) == {1: known(1), 2: moved}


def test_forgotten_tasks_are_gone_and_others_stay(store: Store) -> None:
    store.tasks.put(1, [known(1), known(2)])
    store.tasks.put(2, [known(1)])
    store.tasks.forget(1, [1, 99])
    assert listed(store) == [[2]]
    assert listed(store, project=2) == [[1]]


def test_they_are_counted_with_those_held_out(store: Store) -> None:
    assert store.tasks.count(1) == (0, 0)
    store.tasks.put(1, [known(1), known(2, held_out=True), known(3, held_out=True)])
    assert store.tasks.count(1) == (3, 2)


def test_many_who_put_the_same_tasks_at_once_wait_for_each_other(open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(3)]
    tasks = [known(task) for task in range(1, 200)]
    together(
        [
            lambda store=store, step=step: store.tasks.put(1, tasks[::step])
            for store, step in zip(stores, (1, -1, 2), strict=True)
        ]
    )
    assert stores[0].tasks.count(1) == (199, 0)


def test_the_sound_of_a_task_that_is_held_out_is_held_out_under_every_address(store: Store) -> None:
    store.tasks.put(1, [known(1, held_out=True), known(2), known(3)])
    store.tasks.put(2, [known(2)])
    same, other = Recording("aa", 1, 10.0), Recording("bb", 1, 10.0)
    store.embeddings.put_recordings({"key-2": same, "key-3": other})
    assert not store.tasks.get(1, [2])[2].held_out  # nobody can know yet
    assert store.tasks.count(1) == (3, 1)
    store.embeddings.put_recordings({"key-1": same})
    (page,) = store.tasks.of_project(1)
    assert [(one.task, one.held_out, one.is_twin, one.content) for one in page] == [
        (1, True, False, "aa"),
        (2, True, True, "aa"),
        (3, False, False, "bb"),
    ]
    assert store.tasks.get(1, [2])[2] == page[1]
    assert store.tasks.count(1) == (3, 2)
    assert store.tasks.contents(1) == ["bb"]
    assert [task.task for task, _ in store.tasks.holding(1, ["aa", "bb"])] == [3]
    assert not store.tasks.get(2, [2])[2].held_out  # another project's draw is its own
    store.tasks.put(1, page)  # what was drawn stays what it is
    store.tasks.forget(1, [1])
    assert not store.tasks.get(1, [2])[2].held_out


def test_a_sound_that_was_suggested_under_another_address_is_known(store: Store) -> None:
    store.tasks.put(1, [known(1, held_out=True), known(2), known(3)])
    store.embeddings.put_recordings(
        {f"key-{task}": Recording(content, 1, 10.0) for task, content in ((1, "aa"), (2, "aa"), (3, "bb"))}
    )
    assert store.tasks.suggested_contents(1) == set()
    store.predictions.put_all([StoredPrediction(1, 1, "v1", "key-1", 0.5, [])], push=False)
    assert store.tasks.suggested_contents(1) == set()  # its own, from before it was set aside
    store.predictions.put_all([StoredPrediction(1, 2, "v1", "key-2", 0.5, [])], push=False)
    assert store.tasks.suggested_contents(1) == {"aa"}
    assert store.tasks.suggested_contents(2) == set()

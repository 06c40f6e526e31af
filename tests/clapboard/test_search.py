"""Search among embeddings that are made up: what is found, in which order, and where it is said to be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clapboard.errors import NotFoundError
from clapboard.scoring import Array
from clapboard.search import Match, ProjectSearch, cosines, nearest
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.embeddings import Recording
from clapboard.store.tasks import KnownTask
from clapboard.store.vectors import WINDOW, VectorFiles, Vectors

ENCODER = Encoder("mini", "ab12", "float32", 4, 10.0)
PROJECT = 7


def unit(rows: Array) -> Array:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def random_units(*shape: int, seed: int = 1) -> Array:
    return unit(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def vectors_of(matrix: Array) -> Vectors:
    return Vectors(matrix.astype(np.float16), np.zeros(len(matrix), WINDOW))


def by_hand(vectors: Vectors, query: Array) -> Array:
    return (vectors.matrix.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)


class TestNearest:
    @pytest.mark.parametrize("seed", range(5))
    def test_the_best_are_exactly_those_of_the_vectors_as_they_are_stored(self, seed: int) -> None:
        vectors, query = vectors_of(random_units(20_000, 64, seed=seed)), random_units(64, seed=seed + 100)
        rows, scores = nearest(vectors, query, 50)
        truth = by_hand(vectors, query)
        assert rows.tolist() == np.argsort(-truth)[:50].tolist()
        np.testing.assert_allclose(scores, truth[rows], atol=1e-6)

    def test_those_that_float16_can_t_tell_apart_are_told_apart(self) -> None:
        """All lie within one step of a float16 product, whose order the query's own rounding turns over."""
        rng = np.random.default_rng(2)
        query = random_units(64)
        vectors = vectors_of(unit(query + 0.003 * rng.standard_normal((9_000, 64)).astype(np.float32)))
        truth = by_hand(vectors, query)
        assert np.ptp(truth) < 2**-10
        rows, scores = nearest(vectors, query, 20)
        np.testing.assert_allclose(np.sort(truth)[::-1][:20], truth[rows], atol=2e-7)
        assert np.all(np.diff(scores) <= 0)

    def test_equals_come_in_the_order_of_their_rows(self) -> None:
        vectors = vectors_of(np.tile(random_units(1, 8), (30, 1)))
        assert nearest(vectors, random_units(8), 4)[0].tolist() == [0, 1, 2, 3]

    def test_it_can_be_restricted_to_some_rows(self) -> None:
        vectors, query = vectors_of(random_units(500, 16)), random_units(16, seed=9)
        among = np.arange(3, 500, 7)
        rows, _ = nearest(vectors, query, 10, among=among)
        truth = by_hand(vectors, query)[among]
        assert rows.tolist() == among[np.argsort(-truth)[:10]].tolist()

    def test_there_are_no_more_than_there_are(self) -> None:
        vectors, query = vectors_of(random_units(3, 8)), random_units(8, seed=2)
        assert sorted(nearest(vectors, query, 10)[0].tolist()) == [0, 1, 2]
        assert nearest(vectors, query, 10, among=np.zeros(0, np.intp))[0].tolist() == []
        assert nearest(vectors_of(np.zeros((0, 0), np.float32)), query, 10)[0].tolist() == []


def test_every_window_is_scored_against_several_queries_at_once() -> None:
    vectors, queries = vectors_of(random_units(10_000, 32)), random_units(5, 32, seed=3)
    found = cosines(vectors, queries)
    assert (found.shape, found.dtype) == ((10_000, 5), np.float32)
    np.testing.assert_allclose(found, np.stack([by_hand(vectors, query) for query in queries], axis=1), atol=1e-6)


class House:
    """A store with tasks whose windows point where the test says: degrees from the first axis."""

    def __init__(self, folder: Path) -> None:
        self.store = Store.open(Settings(MODEL_DIR=folder))
        self.folder = folder

    def add(
        self,
        task: int,
        *degrees: float,
        content: int = 0,
        duration_s: float = 0.0,
        project: int = PROJECT,
        set_aside: bool = False,
    ) -> None:
        sha256, key = f"{content or task:064x}", f"key-{project}-{task}"
        angles = np.radians(degrees)
        vectors = np.stack([np.cos(angles), np.sin(angles), 0 * angles, 0 * angles], axis=1).astype(np.float32)
        self.store.tasks.put(project, [KnownTask(task, f"https://host.example/{task}.wav", key, key, set_aside)])
        recording = Recording(sha256, len(degrees), duration_s or 10.0 * len(degrees))
        self.store.embeddings.put_recording(key, recording)
        self.store.embeddings.put(sha256, ENCODER.version, ENCODER.dtype, 0, vectors)

    def search(self, project: int = PROJECT) -> ProjectSearch:
        files = VectorFiles(self.folder / "vectors", self.store.embeddings)
        return ProjectSearch(self.store, files.open(ENCODER.version, ENCODER.dtype), project)

    def found(self, top: int = 10, project: int = PROJECT) -> list[tuple[int, float]]:
        return [(one.task, one.start_s) for one in self.search(project).by_embedding(AHEAD, top)]


AHEAD = np.array([1, 0, 0, 0], np.float32)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.store.close()


class TestProject:
    def test_windows_come_with_their_place_in_the_recording(self, house: House) -> None:
        house.add(1, 30, 10, 20, duration_s=24.5)
        house.add(2, 15, duration_s=3.0)
        assert house.search().by_embedding(AHEAD, 10) == [
            Match(1, 10.0, 20.0, pytest.approx(np.cos(np.radians(10)), abs=1e-3), "https://host.example/1.wav"),
            Match(2, 0.0, 3.0, pytest.approx(np.cos(np.radians(15)), abs=1e-3), "https://host.example/2.wav"),
            Match(1, 14.5, 24.5, pytest.approx(np.cos(np.radians(20)), abs=1e-3), "https://host.example/1.wav"),
            Match(1, 0.0, 10.0, pytest.approx(np.cos(np.radians(30)), abs=1e-3), "https://host.example/1.wav"),
        ]
        assert house.found(top=2) == [(1, 10.0), (2, 0.0)]

    def test_only_the_projects_own_tasks_are_found(self, house: House) -> None:
        house.add(1, 40)
        house.add(1, 10, project=8, content=99)
        house.add(3, 20, project=8)
        assert house.found() == [(1, 0.0)]
        assert house.found(project=8) == [(1, 0.0), (3, 0.0)]
        assert house.found(project=9) == []

    def test_tasks_that_judge_models_arent_found(self, house: House) -> None:
        house.add(1, 10, set_aside=True)
        house.add(2, 20)
        assert house.found() == [(2, 0.0)]

    def test_tasks_of_the_same_content_are_all_found(self, house: House) -> None:
        for task in (4, 5):
            house.add(task, 10, content=50)
        house.add(6, 20)
        assert house.found() == [(4, 0.0), (5, 0.0), (6, 0.0)]
        assert house.found(top=1) == [(4, 0.0)]

    def test_a_digest_that_ends_in_zeros_is_found_too(self, house: House) -> None:
        house.add(1, 10, content=0xABCD00 << 200)
        assert house.found() == [(1, 0.0)]

    def test_what_sounds_like_a_task_is_found_but_not_itself(self, house: House) -> None:
        house.add(1, 0, 20)
        house.add(2, 80)
        house.add(3, 11)
        house.add(4, 0, 20, content=1)  # the same recording once more
        found = house.search().like_task(1, ENCODER, 10)
        assert [one.task for one in found] == [3, 2]
        assert found[0].score == pytest.approx(np.cos(np.radians(1)), abs=1e-3)

    def test_a_task_that_isnt_embedded_says_so(self, house: House) -> None:
        house.add(1, 10)
        house.store.tasks.put(PROJECT, [KnownTask(2, "https://host.example/2.wav", "key-2", "key-2", False)])
        for task in (2, 3):
            with pytest.raises(NotFoundError, match=f"Task {task} of project 7 isn't embedded"):
                house.search().like_task(task, ENCODER, 10)

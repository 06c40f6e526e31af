"""Search among made-up embeddings: which places come, in which order, and from when to when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from clapboard.audio.windows import Span, Window, windows
from clapboard.errors import ModelError, NotFoundError, NoWorkerError, RequestError
from clapboard.labels.prompts import NEGATIVES
from clapboard.memo import Memory
from clapboard.model.clap import EncoderIdentity
from clapboard.search.example_embedder import ExampleEmbedder
from clapboard.search.nearest import nearest
from clapboard.search.places import Place
from clapboard.search.project_search import ProjectSearch, require_same
from clapboard.search.query import centred, direction
from clapboard.search.search_terms import FileSound, SearchTerms, Sound, TaskSound
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.embeddings import Recording
from clapboard.store.tasks import KnownTask
from clapboard.store.vectors import WINDOW, VectorFiles, Vectors
from clapboard.suggest.scoring import Array
from tests.support.audio_server import AudioServer
from tests.support.fake_label_studio import CHOICES

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
    def test_the_nearest_windows_are_exact_for_the_stored_vectors(self, seed: int) -> None:
        vectors, query = vectors_of(random_units(20_000, 64, seed=seed)), random_units(64, seed=seed + 100)
        rows, scores = nearest(vectors, query, 50)
        truth = by_hand(vectors, query)
        assert rows.tolist() == np.argsort(-truth)[:50].tolist()
        np.testing.assert_allclose(scores, truth[rows], atol=1e-6)

    def test_windows_that_float16_cannot_tell_apart_are_ranked_exactly(self) -> None:
        """All lie within one step of a float16 product, whose order the query's own rounding turns over."""
        rng = np.random.default_rng(2)
        query = random_units(64)
        vectors = vectors_of(unit(query + 0.003 * rng.standard_normal((9_000, 64)).astype(np.float32)))
        truth = by_hand(vectors, query)
        assert np.ptp(truth) < 2**-10
        rows, scores = nearest(vectors, query, 20)
        np.testing.assert_allclose(np.sort(truth)[::-1][:20], truth[rows], atol=2e-7)
        assert np.all(np.diff(scores) <= 0)

    def test_equal_cosines_come_in_the_order_of_their_rows(self) -> None:
        vectors = vectors_of(np.tile(random_units(1, 8), (30, 1)))
        assert nearest(vectors, random_units(8), 4)[0].tolist() == [0, 1, 2, 3]

    def test_the_search_can_be_restricted_to_some_rows(self) -> None:
        vectors, query = vectors_of(random_units(500, 16)), random_units(16, seed=9)
        among = np.arange(3, 500, 7)
        rows, _ = nearest(vectors, query, 10, among=among)
        truth = by_hand(vectors, query)[among]
        assert rows.tolist() == among[np.argsort(-truth)[:10]].tolist()

    def test_many_threads_find_what_one_finds(self) -> None:
        vectors, query = vectors_of(random_units(70_001, 16)), random_units(16, seed=9)
        scattered = np.flatnonzero(np.random.default_rng(3).random(70_001) < 0.9)
        before = torch.get_num_threads()
        found = []
        try:
            for num_threads in (1, 3):
                torch.set_num_threads(num_threads)
                found.append([nearest(vectors, query, 30, among=among) for among in (None, scattered)])
                assert torch.get_num_threads() == num_threads
        finally:
            torch.set_num_threads(before)
        for (rows, scores), (rows_of_many, scores_of_many) in zip(*found, strict=True):
            assert rows.tolist() == rows_of_many.tolist()
            assert scores.tolist() == scores_of_many.tolist()
        truth = by_hand(vectors, query)
        assert found[0][0][0].tolist() == np.argsort(-truth)[:30].tolist()
        assert found[0][1][0].tolist() == scattered[np.argsort(-truth[scattered])[:30]].tolist()

    def test_fewer_windows_than_asked_for_are_all_returned(self) -> None:
        vectors, query = vectors_of(random_units(3, 8)), random_units(8, seed=2)
        assert sorted(nearest(vectors, query, 10)[0].tolist()) == [0, 1, 2]
        assert nearest(vectors, query, 10, among=np.zeros(0, np.intp))[0].tolist() == []
        assert nearest(vectors_of(np.zeros((0, 0), np.float32)), query, 10)[0].tolist() == []


class House:
    """A store with tasks whose windows point where the test says: degrees from the first axis."""

    def __init__(self, folder: Path) -> None:
        settings = Settings(MODEL_DIR=folder, CLAPBOARD_ALLOW_PRIVATE_URLS=True)
        self.store = Store.open(settings)
        self.sources = AudioSources(settings)
        self.folder = folder

    def add(
        self,
        task: int,
        *degrees: float,
        content: int = 0,
        duration_s: float = 0.0,
        project: int = PROJECT,
        held_out: bool = False,
        uri: str = "",
    ) -> None:
        sha256, key = f"{content or task:064x}", f"key-{project}-{task}"
        angles = np.radians(degrees)
        vectors = np.stack([np.cos(angles), np.sin(angles), 0 * angles, 0 * angles], axis=1).astype(np.float32)
        self.store.tasks.put(project, [KnownTask(task, uri or f"https://host.example/{task}.wav", key, key, held_out)])
        recording = Recording(sha256, len(degrees), duration_s or 10.0 * len(degrees))
        self.store.embeddings.put_recording(key, recording)
        self.store.embeddings.put(sha256, ENCODER.version, ENCODER.dtype, 0, vectors)

    def search(self, project: int = PROJECT) -> ProjectSearch:
        files = VectorFiles(self.folder / "vectors", self.store.embeddings)
        return ProjectSearch(self.store, files.open(ENCODER.version, ENCODER.dtype), project, ENCODER)

    def found(self, top: int = 10, project: int = PROJECT) -> list[tuple[int, float]]:
        return [(one.task, one.start_s) for one in self.search(project).places(AHEAD, top)]

    def spans(self, top: int = 10) -> list[tuple[int, float, float, float]]:
        found = self.search().places(AHEAD, top)
        return [(one.task, one.start_s, one.end_s, one.best_s) for one in found]

    def find(self, *, like: Sequence[Sound] = (), not_like: Sequence[Sound] = (), text: str = "") -> list[Place]:
        """With an encoder for which every text is ahead, and every file aside."""
        terms = SearchTerms((text,) if text else (), tuple(like), tuple(not_like))
        return self.search().find(terms, 10, ExampleEmbedder(FakeEncoder, Memory()), self.sources)


AHEAD = np.array([1, 0, 0, 0], np.float32)
ASIDE = np.array([0, 1, 0, 0], np.float32)


class FakeEncoder:
    """An encoder with two directions: one for all texts but the neutral ones, one for all sounds."""

    identity = EncoderIdentity("mini", ENCODER.version, "float32", 4, 10.0)
    batch_size = 2

    def embed_texts(self, texts: Sequence[str]) -> Array:
        return np.stack([np.zeros(4, np.float32) if text in NEGATIVES else AHEAD for text in texts])

    def embed_windows(self, waveforms: Sequence[Array]) -> Array:
        return np.tile(ASIDE, (len(waveforms), 1))

    def views(self, path: Path, **reading: Any) -> Iterator[Window]:
        return windows(path, **reading)

    def embed_views(self, views: Sequence[Window]) -> Array:
        return self.embed_windows([view.waveform for view in views])


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.store.close()


class TestPlaces:
    def test_windows_come_with_their_place_in_the_recording(self, house: House) -> None:
        house.add(1, 30, 80, 20, duration_s=24.5)
        house.add(2, 15, duration_s=3.0)
        found = house.search().places(AHEAD, 3)
        assert [(one.task, one.start_s, one.end_s, one.best_s) for one in found] == [
            (2, 0.0, 3.0, 0.0),
            (1, 0.0, 24.5, 14.5),
        ]
        assert found[0].uri == "https://host.example/2.wav"

    def test_a_score_says_how_much_nearer_than_the_average_window_it_is(self, house: House) -> None:
        degrees = [0, 60, 90]
        for task, angle in enumerate(degrees, 1):
            house.add(task, angle)
        cosines = np.cos(np.radians(degrees))
        found = [one.score for one in house.search().places(AHEAD, 10)]
        assert found == pytest.approx(cosines - cosines.mean(), abs=1e-3)

    def test_neighbouring_windows_are_one_place_down_to_the_window_that_begins_another(self, house: House) -> None:
        house.add(1, 20, 10, 40, 89, 30)
        house.add(2, 35)
        house.add(3, 50)
        assert house.spans(top=3) == [(1, 0.0, 30.0, 10.0), (1, 40.0, 50.0, 40.0), (2, 0.0, 10.0, 0.0)]
        # At 40 degrees a window of task 1 comes behind task 2, but before task 3, which isn't shown.
        assert house.spans(top=2) == [(1, 0.0, 20.0, 10.0), (1, 40.0, 50.0, 40.0)]

    def test_a_window_between_two_places_makes_them_one(self, house: House) -> None:
        house.add(1, 20, 30, 10)
        house.add(2, 25)
        assert house.spans(top=2) == [(1, 20.0, 30.0, 20.0), (1, 0.0, 10.0, 0.0)]  # it comes after task 2
        assert house.spans(top=3) == [(1, 0.0, 30.0, 20.0), (2, 0.0, 10.0, 0.0)]

    def test_a_place_as_long_as_many_windows_leaves_room_for_others(self, house: House) -> None:
        house.add(1, *range(1, 61))
        house.add(2, 70)
        house.add(3, 80)
        assert house.spans(top=2) == [(1, 0.0, 600.0, 0.0), (2, 0.0, 10.0, 0.0)]

    def test_a_recording_that_was_embedded_as_a_whole_is_one_place(self, house: House) -> None:
        house.add(1, 0, duration_s=95.5)
        house.add(2, 10, duration_s=4.0)
        assert house.spans() == [(1, 0.0, 95.5, 0.0), (2, 0.0, 4.0, 0.0)]

    def test_only_the_projects_own_tasks_are_found(self, house: House) -> None:
        house.add(1, 40)
        house.add(1, 10, project=8, content=99)
        house.add(3, 20, project=8)
        assert house.found() == [(1, 0.0)]
        assert house.found(project=8) == [(1, 0.0), (3, 0.0)]
        assert house.found(project=9) == []

    def test_held_out_tasks_are_not_found(self, house: House) -> None:
        house.add(1, 10, held_out=True)
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

    def test_a_place_as_json_holds_no_secret(self) -> None:
        place = Place(3, 0.0, 20.0, 10.0, 0.5, "https://host.example/a.wav?X-Signature=s3cr3t")
        assert place.as_json(PROJECT, "http://ls.example:8080") == {
            "task": 3,
            "start_s": 0.0,
            "end_s": 20.0,
            "best_s": 10.0,
            "score": 0.5,
            "audio": "https://host.example/a.wav",
            "url": "http://ls.example:8080/projects/7/data?task=3",
        }


class TestFind:
    def test_a_search_like_a_task_leaves_that_task_out(self, house: House) -> None:
        house.add(1, 0, 20)
        house.add(2, 80)
        house.add(3, 11)
        house.add(4, 0, 20, content=1)  # the same recording once more
        assert [one.task for one in house.find(like=[TaskSound(1)])] == [3, 2]

    def test_a_search_unlike_a_task_leaves_that_task_out(self, house: House) -> None:
        for task, angle in enumerate((0, 25, -25, 180), 1):
            house.add(task, angle)
        assert [one.task for one in house.find(like=[TaskSound(1)], not_like=[TaskSound(2)])] == [3, 4]
        assert [one.task for one in house.find(like=[TaskSound(1)], not_like=[TaskSound(3)])] == [2, 4]

    def test_texts_and_sounds_are_added_up_as_equals(self, house: House, tmp_path: Path) -> None:
        for task, angle in enumerate((0, 45, 90, 200, 250), 1):
            house.add(task, angle)
        soundfile.write(tmp_path / "a.wav", np.zeros(4800, np.float32), 48_000)
        file = FileSound(tmp_path / "a.wav", "a.wav")
        assert house.find(text="ahead")[0].task == 1
        assert house.find(like=[file])[0].task == 3
        both = house.find(text="ahead", like=[file])
        assert both[0].task == 2
        search = house.search()
        query = direction([AHEAD, centred(ASIDE, search.average)])
        assert [one.score for one in both] == pytest.approx([one.score for one in search.places(query, 10)])

    def test_a_search_like_a_piece_leaves_out_that_piece_alone(self, house: House, tmp_path: Path) -> None:
        with AudioServer() as server:
            house.add(1, 0, 40, 80, uri=server.url("1/a.wav?s=30"))
            house.add(2, 20)
            found = house.find(like=[TaskSound(1, Span(12, 14.5))])
        assert sorted((one.task, one.start_s) for one in found) == [(1, 0.0), (1, 20.0), (2, 0.0)]

    def test_a_task_that_isnt_embedded_says_so(self, house: House) -> None:
        house.add(1, 10)
        house.store.tasks.put(PROJECT, [KnownTask(2, "https://host.example/2.wav", "key-2", "key-2", False)])
        for task in (2, 3):
            with pytest.raises(NotFoundError, match=f"Task {task} of project 7 isn't embedded"):
                house.find(like=[TaskSound(task)])

    def test_a_search_with_nothing_wanted_is_refused(self, house: House) -> None:
        house.add(1, 10)
        house.add(2, 50)
        with pytest.raises(RequestError, match="only what isn't wanted"):
            house.find(not_like=[TaskSound(1)])


class TestOpen:
    def test_the_search_uses_the_encoder_that_serves_the_project(self, house: House) -> None:
        house.add(1, 10)
        files = VectorFiles(house.folder / "vectors", house.store.embeddings)
        with pytest.raises(NotFoundError, match="Project 7 is unknown here"):
            ProjectSearch.open(house.store, files, "mini", PROJECT)
        house.store.catalog.put_project(PROJECT, CHOICES, "v1")
        with pytest.raises(NoWorkerError):
            ProjectSearch.open(house.store, files, "mini", PROJECT)
        house.store.catalog.announce_encoder(ENCODER)
        assert ProjectSearch.open(house.store, files, "mini", PROJECT).encoder == ENCODER
        house.store.catalog.put_project(8, CHOICES, "v1")
        with pytest.raises(NotFoundError, match="Nothing of project 8 is embedded yet"):
            ProjectSearch.open(house.store, files, "mini", 8)

    def test_another_checkpoint_of_that_name_is_refused(self) -> None:
        require_same(ENCODER, "ab12")
        with pytest.raises(ModelError, match="isn't the one that the workers embedded"):
            require_same(ENCODER, "cd34")

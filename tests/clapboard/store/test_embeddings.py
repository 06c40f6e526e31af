from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from clapboard.store import Store
from clapboard.store.embeddings import Recording
from tests.support.together import together

VECTORS = np.random.default_rng(3).standard_normal((5, 16)).astype(np.float32)
RECORDING = Recording(sha256="aa", num_windows=5, duration_s=41.5)


def put(store: Store, *, sha256: str = "aa", version: str = "e1", dtype: str = "float32") -> None:
    store.embeddings.put(sha256, version, dtype, 0, VECTORS)


def test_embeddings_come_back_bit_for_bit_in_window_order(store: Store) -> None:
    store.embeddings.put("aa", "e1", "float32", 3, VECTORS[3:])
    store.embeddings.put("aa", "e1", "float32", 0, VECTORS[:3])
    found = store.embeddings.get([RECORDING], "e1", "float32")
    assert list(found) == ["aa"]
    assert found["aa"].dtype == np.float32
    np.testing.assert_array_equal(found["aa"], VECTORS)


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, np.finfo(np.float32).max, np.float32(1) / 3])
def test_every_float32_survives(store: Store, value: float) -> None:
    vectors = np.full((1, 4), value, np.float32)
    store.embeddings.put("aa", "e1", "float32", 0, vectors)
    found = store.embeddings.get([Recording("aa", 1, 1.0)], "e1", "float32")["aa"]
    assert found.tobytes() == vectors.tobytes()


def test_rows_of_any_layout_are_kept_as_their_values(store: Store) -> None:
    store.embeddings.put("aa", "e1", "float32", 0, np.asfortranarray(VECTORS)[:, ::-1])
    np.testing.assert_array_equal(store.embeddings.get([RECORDING], "e1", "float32")["aa"], VECTORS[:, ::-1])


def test_a_recording_that_lacks_a_window_is_left_out(store: Store) -> None:
    store.embeddings.put("aa", "e1", "float32", 0, VECTORS[:4])
    assert store.embeddings.get([RECORDING], "e1", "float32") == {}
    store.embeddings.put("aa", "e1", "float32", 4, VECTORS[4:])
    assert list(store.embeddings.get([RECORDING], "e1", "float32")) == ["aa"]


@pytest.mark.parametrize(("version", "dtype"), [("e2", "float32"), ("e1", "bfloat16")])
def test_another_encoder_version_or_dtype_is_another_embedding(store: Store, version: str, dtype: str) -> None:
    put(store)
    assert store.embeddings.get([RECORDING], version, dtype) == {}


def test_putting_again_changes_nothing(store: Store) -> None:
    put(store)
    store.embeddings.put("aa", "e1", "float32", 0, VECTORS + 1)
    np.testing.assert_array_equal(store.embeddings.get([RECORDING], "e1", "float32")["aa"], VECTORS)
    assert store.embeddings.count() == 5


def test_no_windows_are_no_rows(store: Store) -> None:
    store.embeddings.put("aa", "e1", "float32", 0, VECTORS[:0])
    assert store.embeddings.count() == 0


def test_concurrent_workers_may_put_the_same_recordings(open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(4)]
    hashes = [f"{number:02}" for number in range(12)]

    def put_all(store: Store, order: list[str]) -> None:
        for sha256 in order:
            put(store, sha256=sha256)
            store.embeddings.put_recording(f"uri-{sha256}", Recording(sha256, 5, 41.5))

    together([lambda store=store: put_all(store, hashes) for store in stores])
    found = stores[0].embeddings.get([Recording(sha256, 5, 41.5) for sha256 in hashes], "e1", "float32")
    assert sorted(found) == hashes
    assert stores[0].embeddings.count("e1") == 60


def test_many_recordings_are_read_at_once(store: Store) -> None:
    recordings = [Recording(f"{number:04}", 1, 1.0) for number in range(1200)]
    for recording in recordings[::400]:
        store.embeddings.put(recording.sha256, "e1", "float32", 0, VECTORS[:1])
        store.embeddings.put_recording(f"uri-{recording.sha256}", recording)
    assert len(store.embeddings.get(recordings, "e1", "float32")) == 3
    keys = [f"uri-{recording.sha256}" for recording in recordings]
    assert store.embeddings.recordings(keys) == {key: recordings[i * 400] for i, key in enumerate(keys[::400])}


def test_the_content_behind_a_uri_can_change(store: Store) -> None:
    store.embeddings.put_recording("uri", RECORDING)
    assert store.embeddings.recordings(["uri", "unknown"]) == {"uri": RECORDING}
    changed = Recording("bb", 1, 2.5)
    store.embeddings.put_recording("uri", changed)
    assert store.embeddings.recordings(["uri"]) == {"uri": changed}


def test_a_recording_is_known_by_its_content_under_any_uri(store: Store) -> None:
    store.embeddings.put_recording("one", RECORDING)
    store.embeddings.put_recording("two", RECORDING)
    assert store.embeddings.recording_of("aa") == RECORDING
    assert store.embeddings.recording_of("bb") is None


def test_embeddings_are_counted_by_encoder_and_in_all(store: Store) -> None:
    put(store)
    put(store, version="e2")
    assert (store.embeddings.count("e1"), store.embeddings.count("e2"), store.embeddings.count()) == (5, 5, 10)

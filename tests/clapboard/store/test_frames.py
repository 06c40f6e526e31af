from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clapboard.model.recording_frames import FramePiece, RecordingFrames
from clapboard.store import Store
from clapboard.store import frames as framing
from clapboard.store.embeddings import Recording
from clapboard.store.frames import StoredPiece
from clapboard.store.retention import DAY_S, Retention
from clapboard.store.schema import recordings
from clapboard.store.tasks import KnownTask
from tests.clapboard.store.conftest import Clock

RECORDING = Recording(sha256="aa", num_windows=3, duration_s=23.0)
RNG = np.random.default_rng(3)


def unit(*shape: int) -> np.ndarray:
    rows = RNG.standard_normal(shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def stored_pieces(sha256: str = "aa") -> list[StoredPiece]:
    """The four pieces of 23 s in frames of 0.625 s."""
    pieces, first, row = [], 0, 0
    for start_s, stop, stop_row in ((0, 12, 150), (5, 20, 250), (10, 26, 325), (13, 37, 460)):
        levels = RNG.uniform(-100, 0, (stop_row - row, 16)).astype(np.float32)
        piece = FramePiece(first, unit(stop - first, 8), levels, unit(8), start_s, start_s + 10)
        pieces.append(StoredPiece(sha256, len(pieces), 0.625, piece))
        first, row = stop, stop_row
    return pieces


def test_frames_come_back_in_order_to_three_decimals(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "_PIECES_AT_ONCE", 2)
    pieces = stored_pieces()
    store.frames.put(pieces[2:], "e1", "float32")
    store.frames.put(pieces[:2], "e1", "float32")
    store.frames.put([replace(each, frame_s=9.0) for each in pieces], "e1", "float32")  # nothing is replaced
    expected = RecordingFrames.of([each.piece for each in pieces], 0.625)
    found = store.frames.get(RECORDING, "e1", "float32")
    assert found is not None
    assert (found.frame_s, found.duration_s) == (0.625, 23)
    assert found.frames.dtype == found.window_embeddings.dtype == np.float32
    np.testing.assert_allclose(found.frames, expected.frames, atol=5e-4)
    np.testing.assert_allclose(found.window_embeddings, expected.window_embeddings, atol=5e-4)
    np.testing.assert_array_equal(found.window_s, expected.window_s)
    assert found.levels is not None
    assert expected.levels is not None
    np.testing.assert_allclose(found.levels, expected.levels, atol=0.5)
    assert [each.index for each in store.frames.pieces(RECORDING, "e1", "float32")] == [0, 1, 2, 3]


def test_a_recording_that_lacks_a_piece_has_no_frames(store: Store) -> None:
    store.frames.put(stored_pieces()[:3], "e1", "float32")
    assert store.frames.stored([RECORDING], "e1", "float32") == set()
    assert store.frames.get(RECORDING, "e1", "float32") is None
    store.frames.put(stored_pieces()[3:], "e1", "float32")
    assert store.frames.stored([RECORDING, replace(RECORDING, sha256="bb")], "e1", "float32") == {"aa"}
    for key in (("e2", "float32"), ("e1", "bfloat16")):
        assert store.frames.get(RECORDING, *key) is None


def test_frames_go_with_the_embeddings_of_an_encoder(store: Store) -> None:
    for version in ("e1", "e2"):
        store.frames.put(stored_pieces(), version, "float32")
    store.embeddings.forget("e1")
    assert store.frames.stored([RECORDING], "e1", "float32") == set()
    assert store.frames.stored([RECORDING], "e2", "float32") == {"aa"}


def test_frames_go_with_a_recording_that_no_task_has_had_for_long(store: Store, clock: Clock) -> None:
    shared = replace(RECORDING, sha256="bb")
    for sha256 in ("aa", "bb"):
        store.frames.put(stored_pieces(sha256), "e1", "float32")
    store.embeddings.put_recordings({"key1": RECORDING, "key2": shared, "key3": shared})
    store.tasks.put(1, [KnownTask(3, "3.wav", "key3", "s", held_out=False)])
    retention = Retention(store.database, clock, keep_days=30)
    retention.finish()
    assert store.frames.stored([RECORDING, shared], "e1", "float32") == {"aa", "bb"}
    clock.advance(31 * DAY_S)
    assert retention.finish() == {"recordings": 2}
    assert store.frames.stored([RECORDING, shared], "e1", "float32") == {"bb"}  # task 3 has it, too


def test_frames_that_an_earlier_decoder_read_go_when_the_present_one_reads_otherwise(store: Store) -> None:
    store.frames.put(stored_pieces(), "e1", "float32")
    store.embeddings.put_recordings({"key1": RECORDING})
    with store.database.write() as connection:
        connection.execute(recordings.update().values(reading=0))
    store.embeddings.forget_unread("aa")
    assert store.frames.stored([RECORDING], "e1", "float32") == set()

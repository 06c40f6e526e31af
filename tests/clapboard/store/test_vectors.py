from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from sqlalchemy import text

from clapboard.errors import BusyError
from clapboard.store import Store
from clapboard.store.schema import embeddings
from clapboard.store.vectors import VectorFiles, Vectors
from tests.clapboard.store.test_database import python
from tests.support.together import together
from tests.support.waiting import wait_for

DIM = 6

OPENING = """
import sys
from pathlib import Path
from clapboard.store import Store
from clapboard.store.vectors import VectorFiles
store = Store(sys.argv[1])
while True:
    print(len(VectorFiles(Path(sys.argv[2]), store.embeddings).open("e1", "float32")), flush=True)
"""


def sha256(number: int) -> str:
    return f"{number * 256:064x}"  # ends in a zero byte, which is no less a part of it


def put(store: Store, number: int, num_windows: int = 2, *, version: str = "e1", first: int = 0) -> None:
    vectors = np.random.default_rng([number, first]).standard_normal((num_windows, DIM)).astype(np.float32)
    store.embeddings.put(sha256(number), version, "float32", first, vectors)


@pytest.fixture
def files(tmp_path: Path, store: Store) -> VectorFiles:
    return VectorFiles(tmp_path / "vectors", store.embeddings)


def opened(files: VectorFiles) -> Vectors:
    return files.open("e1", "float32")


def contents(vectors: Vectors) -> dict[tuple[bytes, int], bytes]:
    keys = [(row["sha256"].item().ljust(32, b"\0"), int(row["index"])) for row in vectors.windows]
    assert len(set(keys)) == len(keys) == len(vectors)
    return {key: row.tobytes() for key, row in zip(keys, vectors.matrix, strict=True)}


def truth(store: Store) -> dict[tuple[bytes, int], bytes]:
    rows = store.embeddings.rows("e1", "float32", after=0, until=1 << 60, limit=10_000)
    return {
        (bytes.fromhex(row.sha256), row.window_index): np.frombuffer(row.vector, "<f4").astype("<f2").tobytes()
        for row in rows
    }


def test_every_window_is_there_once_in_float16(store: Store, files: VectorFiles) -> None:
    for number in range(5):
        put(store, number, number + 1)
    put(store, 0, version="e2")
    found = opened(files)
    assert found.matrix.dtype == np.float16
    assert found.matrix.shape == (15, DIM)
    assert contents(found) == truth(store)


def test_what_comes_later_is_added_and_what_was_opened_stays_as_it_was(store: Store, files: VectorFiles) -> None:
    put(store, 1)
    before = opened(files)
    held = contents(before)
    put(store, 2, 3)
    put(store, 1, 1, first=2)
    after = opened(files)
    assert (len(before), len(after)) == (2, 6)
    assert contents(before) == held
    assert contents(after) == truth(store)
    assert len(opened(files)) == 6  # with nothing new


def test_windows_are_read_by_their_recordings(store: Store, files: VectorFiles) -> None:
    for number in range(4):
        put(store, number)
    put(store, 2, 1, first=2)
    found = opened(files)
    rows = found.rows_of([sha256(2), sha256(0), sha256(77)])
    assert rows.tolist() == [0, 1, 4, 5, 8]
    assert found.windows["index"][rows].tolist() == [0, 1, 0, 1, 2]
    assert found.rows_of([]).tolist() == []


def test_without_embeddings_there_is_nothing(store: Store, files: VectorFiles) -> None:
    assert len(opened(files)) == 0
    assert opened(files).rows_of([sha256(1)]).tolist() == []


def test_what_was_forgotten_is_gone_and_what_was_embedded_again_is_the_new(store: Store, files: VectorFiles) -> None:
    put(store, 1)
    old = opened(files)
    held = contents(old)
    store.embeddings.forget("e1")
    assert len(opened(files)) == 0
    store.embeddings.put(sha256(1), "e1", "float32", 0, np.ones((2, DIM), np.float32))
    assert contents(opened(files)) == truth(store)
    store.embeddings.forget("e1")  # and this time nobody looks in between
    store.embeddings.put(sha256(1), "e1", "float32", 0, np.zeros((3, DIM), np.float32))
    assert contents(opened(files)) == truth(store)
    assert contents(old) == held


def the(folder: Path, name: str) -> Path:
    (found,) = folder.glob(f"e1-float32/{name}")
    return found


def _truncate(folder: Path) -> None:
    file = the(folder, "vectors.*")
    file.write_bytes(file.read_bytes()[:-1])


def _flip(folder: Path, name: str) -> None:
    file = the(folder, name)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _count_less(folder: Path) -> None:
    manifest = the(folder, "manifest.json")
    said = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(said | {"count": said["count"] - 1}))


def _drop_folder(folder: Path) -> None:
    for file in (folder / "e1-float32").iterdir():
        file.unlink()
    (folder / "e1-float32").rmdir()


@pytest.mark.parametrize(
    "harm",
    [
        _truncate,
        lambda folder: _flip(folder, "vectors.*"),
        lambda folder: _flip(folder, "windows.*"),
        lambda folder: the(folder, "vectors.*").unlink(),
        lambda folder: the(folder, "windows.*").unlink(),
        lambda folder: the(folder, "manifest.json").unlink(),
        lambda folder: the(folder, "manifest.json").write_text('{"generation": "00", "cou'),
        lambda folder: the(folder, "manifest.json").write_text("[]"),
        lambda folder: the(folder, "manifest.json").write_text('{"generation": "00", "first_id": 1, "more": 2}'),
        _count_less,
        _drop_folder,
    ],
)
def test_damaged_or_deleted_files_are_made_anew(
    tmp_path: Path, store: Store, files: VectorFiles, harm: Callable[[Path], object]
) -> None:
    for number in range(3):
        put(store, number)
    opened(files)
    harm(tmp_path / "vectors")
    put(store, 3)
    assert contents(opened(files)) == truth(store)
    assert len([*(tmp_path / "vectors").rglob("vectors.*")]) == 1  # the damaged one is no more


def test_files_that_were_seen_to_be_whole_are_read_again_once_they_were_written_to(
    tmp_path: Path, store: Store, files: VectorFiles
) -> None:
    put(store, 1)
    opened(files)
    found = [the(tmp_path / "vectors", name) for name in ("vectors.*", "windows.*")]
    for file in found:
        os.utime(file, (1e9, 1e9))
    opened(files)
    with found[0].open("r+b") as damaged:
        damaged.write(b"\xff")
    os.utime(found[0], (1e9, 1e9))  # as if nobody had written to it
    assert contents(opened(files)) != truth(store)
    os.utime(found[0], (1e9, 1e9 + 1))
    assert contents(opened(files)) == truth(store)


def test_rows_that_were_written_but_never_counted_are_written_over(
    tmp_path: Path, store: Store, files: VectorFiles
) -> None:
    put(store, 1)
    opened(files)
    for name in ("vectors.*", "windows.*"):
        with the(tmp_path / "vectors", name).open("ab") as file:
            file.write(b"half a row that a killed process left behind" * 9)
    put(store, 2)
    assert contents(opened(files)) == truth(store)


def test_another_database_at_the_same_place_is_noticed(
    tmp_path: Path, store: Store, files: VectorFiles, open_store: Callable[[], Store]
) -> None:
    put(store, 1)
    opened(files)
    other = Store(f"sqlite:///{tmp_path / 'other.db'}")
    put(other, 2)
    assert contents(opened(VectorFiles(tmp_path / "vectors", other.embeddings))) == truth(other)
    assert contents(opened(files)) == truth(store)
    other.close()


def test_large_stores_are_read_page_by_page(monkeypatch: pytest.MonkeyPatch, store: Store, files: VectorFiles) -> None:
    monkeypatch.setattr("clapboard.store.vectors._ROWS_AT_ONCE", 3)
    monkeypatch.setattr("clapboard.store.vectors._ROWS_PER_PUBLICATION", 4)
    put(store, 1, 20)
    assert contents(opened(files)) == truth(store)


def test_many_may_open_it_while_others_embed(tmp_path: Path, open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(4)]
    sizes: list[list[int]] = [[], []]

    def embed(store: Store, number: int) -> None:
        for i in range(10):
            put(store, number * 100 + i)

    def read(store: Store, seen: list[int]) -> None:
        for _ in range(10):
            seen.append(len(opened(VectorFiles(tmp_path / "vectors", store.embeddings))))

    together(
        [
            lambda: embed(stores[0], 1),
            lambda: embed(stores[1], 2),
            lambda: read(stores[2], sizes[0]),
            lambda: read(stores[3], sizes[1]),
        ]
    )
    assert sizes == [sorted(sizes[0]), sorted(sizes[1])]
    assert contents(opened(VectorFiles(tmp_path / "vectors", stores[0].embeddings))) == truth(stores[0])


def test_whoever_waits_for_another_to_bring_it_up_to_date_waits_no_longer_than_they_like(
    tmp_path: Path, store: Store, files: VectorFiles
) -> None:
    put(store, 1)
    opened(files)
    hasty = VectorFiles(tmp_path / "vectors", store.embeddings, patience_s=0.05)
    (lock,) = (tmp_path / "vectors").glob("*/lock")
    with FileLock(lock), pytest.raises(BusyError, match="try again"):
        opened(hasty)
    assert len(opened(hasty)) == 2


def test_an_id_that_is_committed_late_is_not_missed(tmp_path: Path, postgres_url: str) -> None:
    """PostgreSQL gives the first of two writers the lower id, and lets the second one commit before it."""
    store = Store(postgres_url)
    waits = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE :query")

    def num_waiting(query: str) -> int:
        with store.database.read() as connection:
            return int(connection.scalar(waits, {"query": query}) or 0)

    with ThreadPoolExecutor() as pool:
        with store.database.engine.connect() as connection:
            row = {"sha256": sha256(1), "encoder_version": "e1", "dtype": "float32", "window_index": 1}
            connection.execute(embeddings.insert().values(row | {"vector": b""}))
            slow = pool.submit(put, store, 1)  # has written its first window, and waits for what becomes of the second
            wait_for(lambda: num_waiting("INSERT INTO embeddings%"), "the slow writer didn't wait")
            put(store, 2)
            reading = pool.submit(opened, VectorFiles(tmp_path / "vectors", store.embeddings))
            wait_for(lambda: reading.done() or num_waiting("SELECT pg_advisory%"), "the reader did nothing")
            connection.rollback()  # the second window is the slow writer's
        slow.result()
        found = reading.result()
    assert len(found) == 4
    assert contents(found) == truth(store)
    store.close()


def test_a_killed_process_leaves_files_that_others_go_on_with(
    tmp_path: Path, url: str, open_store: Callable[[], Store]
) -> None:
    store = open_store()
    put(store, 0)
    process = python(OPENING, url, str(tmp_path / "vectors"))
    assert process.stdout is not None
    for number in range(1, 6):
        put(store, number)
        assert int(process.stdout.readline()) >= 2
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert contents(opened(VectorFiles(tmp_path / "vectors", store.embeddings))) == truth(store)

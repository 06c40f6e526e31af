from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clapboard.errors import SourceError, SourceTooLarge, SourceUnavailable
from clapboard.sources.cache import AudioCache, Sink, SourceFile

KB = 1000


def key_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def stored(folder: Path) -> set[str]:
    return {path.suffix.removeprefix(".") for path in folder.glob("??/*")}


def forbidden(sink: Sink) -> None:
    raise AssertionError("it was in the cache")


def small_cache(folder: Path, max_bytes: int = 10 * KB) -> AudioCache:
    return AudioCache(folder, max_bytes=max_bytes, max_file_bytes=1000 * KB)


def put(cache: AudioCache, name: str, num_bytes: int = 3 * KB) -> str:
    """Adds a file that nobody keeps using; its sha256."""
    sha256 = cache.get(key_of(name), lambda sink: sink.write(name[:1].encode() * num_bytes), 1.0).sha256
    time.sleep(0.002)  # file times are no finer than this on some systems
    return sha256


def test_a_file_is_filled_once_and_named_by_its_content(tmp_path: Path) -> None:
    cache = small_cache(tmp_path)
    first = cache.get(key_of("a"), lambda sink: sink.write(b"audio"), 1.0)
    assert first.path.read_bytes() == b"audio"
    assert first.sha256 == hashlib.sha256(b"audio").hexdigest()
    assert cache.get(key_of("a"), forbidden, 1.0) == first
    assert small_cache(tmp_path).get(key_of("a"), forbidden, 1.0) == first


def test_a_failed_fill_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(sink: Sink) -> None:
        sink.write(b"half")
        raise SourceError("no")

    with pytest.raises(SourceError, match="no"):
        small_cache(tmp_path).get(key_of("a"), fail, 1.0)
    assert stored(tmp_path) == set()


def test_a_restarted_sink_forgets_what_it_had(tmp_path: Path) -> None:
    def fill(sink: Sink) -> None:
        sink.write(b"a longer first try")
        sink.restart()
        sink.write(b"second")

    source = small_cache(tmp_path).get(key_of("a"), fill, 1.0)
    assert source.path.read_bytes() == b"second"
    assert source.sha256 == hashlib.sha256(b"second").hexdigest()


def test_a_file_over_the_cap_is_refused_and_not_kept(tmp_path: Path) -> None:
    cache = AudioCache(tmp_path, max_bytes=10**6, max_file_bytes=100)
    assert cache.get(key_of("fits"), lambda sink: sink.write(b"x" * 100), 1.0).path.stat().st_size == 100
    with pytest.raises(SourceTooLarge, match="CLAPBOARD_MAX_AUDIO_MB"):
        cache.get(key_of("large"), lambda sink: [sink.write(b"x" * 60) for _ in range(2)], 1.0)  # type: ignore[arg-type, return-value]
    assert len(stored(tmp_path)) == 1


def test_the_least_recently_used_files_make_room(tmp_path: Path) -> None:
    cache = small_cache(tmp_path)
    a, b, c = put(cache, "a"), put(cache, "b"), put(cache, "c")
    cache.get(key_of("a"), forbidden, 1.0)
    time.sleep(0.002)
    d = put(cache, "d")
    assert stored(tmp_path) == {a, c, d}
    assert b not in stored(tmp_path)


def test_the_cache_stays_within_its_bound(tmp_path: Path) -> None:
    cache = small_cache(tmp_path, max_bytes=100 * KB)
    for i in range(300):
        cache.get(key_of(str(i)), lambda sink, i=i: sink.write(bytes([i % 256]) * (KB + i)), 1.0)  # type: ignore[misc]
        assert sum(path.stat().st_size for path in tmp_path.glob("??/*")) <= 100 * KB


def test_a_file_in_use_is_not_evicted_and_one_given_up_is(tmp_path: Path) -> None:
    cache = small_cache(tmp_path, max_bytes=0)
    in_use = cache.get(key_of("a"), lambda sink: sink.write(b"a" * KB), 1.0)
    put(cache, "b")
    put(small_cache(tmp_path, max_bytes=0), "c")
    assert in_use.path.read_bytes() == b"a" * KB
    path = in_use.path
    del in_use
    put(cache, "d")
    assert not path.exists()


def test_a_file_that_another_process_uses_is_not_evicted(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from clapboard.sources.cache import AudioCache\n"
        "cache = AudioCache(pathlib.Path(sys.argv[1]), max_bytes=0, max_file_bytes=10**6)\n"
        "held = cache.get(sys.argv[2], lambda sink: sink.write(b'a' * 1000), 1.0)\n"
        "print(held.path, flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), key_of("a")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        path = Path(other.stdout.readline().strip())
        cache = small_cache(tmp_path, max_bytes=0)
        put(cache, "b")
        assert path.exists()
        other.send_signal(signal.SIGKILL)
        other.wait()
        put(cache, "c")
        assert not path.exists()


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, time\n"
        "from clapboard.sources.cache import AudioCache\n"
        "def fill(sink):\n"
        "    sink.write(b'half')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
        "AudioCache(pathlib.Path(sys.argv[1]), max_bytes=10**6, max_file_bytes=10**6).get(sys.argv[2], fill, 1.0)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), key_of("a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        kept = put(small_cache(tmp_path), "b")
        assert stored(tmp_path) == {"part", kept}
        other.send_signal(signal.SIGKILL)
        other.wait()
    also_kept = put(small_cache(tmp_path), "c")
    assert stored(tmp_path) == {kept, also_kept}
    whole = small_cache(tmp_path).get(key_of("a"), lambda sink: sink.write(b"whole"), 1.0)
    assert whole.path.read_bytes() == b"whole"


def test_threads_that_want_the_same_key_wait_for_one_fill(tmp_path: Path) -> None:
    num_fills = []

    def slow(sink: Sink) -> None:
        num_fills.append(1)
        time.sleep(0.2)
        sink.write(b"audio")

    cache = small_cache(tmp_path)
    sources: list[SourceFile] = []
    threads = [threading.Thread(target=lambda: sources.append(cache.get(key_of("a"), slow, 5.0))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(num_fills) == 1
    assert len(set(sources)) == 1
    assert len(sources) == 8


def test_different_keys_are_filled_at_the_same_time(tmp_path: Path) -> None:
    cache = small_cache(tmp_path)
    meeting = threading.Barrier(2, timeout=5.0)

    def fill(sink: Sink) -> None:
        meeting.wait()
        sink.write(b"x")

    other = threading.Thread(target=lambda: cache.get(key_of("a"), fill, 5.0))
    other.start()
    assert cache.get(key_of("b"), fill, 5.0).path.read_bytes() == b"x"
    other.join()


def test_waiting_for_another_s_fill_ends_in_a_retryable_error(tmp_path: Path) -> None:
    cache = small_cache(tmp_path)
    started, done = threading.Event(), threading.Event()

    def stuck(sink: Sink) -> None:
        started.set()
        done.wait(10.0)

    other = threading.Thread(target=lambda: cache.get(key_of("a"), stuck, 5.0))
    other.start()
    started.wait(5.0)
    with pytest.raises(SourceUnavailable, match=r"0\.1 s"):
        cache.get(key_of("a"), forbidden, 0.1)
    done.set()
    other.join()


def test_concurrent_use_of_a_tiny_cache_never_loses_a_file_in_use(tmp_path: Path) -> None:
    cache = small_cache(tmp_path, max_bytes=2 * KB)
    faults: list[str] = []

    def work(offset: int) -> None:
        for i in range(40):
            content = bytes([(i + offset) % 7]) * KB
            source = cache.get(key_of(str((i + offset) % 7)), lambda sink, content=content: sink.write(content), 10.0)  # type: ignore[misc]
            if source.path.read_bytes() != content or source.sha256 != hashlib.sha256(content).hexdigest():
                faults.append(source.path.name)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert not list(tmp_path.glob("??/*.part"))


def test_lock_files_do_not_pile_up_with_keys(tmp_path: Path) -> None:
    cache = small_cache(tmp_path, max_bytes=1000 * KB)
    for i in range(200):
        cache.get("abc" + key_of(str(i))[3:], lambda sink: sink.write(b"x"), 1.0)
    assert len(list((tmp_path / "locks").iterdir())) <= 1


def test_given_up_files_hold_no_descriptors(tmp_path: Path) -> None:
    cache = small_cache(tmp_path)
    put(cache, "a")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        put(cache, "a")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_released_file_is_closed_and_may_be_evicted_though_it_is_referred_to(tmp_path: Path) -> None:
    cache = small_cache(tmp_path, max_bytes=2 * KB)
    before = len(list(Path("/proc/self/fd").iterdir()))
    held = cache.get(key_of("a"), lambda sink: sink.write(b"x" * KB), 1.0)
    held.release()
    held.release()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    for name in "bcd":
        put(cache, name)
    assert not held.path.exists()


def test_a_folder_that_can_t_be_written_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SourceUnavailable, match="can't be written"):
        small_cache(tmp_path / "file").get(key_of("a"), lambda sink: sink.write(b"x"), 1.0)

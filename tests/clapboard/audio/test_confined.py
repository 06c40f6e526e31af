"""Decoders in processes of their own: whatever a file makes of one, we and the other files lose nothing."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from clapboard.audio.confined.decoders import Decoders, decoders
from clapboard.audio.confined.fork_server import ForkServer
from clapboard.audio.confined.messages import Request
from clapboard.audio.confined.seccomp import lacking
from clapboard.audio.pieces import Condition
from clapboard.audio.windows import read
from clapboard.errors import AudioError, InternalError
from tests.support.damaged_recordings import written
from tests.support.hostile_decoder import DECODE, hostile
from tests.support.programs import REPOSITORY
from tests.support.recordings import sweep
from tests.support.waiting import WAIT_S, wait_for

NAME = "upload.wav"


@pytest.fixture(scope="module")
def hostile_decoders() -> Iterator[Decoders]:
    """Decoders that files can turn against us."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABEL_STUDIO_API_KEY", "t0ken")
        pool = Decoders(ForkServer(DECODE), silent_s=3.0, cpu_s=0.2)
        pool.start()
    yield pool
    pool.close()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.wav"
    path.write_bytes(written(sweep(25, 16_000), "WAV"))
    return path


def decoded(pool: Decoders, path: Path, longest_s: float = 3600.0) -> np.ndarray:
    with path.open("rb") as file:
        return np.concatenate([*pool.blocks(file, Request(NAME, "", longest_s), Condition())])


def sentence(pool: Decoders, tmp_path: Path, content: bytes, longest_s: float = 3600.0) -> str:
    """What is said of a file with that content."""
    path = tmp_path / "hostile"
    path.write_bytes(content)
    with pytest.raises(AudioError) as caught:
        decoded(pool, path, longest_s)
    return str(caught.value)


@pytest.mark.parametrize(
    ("deed", "longest_s", "why"),
    [
        ("segfault", 3600.0, "ended its decoder with SIGSEGV"),
        ("bomb", 3600.0, "needed more than 1 GB of memory to be decoded"),
        ("leave", 3600.0, "ended its decoder with code 0"),
        ("hang", 3600.0, "gave no more sound within 3 s of decoding"),
        ("spin", 1.0, "took too much processor time to decode"),
    ],
)
def test_what_a_file_does_to_its_decoder_is_said_of_the_file_alone(
    hostile_decoders: Decoders, tmp_path: Path, good: Path, deed: str, longest_s: float, why: str
) -> None:
    before = decoded(hostile_decoders, good)
    assert sentence(hostile_decoders, tmp_path, hostile(deed), longest_s) == (
        f"{NAME} {why}: it is damaged, or made to break decoders. Export it again, for example as WAV, FLAC or Ogg."
    )
    np.testing.assert_array_equal(decoded(hostile_decoders, good), before)


@pytest.mark.skipif(bool(lacking()), reason=lacking())
def test_a_decoder_reaches_nothing_but_its_file_and_us(hostile_decoders: Decoders, tmp_path: Path) -> None:
    told = sentence(hostile_decoders, tmp_path, hostile("probe", parent=os.getpid()))
    reached, descriptors, environment = told.split("; ")
    assert reached == "reached: "
    assert descriptors == "descriptors: 6"  # standard ones that lead nowhere, our socket, shared memory, the file
    names = set(environment.removeprefix("environment: ").split())
    kept = {"PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "LANG", "LC_ALL", "LC_CTYPE"}
    assert names <= kept | {"PYTHONPATH", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"}


def test_a_decoder_that_others_broke_condemns_no_file(hostile_decoders: Decoders, good: Path) -> None:
    expected = decoded(hostile_decoders, good)
    with good.open("rb") as file:
        blocks = hostile_decoders.blocks(file, Request(NAME), Condition())
        parts = [next(blocks)]
        (fork,) = _forks_of(hostile_decoders)
        os.kill(fork, signal.SIGSEGV)
        parts += blocks
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    fresh_server = Decoders(ForkServer())
    with good.open("rb") as file:
        blocks = fresh_server.blocks(file, Request(NAME), Condition())
        next(blocks)
        (fork,) = _forks_of(fresh_server)
        os.kill(fork, signal.SIGKILL)  # as the kernel does where memory is short: whose fault it is, nobody knows
        with pytest.raises(InternalError, match="ended from outside"):
            list(blocks)
    (server,) = _servers_of(fresh_server)
    os.kill(server, signal.SIGKILL)
    np.testing.assert_array_equal(decoded(fresh_server, good), expected)
    fresh_server.close()


def test_everything_ends_with_the_process_that_it_serves(tmp_path: Path, good: Path) -> None:
    program = (
        "import sys, time, pathlib; from clapboard.audio.windows import blocks; "
        "stream = blocks(pathlib.Path(sys.argv[1])); next(stream); print('decoding', flush=True); time.sleep(600)"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(good)], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"decoding\n"
        (server,) = _children(process.pid)
        ours = [server, *_children(server)]
        process.kill()
    assert len(ours) == 2
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ours), "decoders outlive their process", WAIT_S)


def test_a_file_in_memory_and_a_fork_of_the_process_are_served(good: Path) -> None:
    with good.open("rb") as file:
        expected = read(good)
        np.testing.assert_array_equal(read(_in_memory(file)), expected)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if np.array_equal(read(good), expected) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    np.testing.assert_array_equal(read(good), expected)
    decoders().close()
    np.testing.assert_array_equal(read(good), expected)


def _in_memory(file: IO[bytes]) -> IO[bytes]:
    return io.BytesIO(file.read())


def _children(pid: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _servers_of(pool: Decoders) -> list[int]:
    process = pool._server._process
    return [] if process is None else [process.pid]


def _forks_of(pool: Decoders) -> list[int]:
    return [child for server in _servers_of(pool) for child in _children(server)]

"""How much processor time commands take to answer, and a worker to be ready, beside the time on the clock."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.bench.rows import Case, Figures, Goal
from tests.bench.sections import Effort, Outcome, Section
from tests.support.programs import REPOSITORY

_CLOCK = "the same by the clock"
COMMANDS = {
    Case(f"processor time of `clapboard {command}`", "s", _CLOCK, Goal(ours_at_most=0.5), "ours ÷ peer"): command
    for command in ("--help", "config", "jobs")
}
WORKER = Case(
    "processor time until a worker is ready, embedded model, engine torch",
    "s",
    _CLOCK,
    Goal(ours_at_most=4.0),
    "ours ÷ peer",
)
_READY = b"serving "
_ROUNDS = 5
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def measure(effort: Effort) -> Mapping[Case, Outcome]:
    """Medians of five processes each, after one that warms up the disk's cache."""
    outcomes = {
        case: _median(lambda words=(words,): _command(words, effort.folder)) for case, words in COMMANDS.items()
    }
    return outcomes | {WORKER: _median(lambda: _worker(effort.folder))}


def _median(measure_once: Callable[[], tuple[float, float]]) -> Figures:
    measure_once()
    processor_s, clock_s = zip(*(measure_once() for _ in range(_ROUNDS)), strict=True)
    return Figures(statistics.median(processor_s), statistics.median(clock_s))


def _command(words: tuple[str, ...], folder: Path) -> tuple[float, float]:
    """Processor and clock seconds of the whole command. Raises `RuntimeError` if it failed."""
    began = time.perf_counter()
    process = _start(words, folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"`clapboard {' '.join(words)}` ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - began


def _worker(folder: Path) -> tuple[float, float]:
    """Processor and clock seconds until the worker says what it serves. Raises `RuntimeError` if it ends before."""
    began = time.perf_counter()
    with _start(("worker",), folder, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if _READY in line:
                clock_s = time.perf_counter() - began
                processor_s = _processor_s(process.pid)
                process.terminate()
                process.communicate()
                return processor_s, clock_s
    raise RuntimeError(f"`clapboard worker` ended with {process.returncode}")


def _start(words: tuple[str, ...], folder: Path, **streams: int) -> subprocess.Popen[bytes]:
    env = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "MODEL_DIR": str(folder / "starts"),
        "CLAPBOARD_MODEL": "mini",
        "CLAPBOARD_ENGINE": "torch",
        "CLAPBOARD_DEVICE": "cpu",
    }
    return subprocess.Popen([sys.executable, "-m", "clapboard", *words], env=env, **streams)


def _processor_s(pid: int) -> float:
    """Seconds that the process has computed, in user mode and in the kernel: proc(5), utime and stime."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


SECTION = Section((*COMMANDS, WORKER), measure, in_quick=False)

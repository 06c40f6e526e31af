"""The most memory that a process takes for an hour-long file, and for one of ten seconds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import soundfile

from tests.bench.rows import BYTES, Case, Figures, Goal
from tests.bench.sections import Effort, Outcome, Section
from tests.support.programs import REPOSITORY
from tests.support.recordings import sweep

HOUR = Case(
    "most memory of `clapboard predict`, an hour-long file",
    BYTES,
    "the same for a file of ten seconds",
    Goal(ratio_at_most=1.2),
    "ours ÷ peer",
)
_SAMPLE_RATE = 48_000
_POLL_S = 0.02


def measure(effort: Effort) -> Mapping[Case, Outcome]:
    """A fresh process for each file; once, since memory doesn't vary as time does, and an hour takes half a minute."""
    minute = sweep(60, _SAMPLE_RATE)
    files = {"ours": effort.folder / "long.flac", "peer": effort.folder / "short.flac"}
    soundfile.write(files["peer"], minute[: 10 * _SAMPLE_RATE], _SAMPLE_RATE)
    with soundfile.SoundFile(files["ours"], "w", _SAMPLE_RATE, 1) as long:
        for _ in range(effort.of(60, 1)):
            long.write(minute)
    measures = {key: lambda file=file: peak_bytes(effort.checkpoint, file) for key, file in files.items()}
    found = {key: peak() for key, peak in measures.items()}
    return {HOUR: Figures(found["ours"], found["peer"])}


def peak_bytes(checkpoint: Path, file: Path) -> float:
    """The most resident memory that `clapboard predict` had. Raises `RuntimeError` if it failed.

    Not by `getrusage`: a child's maximum there begins with what its parent had when it was started.
    """
    env = os.environ | {"PYTHONPATH": str(REPOSITORY), "CLAPBOARD_DEVICE": "cpu"}
    command = [sys.executable, "-m", "clapboard", "predict", str(file), "--model", str(checkpoint)]
    with subprocess.Popen([*command, "--labels", "dog,rain", "--json"], env=env, stdout=subprocess.DEVNULL) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, high_water(process.pid))
            time.sleep(_POLL_S)
    if process.returncode or not peak:
        raise RuntimeError(f"`clapboard predict {file.name}` ended with {process.returncode}")
    return float(peak)


def high_water(pid: int) -> int:
    """The most bytes of memory that a process has had; 0 where it has just ended, or isn't Python yet."""
    with suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("ascii")):
            return 1024 * int(found[1])
    return 0


SECTION = Section((HOUR,), measure, in_quick=False)

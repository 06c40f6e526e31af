"""Frames: what they cost beside embeddings alone, in time and in memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import soundfile

from clapboard.model.clap import ClapEncoder
from clapboard.model.recording_frames import frame_pieces
from tests.bench.embedding import BATCH, noise
from tests.bench.memory import high_water
from tests.bench.rows import BYTES, Case, Figures, Goal
from tests.bench.sections import Effort, Outcome, Section
from tests.bench.timing import median_seconds
from tests.support.programs import REPOSITORY
from tests.support.recordings import sweep

_SAMPLE_RATE = 48_000
_POLL_S = 0.02
_ENGINES = ("torch", "openvino")

PASSES = {
    engine: Case(
        f"PCM → embedding and frames, batch {BATCH}, float32, {engine}",
        "s/clip",
        "the same without frames",
        Goal(ratio_at_most=1.05),
        "ours ÷ peer",
    )
    for engine in _ENGINES
}
HOUR_TIME = Case(
    "an hour-long file → frames, overlapping windows",
    "s",
    "its embeddings alone",
    Goal(ratio_at_most=2.2),
    "ours ÷ peer",
)
HOUR_MEMORY = Case(
    "most memory of a process that makes an hour's frames, piece by piece",
    BYTES,
    "the same for ten seconds",
    Goal(ratio_at_most=1.2),
    "ours ÷ peer",
)
_MEMORY_SCRIPT = """
import sys
from collections import deque
from pathlib import Path
from clapboard.model.clap import ClapEncoder
from clapboard.model.recording_frames import frame_pieces
deque(frame_pieces(ClapEncoder.load(sys.argv[1], device="cpu"), Path(sys.argv[2])), maxlen=0)
"""


def measure_pass(effort: Effort) -> Mapping[Case, Outcome]:
    """Both kinds of pass in turns, by either engine."""
    windows = noise(effort.of(BATCH, 2))
    works = {}
    for engine in _ENGINES:
        encoder = ClapEncoder.load(str(effort.checkpoint), device="cpu", dtype="float32", engine=engine)  # type: ignore[arg-type]
        works[engine, True] = lambda encoder=encoder: encoder.embed_windows_with_frames(windows)
        works[engine, False] = lambda encoder=encoder: encoder.embed_windows(windows)
    seconds = median_seconds(works, effort.of(7, 1))
    return {
        case: Figures(seconds[engine, True] / len(windows), seconds[engine, False] / len(windows))
        for engine, case in PASSES.items()
    }


def measure_hour(effort: Effort) -> Mapping[Case, Outcome]:
    """Once: an hour takes minutes, and fresh processes for memory."""
    minute = sweep(60, _SAMPLE_RATE)
    files = {"ours": effort.folder / "hour.flac", "peer": effort.folder / "ten_seconds.flac"}
    soundfile.write(files["peer"], minute[: 10 * _SAMPLE_RATE], _SAMPLE_RATE)
    with soundfile.SoundFile(files["ours"], "w", _SAMPLE_RATE, 1) as long:
        for _ in range(effort.of(60, 1)):
            long.write(minute)
    encoder = ClapEncoder.load(str(effort.checkpoint), device="cpu")
    started = time.perf_counter()
    for _ in frame_pieces(encoder, files["ours"]):
        pass
    between = time.perf_counter()
    encoder.embed_file(files["ours"])
    ended = time.perf_counter()
    peaks = {key: _peak_bytes(effort.checkpoint, file) for key, file in files.items()}
    return {
        HOUR_TIME: Figures(between - started, ended - between),
        HOUR_MEMORY: Figures(peaks["ours"], peaks["peer"]),
    }


def _peak_bytes(checkpoint: Path, file: Path) -> float:
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    peak = 0
    with subprocess.Popen([sys.executable, "-c", _MEMORY_SCRIPT, str(checkpoint), str(file)], env=env) as process:
        while process.poll() is None:
            peak = max(peak, high_water(process.pid))
            time.sleep(_POLL_S)
    if process.returncode or not peak:
        raise RuntimeError(f"making the frames of {file.name} ended with {process.returncode}")
    return float(peak)


SECTIONS = (
    Section(tuple(PASSES.values()), measure_pass),
    Section((HOUR_TIME, HOUR_MEMORY), measure_hour, in_quick=False),
)

"""`make bench`: what Clapboard costs beside named peers, in one run, on this machine.

Every row times ours and the peer in turns on the same input and threads, and compares medians. Weights are random, of
the real size: speed doesn't depend on their values. Writes the table, and bench.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's threads and torch's fight, to the peers' disadvantage

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import ClapFeatureExtractor, ClapModel

from clapboard.audio import SAMPLE_RATE, WINDOW_SAMPLES, Waveform
from clapboard.clap import ClapEncoder
from clapboard.features import LogMel
from tests.bench.learning import accept_seconds
from tests.bench.serving import predict_seconds
from tests.clap_checkpoints import save_real_size

BATCH = 8
ROUNDS = 5
OUTPUT = Path("bench.json")


@dataclass(frozen=True)
class Row:
    """One comparison: seconds of ours and of the peer, for the same work."""

    name: str
    ours: float
    peer: float
    peer_name: str
    ratio: float  # how many times faster than the peer
    unit: str
    hardware: str


def main() -> None:
    """Run every comparison, print the table, write the file."""
    rows = []
    windows = np.random.default_rng(0).uniform(-0.5, 0.5, (BATCH, WINDOW_SAMPLES)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = save_real_size(Path(folder), fused=False)
        rows += _embedding_rows(checkpoint, windows)
    rows.append(_log_mel_row(windows))
    ours, peer = predict_seconds(num_tasks=100, rounds=ROUNDS * 4)
    rows.append(
        _row("cached /predict, 100 tasks", ours, peer, f"FastAPI {version('fastapi')}, a constant of that size", "s")
    )
    ours, peer = accept_seconds(num_tasks=1000, rounds=8)
    label_studio = "Label Studio's own import of as many predictions"
    rows.append(_row("annotation → new suggestions shown, 1,000 tasks", ours, peer, label_studio, "s"))
    _show(rows)
    OUTPUT.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")


def _embedding_rows(checkpoint: Path, windows: Waveform) -> list[Row]:
    extractor = ClapFeatureExtractor.from_pretrained(checkpoint)
    model = ClapModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    peer_name = f"transformers {version('transformers')}, fp32, batched by hand"

    def by_hand() -> None:
        features = extractor(list(windows), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        with torch.inference_mode():
            model.get_audio_features(input_features=features["input_features"])

    rows = []
    for dtype in ("float32", "bfloat16"):
        encoder = ClapEncoder.load(str(checkpoint), device="cpu", dtype=dtype)
        ours, peer = _interleaved(lambda encoder=encoder: encoder.embed_windows(windows), by_hand)
        rows.append(_row(f"PCM → embedding, batch {BATCH}, {dtype}", ours / BATCH, peer / BATCH, peer_name, "s/clip"))
    return rows


def _log_mel_row(windows: Waveform) -> Row:
    extractor = ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50)
    log_mel, tensor = LogMel("slaney"), torch.from_numpy(windows)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ours, peer = _interleaved(lambda: log_mel(tensor), lambda: extractor(list(windows), sampling_rate=SAMPLE_RATE))
    torch.set_num_threads(num_threads)
    name = f"ClapFeatureExtractor of transformers {version('transformers')}"
    return _row("log-mel, one thread", ours / BATCH, peer / BATCH, name, "s/clip")


def _interleaved(ours: Callable[[], object], peer: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of each, measured in turns after one round to warm up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for round_number in range(ROUNDS + 1):
        for work, spent in zip((ours, peer), seconds, strict=True):
            began = time.perf_counter()
            work()
            if round_number:
                spent.append(time.perf_counter() - began)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def _row(name: str, ours: float, peer: float, peer_name: str, unit: str) -> Row:
    hardware = f"{_cpu()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return Row(name, ours, peer, peer_name, peer / ours, unit, hardware)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _show(rows: list[Row]) -> None:
    table = Table("what", "ours", "peer", "times faster", "peer is", title=rows[0].hardware)
    for row in rows:
        shown = (f"{1000 * seconds:.2f} m{row.unit}" for seconds in (row.ours, row.peer))
        table.add_row(row.name, *shown, f"{row.ratio:.2f}", row.peer_name)
    Console().print(table)


if __name__ == "__main__":
    main()

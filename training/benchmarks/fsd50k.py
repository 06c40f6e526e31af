"""FSD50K: 51,197 clips of Freesound, 200 labels, any number a clip.

Fonseca, Favory, Pons, Font and Serra, «FSD50K: An Open Dataset of Human-Labeled Sound Events» (IEEE/ACM TASLP 2022).
"""

from __future__ import annotations

from pathlib import Path

from clapboard.errors import TrainingError
from training.benchmarks.audio_files import AudioFiles, read_rows, read_table
from training.benchmarks.benchmark import TEST, TRAIN, VALIDATION, Benchmark, BenchmarkClip, Source

_TABLES = "FSD50K.ground_truth"
_SPLITS = {"train": TRAIN, "val": VALIDATION}


def _read(folder: Path) -> Benchmark:
    tables = folder / _TABLES
    labels = tuple(row[1] for row in read_rows(tables / "vocabulary.csv", 2))
    dev, evaluation = AudioFiles(folder / "FSD50K.dev_audio"), AudioFiles(folder / "FSD50K.eval_audio")
    clips = [
        _clip(row, dev, _split(tables / "dev.csv", row))
        for row in read_table(tables / "dev.csv", ("fname", "labels", "split"))
    ]
    clips += [_clip(row, evaluation, TEST) for row in read_table(tables / "eval.csv", ("fname", "labels"))]
    unknown = {label for clip in clips for label in clip.labels} - set(labels)
    if unknown:
        raise TrainingError(f"Table {tables / 'vocabulary.csv'} has no label {min(unknown)}: download it again.")
    return Benchmark("fsd50k", "FSD50K", "tags", tuple(clips), labels)


def _clip(row: dict[str, str], files: AudioFiles, part: str) -> BenchmarkClip:
    return BenchmarkClip(row["fname"], files.find(row["fname"]), part, tuple(row["labels"].split(",")))


def _split(table: Path, row: dict[str, str]) -> str:
    if row["split"] not in _SPLITS:
        raise TrainingError(
            f"Table {table} has “{row['split']}” at {row['fname']}, not train or val: download it again."
        )
    return _SPLITS[row["split"]]


def _is_in(folder: Path) -> bool:
    return (folder / _TABLES / "eval.csv").is_file()


FSD50K = Source("fsd50k", "FSD50K", ("fsd50k",), f"{_TABLES}/eval.csv", _is_in, _read)

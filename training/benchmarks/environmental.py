"""ESC-50, ESC-10 and UrbanSound8K: one label a clip, and folds that keep clips of one recording together.

Piczak, «ESC: Dataset for Environmental Sound Classification» (ACM Multimedia 2015); Salamon, Jacoby and Bello, «A
Dataset and Taxonomy for Urban Sound Research» (ACM Multimedia 2014).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from training.benchmarks.audio_files import AudioFiles, read_table
from training.benchmarks.benchmark import Benchmark, BenchmarkClip, Source


def _esc(key: str, title: str, table: str) -> Source:
    def read(folder: Path) -> Benchmark:
        return _labelled(key, title, folder / table, folder / "audio", ("filename", "fold", "category"))

    return Source(key, title, (key,), table, _has(table), read)


def _urban(folder: Path) -> Benchmark:
    table = folder / _URBAN_TABLE
    return _labelled("us8k", "UrbanSound8K", table, folder / "audio", ("slice_file_name", "fold", "class"))


def _labelled(key: str, title: str, table: Path, audio: Path, columns: tuple[str, str, str]) -> Benchmark:
    """A table of files, folds and labels, by the names of these columns."""
    name, fold, label = columns
    files = AudioFiles(audio)
    clips = tuple(
        BenchmarkClip(row[name], files.find(Path(row[name]).stem), row[fold], (row[label],))
        for row in read_table(table, columns)
    )
    labels = tuple(sorted({clip.labels[0] for clip in clips}))
    return Benchmark(key, title, "labels", clips, labels, folds=True)


def _has(table: str) -> Callable[[Path], bool]:
    return lambda folder: (folder / table).is_file()


_URBAN_TABLE = "metadata/UrbanSound8K.csv"

ESC50 = _esc("esc50", "ESC-50", "meta/esc50.csv")
ESC10 = _esc("esc10", "ESC-10", "esc10.csv")
URBAN_SOUND_8K = Source("us8k", "UrbanSound8K", ("urbansound8k", "us8k"), _URBAN_TABLE, _has(_URBAN_TABLE), _urban)

"""ESC-50, ESC-10 and UrbanSound8K: one label a clip, and folds that keep clips of one recording together.

Piczak, «ESC: Dataset for Environmental Sound Classification» (ACM Multimedia 2015); Salamon, Jacoby and Bello, «A
Dataset and Taxonomy for Urban Sound Research» (ACM Multimedia 2014).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from training.benchmarks.audio_files import AudioFiles, read_table
from training.benchmarks.benchmark import Benchmark, BenchmarkClip, Source


def _esc50(folder: Path) -> Benchmark:
    return _labelled("esc50", "ESC-50", folder / _ESC50_TABLE, folder / "audio", _ESC_COLUMNS)


def _esc10(folder: Path) -> Benchmark:
    """The clips that ESC-50's table marks as ESC-10's, or a table of these alone."""
    if not _has(_ESC50_TABLE)(folder):
        return _labelled("esc10", "ESC-10", folder / _ESC10_TABLE, folder / "audio", _ESC_COLUMNS)
    return _labelled("esc10", "ESC-10", folder / _ESC50_TABLE, folder / "audio", _ESC_COLUMNS, where="esc10")


def _urban(folder: Path) -> Benchmark:
    table = folder / _URBAN_TABLE
    return _labelled("us8k", "UrbanSound8K", table, folder / "audio", ("slice_file_name", "fold", "class"))


def _labelled(
    key: str, title: str, table: Path, audio: Path, columns: tuple[str, str, str], *, where: str = ""
) -> Benchmark:
    """A table of files, folds and labels, by the names of these columns; all rows, or those where `where` is true."""
    name, fold, label = columns
    files = AudioFiles(audio)
    clips = tuple(
        BenchmarkClip(row[name], files.find(Path(row[name]).stem), row[fold], (row[label],))
        for row in read_table(table, (*columns, where) if where else columns)
        if not where or row[where] == "True"
    )
    labels = tuple(sorted({clip.labels[0] for clip in clips}))
    return Benchmark(key, title, "labels", clips, labels, folds=True)


def _has(*tables: str) -> Callable[[Path], bool]:
    return lambda folder: any((folder / table).is_file() for table in tables)


_ESC50_TABLE, _ESC10_TABLE = "meta/esc50.csv", "esc10.csv"
_ESC_COLUMNS = ("filename", "fold", "category")
_URBAN_TABLE = "metadata/UrbanSound8K.csv"

ESC50 = Source("esc50", "ESC-50", ("esc50",), _ESC50_TABLE, _has(_ESC50_TABLE), _esc50)
ESC10 = Source(
    "esc10",
    "ESC-10",
    ("esc10", "esc50"),
    f"{_ESC10_TABLE} or {_ESC50_TABLE}",
    _has(_ESC10_TABLE, _ESC50_TABLE),
    _esc10,
)
URBAN_SOUND_8K = Source("us8k", "UrbanSound8K", ("urbansound8k", "us8k"), _URBAN_TABLE, _has(_URBAN_TABLE), _urban)

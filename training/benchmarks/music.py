"""GTZAN: 1,000 excerpts of ten genres, one folder a genre.

Tzanetakis and Cook, «Musical genre classification of audio signals» (IEEE TSAP 2002). Its authors define no folds. Ours
are blocks of ten numbers, `blues.00000`–`blues.00009` and so on: neighbours are often by one artist (Sturm, «The GTZAN
dataset», 2013), and a probe looks better than it is if an artist is in both training and test.
"""

from __future__ import annotations

from pathlib import Path

from training.benchmarks.audio_files import AudioFiles
from training.benchmarks.benchmark import Benchmark, BenchmarkClip, Source

TEMPLATE = "This is a {} song."
"""The prompt of LAION's zero-shot evaluation."""

_GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
_CLIPS_A_GENRE, _FOLDS = 100, 10
_FOLDERS = (".", "genres_original", "genres", "Data/genres_original")


def _read(folder: Path) -> Benchmark:
    """Reads GTZAN: all of its 1,000 clips, whether their files are there or not."""
    genres = _genres(folder)
    assert genres is not None
    files = AudioFiles(*(genres / genre for genre in _GENRES))
    names = [(genre, number) for genre in _GENRES for number in range(_CLIPS_A_GENRE)]
    clips = tuple(
        BenchmarkClip(
            f"{genre}.{number:05}", files.find(f"{genre}.{number:05}"), str(number * _FOLDS // _CLIPS_A_GENRE), (genre,)
        )
        for genre, number in names
    )
    return Benchmark("gtzan", "GTZAN", "labels", clips, _GENRES, folds=True, template=TEMPLATE)


def _genres(folder: Path) -> Path | None:
    """The folder that has the genres' folders; None if there is none."""
    return next((folder / name for name in _FOLDERS if (folder / name / "blues").is_dir()), None)


GTZAN = Source(
    "gtzan",
    "GTZAN",
    ("gtzan", "genres"),
    "genres_original/ or genres/",
    lambda folder: _genres(folder) is not None,
    _read,
)

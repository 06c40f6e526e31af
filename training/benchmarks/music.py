"""GTZAN: 1,000 excerpts of ten genres, one folder a genre.

Tzanetakis and Cook, «Musical genre classification of audio signals» (IEEE TSAP 2002). Its authors define no folds. Ours
are the ten runs of ten numbers, `blues.00000`–`blues.00009` and so on, since neighbours are often by one artist (Sturm,
«The GTZAN dataset», 2013), and an artist in both training and test flatters a probe.
"""

from __future__ import annotations

from pathlib import Path

from training.benchmarks.audio_files import AudioFiles
from training.benchmarks.benchmark import Benchmark, BenchmarkClip, Source

TEMPLATE = "This is a {} song."
"""What LAION's zero-shot evaluation calls a genre."""

_GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
_CLIPS_A_GENRE, _FOLDS = 100, 10
_FOLDERS = (".", "genres_original", "genres", "Data/genres_original")


def _read(folder: Path) -> Benchmark:
    """All 1,000 clips that the data set has, whether they are there or not."""
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
    """The folder that holds the genres'."""
    return next((folder / name for name in _FOLDERS if (folder / name / "blues").is_dir()), None)


GTZAN = Source(
    "gtzan",
    "GTZAN",
    ("gtzan", "genres"),
    "genres_original/ or genres/",
    lambda folder: _genres(folder) is not None,
    _read,
)

"""AudioCaps and Clotho: clips with several captions each. Only their test splits are read.

Kim, Kim, Lee and Kim, «AudioCaps: Generating Captions for Audios in The Wild» (NAACL 2019); Drossos, Lipping and
Virtanen, «Clotho: an Audio Captioning Dataset» (ICASSP 2020).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from clapboard.errors import TrainingError
from training.benchmarks.audio_files import AudioFiles, read_table, youtube_stems
from training.benchmarks.benchmark import TEST, Benchmark, BenchmarkClip, Source

_CLOTHO_TABLE = "clotho_captions_evaluation.csv"
_CLOTHO_TABLES = (_CLOTHO_TABLE, f"clotho_csv_files/{_CLOTHO_TABLE}")
_CLOTHO_AUDIO = ("evaluation", "clotho_audio_evaluation", "clotho_audio_files/evaluation")
_CLOTHO_CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))
_AUDIO_CAPS_TABLES = tuple(
    f"{folder}test.csv" for folder in ("", "dataset/", "dataset2.0/", "csv_files_v1/", "csv_files_v2/")
)
_AUDIO_CAPS_SPLIT = ("test", "audio*/test")
_AUDIO_CAPS_CLIP_S = 10
_AUDIO_CAPS_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")


def _audio_caps(folder: Path) -> Benchmark:
    """Reads AudioCaps: one clip for each excerpt of a video; the table has a row for each caption."""
    table = _audio_caps_table(folder)
    assert table is not None
    by_excerpt: dict[tuple[str, int], list[dict[str, str]]] = {}
    for row in read_table(table, _AUDIO_CAPS_COLUMNS):
        by_excerpt.setdefault((row["youtube_id"], _second(table, row)), []).append(row)
    num_excerpts = Counter(video for video, _ in by_excerpt)
    files = AudioFiles(folder)
    # Files named by number count only in the test split's folder: elsewhere they belong to another data set.
    numbered = AudioFiles(*(split for name in _AUDIO_CAPS_SPLIT for split in sorted(folder.glob(name))))
    clips = []
    for (video, start), rows in by_excerpt.items():
        stems = youtube_stems(video, start, start + _AUDIO_CAPS_CLIP_S, is_only=num_excerpts[video] == 1)
        path = files.find(*stems) or numbered.find(*(row["audiocap_id"] for row in rows))
        clips.append(BenchmarkClip(f"{video}_{start}", path, TEST, captions=tuple(row["caption"] for row in rows)))
    return Benchmark("audiocaps", "AudioCaps", "captions", tuple(clips))


def _second(table: Path, row: dict[str, str]) -> int:
    if not row["start_time"].isdecimal():
        raise TrainingError(f"Table {table} has “{row['start_time']}” at {row['youtube_id']}, not a second.")
    return int(row["start_time"])


def _clotho(folder: Path) -> Benchmark:
    table = _clotho_table(folder)
    assert table is not None
    files = AudioFiles(*(folder / name for name in _CLOTHO_AUDIO))
    clips = tuple(
        BenchmarkClip(
            row["file_name"],
            files.find(Path(row["file_name"]).stem),
            TEST,
            captions=tuple(row[column] for column in _CLOTHO_CAPTIONS),
        )
        for row in read_table(table, ("file_name", *_CLOTHO_CAPTIONS))
    )
    return Benchmark("clotho", "Clotho", "captions", clips)


def _audio_caps_table(folder: Path) -> Path | None:
    """AudioCaps' table, or None. Other data sets have a test.csv too, but theirs has no column youtube_id."""
    for table in (folder / name for name in _AUDIO_CAPS_TABLES):
        if table.is_file():
            with table.open(encoding="utf-8-sig", errors="replace") as file:
                if "youtube_id" in file.readline():
                    return table
    return None


def _clotho_table(folder: Path) -> Path | None:
    return next((folder / name for name in _CLOTHO_TABLES if (folder / name).is_file()), None)


AUDIO_CAPS = Source(
    "audiocaps",
    "AudioCaps",
    ("audiocaps",),
    "test.csv with youtube_id",
    lambda folder: _audio_caps_table(folder) is not None,
    _audio_caps,
)
CLOTHO = Source(
    "clotho", "Clotho", ("clotho",), _CLOTHO_TABLE, lambda folder: _clotho_table(folder) is not None, _clotho
)

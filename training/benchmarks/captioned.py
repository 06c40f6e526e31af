"""AudioCaps and Clotho: clips with several sentences each. Their test parts alone are read.

Kim, Kim, Lee and Kim, «AudioCaps: Generating Captions for Audios in The Wild» (NAACL 2019); Drossos, Lipping and
Virtanen, «Clotho: an Audio Captioning Dataset» (ICASSP 2020).
"""

from __future__ import annotations

from pathlib import Path

from training.benchmarks.audio_files import AudioFiles, read_table
from training.benchmarks.benchmark import TEST, Benchmark, BenchmarkClip, Source

_CLOTHO_TABLE = "clotho_captions_evaluation.csv"
_CLOTHO_AUDIO = ("evaluation", "clotho_audio_evaluation")
_CLOTHO_CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))
_AUDIO_CAPS_TABLES = ("test.csv", "dataset/test.csv")
_AUDIO_CAPS_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")


def _audio_caps(folder: Path) -> Benchmark:
    """One clip for each excerpt of a video: the table has a row for each of its captions."""
    files = AudioFiles(folder)
    table = next(folder / name for name in _AUDIO_CAPS_TABLES if (folder / name).is_file())
    by_excerpt: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in read_table(table, _AUDIO_CAPS_COLUMNS):
        by_excerpt.setdefault((row["youtube_id"], row["start_time"]), []).append(row)
    clips = []
    for (video, start), rows in by_excerpt.items():
        stems = (video, f"Y{video}", f"{video}_{start}", *(row["audiocap_id"] for row in rows))
        captions = tuple(row["caption"] for row in rows)
        clips.append(BenchmarkClip(f"{video}_{start}", files.find(*stems), TEST, captions=captions))
    return Benchmark("audiocaps", "AudioCaps", "captions", tuple(clips))


def _clotho(folder: Path) -> Benchmark:
    files = AudioFiles(*(folder / name for name in _CLOTHO_AUDIO))
    clips = tuple(
        BenchmarkClip(
            row["file_name"],
            files.find(Path(row["file_name"]).stem),
            TEST,
            captions=tuple(row[column] for column in _CLOTHO_CAPTIONS),
        )
        for row in read_table(folder / _CLOTHO_TABLE, ("file_name", *_CLOTHO_CAPTIONS))
    )
    return Benchmark("clotho", "Clotho", "captions", clips)


def _is_audio_caps(folder: Path) -> bool:
    """Other data sets have a test.csv too: this one names videos."""
    for name in _AUDIO_CAPS_TABLES:
        if (table := folder / name).is_file():
            with table.open(encoding="utf-8-sig", errors="replace") as file:
                return "youtube_id" in file.readline()
    return False


AUDIO_CAPS = Source("audiocaps", "AudioCaps", ("audiocaps",), "test.csv with youtube_id", _is_audio_caps, _audio_caps)
CLOTHO = Source(
    "clotho", "Clotho", ("clotho",), _CLOTHO_TABLE, lambda folder: (folder / _CLOTHO_TABLE).is_file(), _clotho
)

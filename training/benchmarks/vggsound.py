"""VGGSound: 200,000 clips of ten seconds from YouTube, 309 labels, one a clip.

Chen, Xie, Vedaldi and Zisserman, «VGGSound: A Large-scale Audio-Visual Dataset» (ICASSP 2020).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from clapboard.errors import TrainingError
from training.benchmarks.audio_files import AudioFiles, read_rows, youtube_stems
from training.benchmarks.benchmark import TEST, TRAIN, Benchmark, BenchmarkClip, Source

_TABLE = "vggsound.csv"
_CLIP_S = 10


def _read(folder: Path) -> Benchmark:
    files = AudioFiles(folder)
    rows = [_checked(folder / _TABLE, *row[:4]) for row in read_rows(folder / _TABLE, 4)]
    num_excerpts = Counter(video for video, *_ in rows)
    clips = tuple(
        BenchmarkClip(
            f"{video}_{start:06}",
            files.find(*youtube_stems(video, start, start + _CLIP_S, is_only=num_excerpts[video] == 1)),
            split,
            (label,),
        )
        for video, start, label, split in rows
    )
    labels = tuple(sorted({clip.labels[0] for clip in clips}))
    return Benchmark("vggsound", "VGGSound", "labels", clips, labels)


def _checked(table: Path, video: str, start: str, label: str, split: str) -> tuple[str, int, str, str]:
    if not start.isdecimal() or split not in {TRAIN, TEST}:
        raise TrainingError(f"Table {table} has “{start}”, “{split}” at {video}, not a second and train or test.")
    return video, int(start), label, split


VGGSOUND = Source("vggsound", "VGGSound", ("vggsound",), _TABLE, lambda folder: (folder / _TABLE).is_file(), _read)

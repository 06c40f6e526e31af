"""Results of benchmarks, and the layouts of the authors' three tables: retrieval, zero-shot and supervised."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from clapboard.model.clap import ClapEncoder
from training.benchmarks.benchmark import Benchmark, BenchmarkClip
from training.benchmarks.cache import EmbeddingCache
from training.benchmarks.embedding import embed_clips
from training.benchmarks.figures import Classification, retrieve, supervised, zero_shot
from training.benchmarks.published import RETRIEVAL, SUPERVISED, ZERO_SHOT
from training.evaluation.listed_clips import Unreadable
from training.evaluation.retrieval import Retrieval


@dataclass(frozen=True)
class Result:
    """The result of one benchmark. A figure is None if the data set doesn't have it, or has no clips for it."""

    key: str
    title: str
    num_listed: int
    num_heard: int
    missing: tuple[str, ...]
    unreadable: tuple[Unreadable, ...]
    zero_shot: Classification | None = None
    supervised: Classification | None = None
    retrieval: Retrieval | None = None
    num_folds: int = 0  # listed

    @property
    def shortfall(self) -> str:
        """How much of the data set was evaluated, such as “14 of 15 clips, 4 of 5 folds”; empty if all of it was."""
        if self.num_heard == self.num_listed:
            return ""
        clips = f"{self.num_heard} of {self.num_listed} clips"
        num_folds = len(self.zero_shot.by_fold) if self.zero_shot else 0
        return clips if num_folds == self.num_folds else f"{clips}, {num_folds} of {self.num_folds} folds"

    @property
    def measures(self) -> Mapping[str, float]:
        """The figures by their names in the tables."""
        classifications = {ZERO_SHOT: self.zero_shot, SUPERVISED: self.supervised}
        measures = {name: figures.score for name, figures in classifications.items() if figures is not None}
        if self.retrieval is not None:
            ways = (self.retrieval.text_to_audio, self.retrieval.audio_to_text)
            figures = [getattr(way, name) for way in ways for name in ("recall_1", "recall_5", "recall_10", "map_10")]
            measures |= dict(zip(RETRIEVAL, figures, strict=True))
        return measures

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        files = [{"path": str(file.path), "error": file.reason} for file in self.unreadable]
        return asdict(self) | {"unreadable": files}


@dataclass(frozen=True)
class Column:
    """One figure of a table."""

    key: str
    measure: str
    header: str


@dataclass(frozen=True)
class TableLayout:
    """A table's title and columns, and a note on how far its rows can be compared."""

    title: str
    columns: tuple[Column, ...]
    note: str = ""


_CLASSIFIED = {
    "esc50": "ESC-50",
    "us8k": "US8K",
    "vggsound": "VGGSound",
    "gtzan": "GTZAN",
    "fsd50k": "FSD50K mAP",
    "esc10": "ESC-10",
}
_UNSORTED = (
    "A→T mAP@10 is by its definition; LAION's code computes a higher one (--json: audio_to_text_map_10_unsorted)."
)
_FINETUNED = "Ours is a linear probe on frozen embeddings; the audio encoders of CLAP's authors are finetuned."


def layouts(keys: Collection[str]) -> tuple[TableLayout, ...]:
    """The authors' tables with the columns of these data sets; tables without columns are left out."""
    captioned = {"audiocaps": "AudioCaps", "clotho": "Clotho"}
    retrieval = [
        TableLayout(f"1. Retrieval on {title}, %", tuple(Column(key, name, name) for name in RETRIEVAL), _UNSORTED)
        for key, title in captioned.items()
        if key in keys
    ]
    chosen = {key: header for key, header in _CLASSIFIED.items() if key in keys}
    classified = [
        TableLayout(title, tuple(Column(key, measure, header) for key, header in chosen.items()), note)
        for title, measure, note in (
            ("2. Zero-shot accuracy, %", ZERO_SHOT, ""),
            ("3. Supervised accuracy, %", SUPERVISED, _FINETUNED),
        )
        if chosen
    ]
    return (*retrieval, *classified)


def needed_clips(benchmark: Benchmark, *, with_probe: bool) -> tuple[BenchmarkClip, ...]:
    """The clips to embed: all of them for a probe, otherwise only those to test on."""
    return benchmark.clips if with_probe else benchmark.tested


def evaluate(
    benchmark: Benchmark,
    encoder: ClapEncoder,
    cache: EmbeddingCache,
    *,
    with_probe: bool,
    captions: bool = False,
    on_clip: Callable[[], None] = lambda: None,
) -> Result:
    """Evaluates the encoder on the benchmark; `captions` takes an ensemble of captions for each label, not one prompt.

    `on_clip` is called after each clip. Raises `TrainingError` if the cache can't be used.
    """
    clips = needed_clips(benchmark, with_probe=with_probe)
    embedded = embed_clips(encoder, clips, cache, on_clip=on_clip)
    counts = (benchmark.key, benchmark.title, len(clips), len(embedded.clips), embedded.missing, embedded.unreadable)
    if benchmark.kind == "captions":
        return Result(*counts, retrieval=retrieve(embedded, encoder.embed_texts))
    probe = supervised(benchmark, embedded) if with_probe else None
    by_text = zero_shot(benchmark, embedded, encoder.embed_texts, captions=captions)
    num_folds = len({clip.part for clip in clips}) if benchmark.folds else 0
    return Result(*counts, zero_shot=by_text, supervised=probe, num_folds=num_folds)

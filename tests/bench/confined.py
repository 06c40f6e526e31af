"""What it costs that files are decoded in a confined process: processor time of a clip from file to embedding."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO
from unittest import mock

from clapboard.audio import windows
from clapboard.audio.confined.decoders import decoders
from clapboard.audio.confined.messages import Request
from clapboard.audio.mono import Block, mono_blocks
from clapboard.audio.pieces import Bound, Condition
from clapboard.model.clap import ClapEncoder
from tests.bench.clips import COMPRESSED_AND_WAV, Clips
from tests.bench.rows import Case, Figures, Goal
from tests.bench.sections import Effort, Outcome, Section
from tests.bench.timing import medians

CONFINED = Case(
    "file → embedding, decoded in a confined process: processor time",
    "s/clip",
    "decoded in the same process",
    Goal(ratio_at_most=1.05),
    "ours ÷ peer",
)


class _InThisProcess:
    """Decodes as before there were decoders of their own."""

    def blocks(self, file: IO[bytes], request: Request, condition: Condition) -> Iterator[Block]:
        return mono_blocks(file, Bound(request.name, request.longest_s), request.channel, condition)


def measure(effort: Effort) -> Mapping[Case, Outcome]:
    """Files of every kind, embedded in batches by one thread, each way in turns."""
    encoder = ClapEncoder.load(str(effort.checkpoint), device="cpu")
    num_clips, clips = effort.of(24, 2), Clips(COMPRESSED_AND_WAV)
    folder = effort.folder / "confined"
    folder.mkdir()
    paths = []
    for number, content in enumerate(clips.take(num_clips)):
        paths.append(folder / str(number))
        paths[-1].write_bytes(content)
    in_process = _InThisProcess()

    def run() -> None:
        _embed(encoder, paths)

    def run_in_process() -> None:
        with mock.patch.object(windows, "decoders", return_value=in_process):
            _embed(encoder, paths)

    measures = {"ours": lambda: _cpu_s(run), "peer": lambda: _cpu_s(run_in_process)}
    seconds = medians(measures, effort.of(5, 1), warm_ups=1)
    return {CONFINED: Figures(seconds["ours"] / num_clips, seconds["peer"] / num_clips)}


def _embed(encoder: ClapEncoder, paths: list[Path]) -> None:
    views = [view for path in paths for view in encoder.views(path)]
    for start in range(0, len(views), encoder.batch_size):
        encoder.embed_views(views[start : start + encoder.batch_size])


def _cpu_s(work: Callable[[], None]) -> float:
    """Processor time of this process and of the decoders."""
    before = time.process_time() + decoders().cpu_used_s()
    work()
    return time.process_time() + decoders().cpu_used_s() - before


SECTION = Section((CONFINED,), measure)

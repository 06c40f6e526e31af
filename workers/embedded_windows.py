"""A batch of entries → their embeddings, and the frames of those files that need them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clapboard.audio.windows import Window
from clapboard.model.clap import Embedding
from clapboard.model.recording_frames import EmbeddedFrames
from clapboard.store.embeddings import Stretch
from clapboard.store.frames import StoredPiece
from workers.files_under_way import Entry, FileUnderWay


@dataclass(frozen=True, eq=False)
class EmbeddedWindow:
    """A window without its samples, which are let go before the store is waited for.

    An embedding of it `is_kept` if it is one of those that every recording has.
    """

    file: FileUnderWay
    index: int
    end_s: float
    embedding: Embedding
    is_kept: bool
    frames: EmbeddedFrames | None


@dataclass(frozen=True)
class EmbeddedBatch:
    """What came out of a forward pass. Every window of the `ended_files` is in this batch or an earlier one."""

    windows: Sequence[EmbeddedWindow]
    ended_files: Sequence[FileUnderWay]


def embedded_windows(entries: Sequence[Entry]) -> list[EmbeddedWindow]:
    """What the entries' encoder gives: one pass for windows, and one for recordings as a whole.

    The windows' pass is one with frames if any of their files needs them.
    """
    any_frames = any(entry.file.selection for entry in entries)
    on_frames = [entry for entry in entries if any_frames and isinstance(entry.view, Window)]
    others = [entry for entry in entries if not (any_frames and isinstance(entry.view, Window))]
    return _without_frames(others) + _with_frames(on_frames)


def stretches(batch: EmbeddedBatch) -> list[Stretch]:
    """The batch's embeddings to store; counts them in their files."""
    found = []
    kept = [window for window in batch.windows if window.is_kept]
    for file, group in itertools.groupby(kept, key=lambda window: window.file):
        windows = list(group)
        vectors = np.stack([window.embedding for window in windows])
        found.append(Stretch(file.content, windows[0].index, vectors))
        file.num_windows, file.duration_s = windows[-1].index + 1, windows[-1].end_s
    return found


def frame_pieces(batch: EmbeddedBatch) -> list[StoredPiece]:
    """What the batch adds to the frames of its files."""
    pieces: list[StoredPiece] = []
    for window in batch.windows:
        if window.file.selection and window.frames:
            pieces += window.file.numbered(window.file.selection.add(window.frames))
    for file in batch.ended_files:
        if file.selection and not file.done.done():
            pieces += file.numbered(file.selection.end())
    return pieces


def _without_frames(entries: Sequence[Entry]) -> list[EmbeddedWindow]:
    """The entries' embeddings, by one forward pass."""
    views = [entry.view for entry in entries if entry.view is not None]
    if not views:
        return []
    embeddings = entries[0].file.encoder.embed_views(views)
    return [
        EmbeddedWindow(entry.file, view.index, view.end_s, embedding, is_kept=True, frames=None)
        for entry, view, embedding in zip(entries, views, embeddings, strict=True)
    ]


def _with_frames(entries: Sequence[Entry]) -> list[EmbeddedWindow]:
    """The same for windows, and their frames where those are needed."""
    windows = [entry.view for entry in entries if isinstance(entry.view, Window)]
    if not windows:
        return []
    encoder = entries[0].file.encoder
    embedded = encoder.embed_windows_with_frames([window.waveform for window in windows])
    return [
        EmbeddedWindow(
            entry.file,
            window.index,
            window.end_s,
            embedded.embeddings[place],
            is_kept=not window.is_between and not encoder.fusion,
            frames=EmbeddedFrames.of(window, embedded, place) if entry.file.selection else None,
        )
        for place, (entry, window) in enumerate(zip(entries, windows, strict=True))
    ]

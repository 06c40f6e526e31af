"""Files on their way through the pipeline, and the entries in which its queue holds them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import NamedTuple

from clapboard.audio.channels import content_key
from clapboard.audio.pieces import Condition
from clapboard.errors import ClapboardError
from clapboard.model.clap import ClapEncoder, View
from clapboard.model.recording_frames import FramePiece, FrameSelection
from clapboard.sources import SourceFile
from clapboard.store.embeddings import Recording
from clapboard.store.frames import StoredPiece


class Key(NamedTuple):
    """What is made of which content."""

    encoder_version: str
    dtype: str
    content: str
    frames: bool


@dataclass(eq=False)
class FileUnderWay:
    """A file under way. `done` gets its recording once all embeddings are stored, or the error that prevents that."""

    encoder: ClapEncoder
    source: SourceFile
    urgent: bool
    leave: Callable[[FileUnderWay], None]
    done: Future[Recording] = field(default_factory=Future)
    channel: str = ""
    selection: FrameSelection | None = None  # of its frames; None if they aren't needed
    num_pieces: int = 0  # of its frames, that are stored
    began_at: float = math.inf  # when its decoding began
    damage: str = ""  # from an earlier reading
    num_windows: int = 0
    duration_s: float = 0.0
    condition: Condition = field(default_factory=Condition)

    @property
    def content(self) -> str:
        """The key of the recording's content in the store."""
        return content_key(self.source.sha256, self.channel)

    @property
    def key(self) -> Key:
        return Key(self.encoder.identity.version, self.encoder.identity.dtype, self.content, bool(self.selection))

    def numbered(self, pieces: Sequence[FramePiece]) -> list[StoredPiece]:
        """The pieces that follow those that are stored."""
        first, frame_s = self.num_pieces, self.encoder.frame_s
        self.num_pieces += len(pieces)
        return [StoredPiece(self.content, first + place, frame_s, piece) for place, piece in enumerate(pieces)]

    def finish(self) -> None:
        self.leave(self)
        with contextlib.suppress(InvalidStateError):  # it has failed
            self.done.set_result(
                Recording(self.content, self.num_windows, self.duration_s, self.condition.damage or self.damage)
            )

    def fail(self, error: ClapboardError) -> None:
        self.leave(self)
        # The frames that the error came from would keep this file and its windows in memory.
        error.__cause__ = error.__context__ = None
        with contextlib.suppress(InvalidStateError):  # it has failed before
            self.done.set_exception(error.with_traceback(None))


@dataclass(frozen=True, eq=False)
class Entry:
    """A view of a file: one window or, for an encoder with fusion, the whole file. None marks the file's end."""

    file: FileUnderWay
    view: View | None

    @property
    def urgent(self) -> bool:
        return self.file.urgent

    @property
    def is_window(self) -> bool:
        return self.view is not None

    @property
    def group(self) -> object:
        return self.file.encoder

    @property
    def batch_size(self) -> int:
        return self.file.encoder.batch_size

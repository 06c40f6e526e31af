"""Predictions from what the store has of recordings: the embeddings of several, and the frames of one at a time.

Frames of an hour take 25 MB, so those of a page of tasks are never in memory together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from clapboard.labels.label_space import LabelSpace
from clapboard.store import Store
from clapboard.suggest import prediction
from clapboard.suggest.head import Head
from clapboard.suggest.prediction import Prediction
from clapboard.suggest.regions import Frames
from clapboard.suggest.scoring import Array

FramesOf = Callable[[str], Frames | None]
"""A URI key → the frames of the recording behind it; None if not all are stored."""


def frames_of(store: Store, encoder_version: str, dtype: str) -> FramesOf:
    """Reads the frames that one encoder made."""

    def read(uri_key: str) -> Frames | None:
        recording = store.embeddings.recordings([uri_key]).get(uri_key)
        return None if recording is None else store.frames.get(recording, encoder_version, dtype)

    return read


def predictions(
    label_space: LabelSpace, head: Head, model_version: str, embeddings: Mapping[str, Array], frames: FramesOf
) -> Iterator[tuple[str, Prediction]]:
    """By URI key, the prediction for its recording, from its windows' embeddings `[W, D]` and, if needed, its frames.

    Recordings whose frames are needed but aren't stored have none.
    """
    if not label_space.on_frames:
        made = prediction.predict_many(label_space, list(embeddings.values()), head, model_version)
        yield from zip(embeddings, made, strict=True)
        return
    for uri_key, vectors in embeddings.items():
        if (of_recording := frames(uri_key)) is not None:
            yield uri_key, prediction.predict(label_space, vectors, head, model_version, of_recording)

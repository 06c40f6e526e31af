"""What answers a project: its promoted encoder and head where there are any, else the base model's zero-shot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clapboard import prediction
from clapboard.errors import NoWorkerError
from clapboard.head import ZERO_SHOT, Head, zero_shot_head
from clapboard.labels import LabelSpace, parse_label_config
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.versions import Version


@dataclass(frozen=True)
class Serving:
    """The encoder and the name of the head that answer a project's label space, and the version they make."""

    encoder: Encoder
    head: str
    space_id: str
    model_version: str


def serving(
    label_space: LabelSpace, base: Encoder, promoted: Version | None, encoders: Mapping[str, Encoder]
) -> Serving:
    """What answers the label space, given the project's promoted version and the encoders that workers announced.

    A promoted head holds for the label space that it was fitted to. Under another one, say after a class was added,
    the promoted encoder answers by the labels' texts until a head is fitted for that.
    """
    encoder, head = base, ZERO_SHOT
    space_id = prediction.space_id(label_space)
    found = encoders.get(promoted.encoder) if promoted else None
    tuned = promoted is not None and is_tuned(promoted.encoder)
    if promoted and found and found.version == promoted.encoder_version and (tuned or found.model == base.model):
        encoder = found
        if promoted.space_id == space_id:
            head = promoted.head
    return Serving(encoder, head, space_id, prediction.model_version(encoder, label_space, head))


def find_serving(store: Store, model: str, project: int, label_space: LabelSpace) -> Serving:
    """What answers the project now, from the store. Raises `NoWorkerError` before the first worker is up."""
    return serving(label_space, base_encoder(store, model), store.versions.promoted(project), store.catalog.encoders())


def base_encoder(store: Store, model: str) -> Encoder:
    """The encoder of CLAPBOARD_MODEL, as a worker announced it. Raises `NoWorkerError` before the first one is up."""
    encoder = store.catalog.encoder(model)
    if encoder is None:
        raise NoWorkerError(
            f"No worker has loaded the model {model} yet: start one with `clapboard worker` (or use `clapboard up`), "
            "with the same CLAPBOARD_MODEL and store as here."
        )
    return encoder


def stored_head(store: Store, served: Serving, label_space: LabelSpace) -> Head | None:
    """The head that answers, if the store has it: a zero-shot one needs class weights that a worker has computed.

    Raises `NotFoundError` if a fitted head is gone.
    """
    if served.head != ZERO_SHOT:
        return store.versions.head(served.encoder.version, served.space_id, served.head)
    weights = store.catalog.class_weights(served.encoder.version, served.space_id)
    return None if weights is None else zero_shot_head(label_space, np.asarray(weights), served.encoder.logit_scale)


def is_tuned(encoder: str) -> bool:
    """Whether the encoder is a finetuned checkpoint of ours, as against a value of CLAPBOARD_MODEL."""
    return encoder.startswith("models/")


def has_checkpoint(settings: Settings, encoder: str) -> bool:
    """Whether a finetuned checkpoint is there, whole."""
    return (settings.model_dir / encoder / "manifest.json").is_file()


def zero_shot_version(store: Store, model: str, project: int) -> Version:
    """The base model by the labels' texts alone, to which every project can go back.

    Raises `NotFoundError` if the project never introduced itself, `LabelConfigError`, `NoWorkerError`.
    """
    label_config = store.catalog.project(project).label_config
    label_space = parse_label_config(label_config)
    space_id = prediction.space_id(label_space)
    encoder = base_encoder(store, model)
    store.catalog.put_label_space(space_id, label_config)
    name = prediction.model_version(encoder, label_space)
    return Version(project, name, encoder.model, encoder.version, ZERO_SHOT, space_id, manifest={"kind": ZERO_SHOT})

"""Which model version serves a project: its promoted encoder and head if it has any, else the zero-shot base model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from clapboard.errors import NotFoundError, NoWorkerError
from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import LabelSpace
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.versions import Version
from clapboard.suggest import prediction
from clapboard.suggest.head import ZERO_SHOT, Head, zero_shot_head


@dataclass(frozen=True)
class Serving:
    """The encoder and the head's name that serve a project's label space, and the model version they make up."""

    encoder: Encoder
    head: str
    space_id: str
    model_version: str
    channel: str = ""  # of the audio; see `LabelSpace.channel`
    frames: bool = False  # whether the label space has controls about regions, which need frames

    @property
    def shown_as(self) -> str:
        """The model version's name in Label Studio."""
        return prediction.shown_name(self.model_version)


def serving(
    label_space: LabelSpace, base: Encoder, promoted: Version | None, encoders: Mapping[str, Encoder]
) -> Serving:
    """What serves the label space, given the project's promoted version and the encoders that workers have announced.

    A promoted head is used only for the label space that it was fitted to. After a change, such as an added class, the
    promoted encoder serves zero-shot until a head is fitted to the new label space.
    """
    encoder, head = base, ZERO_SHOT
    space_id = prediction.space_id(label_space)
    if promoted and (announced := encoders.get(promoted.encoder)):
        is_usable = is_tuned(promoted.encoder) or announced.model == base.model
        if is_usable and announced.version == promoted.encoder_version:
            encoder = announced
            if promoted.space_id == space_id:
                head = promoted.head
    version = prediction.model_version(encoder, label_space, head)
    return Serving(encoder, head, space_id, version, label_space.channel, bool(label_space.on_frames))


def find_serving(store: Store, model: str, project: int, label_space: LabelSpace) -> Serving:
    """What serves the project now, read from the store. Raises `NoWorkerError` before the first worker is up."""
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
    """The serving head; None if it is zero-shot, in all or in part, and no worker has computed that yet.

    Raises `NotFoundError` if a fitted head is missing from the store.
    """
    if served.head != ZERO_SHOT:
        head = store.versions.head(served.encoder.version, served.space_id, served.head)
        if not label_space.on_frames or head.frame_controls:
            return head
        zero_shot = _stored_zero_shot(store, served, label_space)
        return None if zero_shot is None else replace(head, frame_controls=zero_shot.frame_controls)
    return _stored_zero_shot(store, served, label_space)


def _stored_zero_shot(store: Store, served: Serving, label_space: LabelSpace) -> Head | None:
    if label_space.on_frames:
        try:
            return store.versions.head(served.encoder.version, served.space_id, ZERO_SHOT)
        except NotFoundError:
            return None
    weights = store.catalog.class_weights(served.encoder.version, served.space_id)
    return None if weights is None else zero_shot_head(label_space, np.asarray(weights), served.encoder.logit_scale)


def serving_version(store: Store, model: str, project: int) -> Version | None:
    """The version that serves the project now. A zero-shot version is made up here, because none is stored.

    None until a worker has announced `model`, or the encoder that has served the project so far. Raises
    `NotFoundError` for a project that never introduced itself, and `LabelConfigError`.
    """
    record = store.catalog.project(project)
    label_space = parse_label_config(record.label_config)
    encoders = store.catalog.encoders()
    base = encoders.get(model) or next(
        (
            encoder
            for encoder in encoders.values()
            if (name := prediction.model_version(encoder, label_space)) == record.model_version
            or prediction.shown_name(name) == record.model_version
        ),
        None,
    )
    if base is None:
        return None
    served = serving(label_space, base, store.versions.promoted(project), encoders)
    for version in store.versions.of_project(project):
        if version.model_version == served.model_version:
            return version
    encoder = served.encoder
    return Version(
        project,
        served.model_version,
        encoder.model,
        encoder.version,
        served.head,
        served.space_id,
        manifest={"kind": ZERO_SHOT},
    )


def is_tuned(encoder: str) -> bool:
    """Whether the encoder is a checkpoint that Clapboard finetuned, rather than a value of CLAPBOARD_MODEL."""
    return encoder.startswith("models/")


def has_checkpoint(settings: Settings, encoder: str) -> bool:
    """Whether MODEL_DIR holds the complete finetuned checkpoint."""
    return (settings.model_dir / encoder / "manifest.json").is_file()


def zero_shot_version(store: Store, model: str, project: int) -> Version:
    """The base model, zero-shot: the version to which every project can go back.

    Raises `NotFoundError` if the project never introduced itself, `LabelConfigError`, `NoWorkerError`.
    """
    label_config = store.catalog.project(project).label_config
    label_space = parse_label_config(label_config)
    space_id = prediction.space_id(label_space)
    encoder = base_encoder(store, model)
    store.catalog.put_label_space(space_id, label_config)
    name = prediction.model_version(encoder, label_space)
    return Version(project, name, encoder.model, encoder.version, ZERO_SHOT, space_id, manifest={"kind": ZERO_SHOT})

"""The files of a finetuning's folder: what `training.finetuning.run` reads there, and what it writes.

They are apart from the run itself, so that a worker, which only starts it, doesn't import the training code.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

RUN, OUTCOME, HEAD, SERVED_HEAD = "run.json", "outcome.json", "head.npz", "served-head.npz"


class ClipSpec(BaseModel):
    """A labelled clip of the run. Test clips are never learnt from: the gate judges by them."""

    model_config = ConfigDict(frozen=True)

    path: Path
    group: str
    targets: dict[str, tuple[str, ...]]
    weight: float
    is_test: bool
    task: int = 0
    evidence: tuple[str, ...] = ()  # the controls whose labels may judge models that haven't learnt from the clip


class RunSpec(BaseModel):
    """The input of a run. `served` is the checkpoint in service; its fitted head, if any, lies beside this file.

    `judged_before` has, by the kind of look at the evidence, the recordings of each candidate judged before.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    base: str
    served: str
    served_head: str
    label_config: str
    clips: list[ClipSpec]
    config: dict[str, Any]
    max_fall: float
    device: str
    dtype: str
    engine: str = "auto"
    fusion: bool = False
    longest_s: float = math.inf
    batch_size: int
    threads: int
    start: str = ""  # the checkpoint that is tuned; empty: the base
    learnt_before: list[str] = []  # recordings and contents that the checkpoint to start from has learnt from
    num_folds: int = 0  # of cross-fitting; 0: none
    is_tried: bool = False  # a candidate that is likely better goes on trial, so that the gate isn't its only chance
    judged_before: dict[str, list[list[str]]] = {}
    num_forgotten: int = 0  # clips that `clapboard forget` has deleted from a snapshot
    is_repetition: bool = False  # of a run whose candidate has been judged: this one isn't
    calibrations: dict[str, Path] = {}  # by checkpoint, for int8


class Outcome(BaseModel):
    """The result of a run: the error that ended it, or the verdict on the candidate."""

    model_config = ConfigDict(frozen=True)

    error: str = ""
    promote: bool = False
    reason: str = ""
    encoder_version: str = ""
    manifest: dict[str, Any] = {}
    verdict: dict[str, Any] = {}

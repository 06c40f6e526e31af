"""The loop's parts: a step, an epoch, a validation, the best weights so far, and what has to be saved of all that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cosine_similarity, logsigmoid

from clapboard.head import Head
from clapboard.labels import LabelSpace
from clapboard.scoring import Array
from training.evaluate import head_scores, report
from training.head import LabelledEmbeddings, fit_head
from training.hidden import HiddenStates
from training.labelled import LabelledClip, Targets, balanced_order, targets_of
from training.memory import Portion
from training.tower import PROJECTION, STAGE_3, STAGE_4, Rung, Tower

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How much of the tuned weights may be in the result."""


@dataclass(frozen=True)
class FinetuneConfig:
    """What decides the result, apart from the model and the clips."""

    rung: Rung | Literal["auto"] = "auto"
    min_labels: int = 8  # a class with fewer is learnt too, but doesn't count in the choice of the rung
    stage4_labels: int = 16
    stages34_labels: int = 32
    epochs: int = 40
    patience: int = 10  # epochs without a better validation
    batch_size: int = 32
    min_steps: int = 8  # in an epoch: with few clips, batches are smaller
    projection_rate: float = 1e-3
    stage4_rate: float = 2e-4
    stage3_rate: float = 1e-4
    weight_decay: float = 0.05
    anchor: float = 0.01  # weight of the projection's squared distance from its pretrained value (ProLIP, 2410.05270)
    keep: float = 1.0  # weight of 1 − the cosine of a clip's embedding to what it was: texts go on fitting
    mixup: float = 0.2  # α of the Beta distribution (Zhang et al. 2018); 0: off
    num_views: int = 3  # times that each window is heard through the augmentation, besides as it is
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


@dataclass(frozen=True)
class Validation:
    """How well the validation clips are told apart: accuracy (mAP where labels don't exclude each other), and loss."""

    figure: float
    loss: float

    @property
    def rank(self) -> tuple[float, float]:
        """Better ones are greater: by figure, and where that is the same by loss."""
        return self.figure, -self.loss


class Trainer:
    """Tower, optimiser and clips, and the best weights so far.

    The tower learns under the head that its untuned embeddings are served with (Kumar et al. 2022: a head first, then
    the features), and each embedding is held near what it was: so do texts go on fitting, those of labels that nobody
    has used yet too. Learning under the texts alone was worse on every set of sounds it was tried on.
    """

    def __init__(
        self,
        tower: Tower,
        label_space: LabelSpace,
        zero_shot: Head,
        clips: Sequence[LabelledClip],
        hidden: HiddenStates,
        config: FinetuneConfig,
        *,
        device: torch.device,
        portion: Portion,
    ) -> None:
        self.epoch = 0
        self.curve: list[dict[str, float]] = []
        self._tower, self._controls = tower, label_space.predicted
        self._hidden, self._config, self._device, self._portion = hidden, config, device, portion
        readable = [index for index, place in enumerate(hidden.places) if place]
        self._train = np.array([index for index in readable if clips[index].split == "train"])
        self._validation = np.array([index for index in readable if clips[index].split == "validation"])
        self._targets = [targets_of(control, clips) for control in self._controls]
        self._weights = np.array([clip.weight for clip in clips])
        self._half = uses_bfloat16(config.dtype, device)

        original = [self._embed(int(clip)) for clip in self._train]
        self._original = torch.from_numpy(np.concatenate(original))  # [windows, D]
        self._unchanged_rows = np.concatenate([hidden.unchanged_rows(int(clip)) for clip in self._train])  # [windows]
        self._head = fit_head(label_space, zero_shot, self._labelled(original), _means(original))
        self._rows = [(_on(device, part.weights), _on(device, part.bias)) for part in self._head.controls]
        rates = {PROJECTION: config.projection_rate, STAGE_4: config.stage4_rate, STAGE_3: config.stage3_rate}
        self._optimiser = torch.optim.AdamW(tower.parameter_groups(rates, config.weight_decay), fused=True)
        self._peak_rates = [group["lr"] for group in self._optimiser.param_groups]
        self.before = self.best = self.validate()
        self._best_weights, self._best_epoch = tower.weights(), 0

    @property
    def goes_on(self) -> bool:
        """Whether another epoch may make it better."""
        return self.epoch < self._config.epochs and self.epoch - self._best_epoch < self._config.patience

    def train_epoch(self) -> None:
        """One pass over the training clips, a validation, and a point of the curve."""
        losses = []
        rng = np.random.default_rng([self._config.seed, self.epoch])
        batches = list(self._batches(rng))
        for step, clips in enumerate(batches):
            self._set_rates((self.epoch + step / len(batches)) / self._config.epochs)
            losses.append(self._step(clips, rng))
        found = self.validate()
        self.epoch += 1
        self.curve.append(
            {"epoch": self.epoch, "loss": float(np.mean(losses)), "figure": found.figure, "validation_loss": found.loss}
        )
        if found.rank > self.best.rank:
            self.best, self._best_epoch, self._best_weights = found, self.epoch, self._tower.weights()

    def interpolate(self) -> tuple[float, Validation]:
        """Puts the best mixture of original and best weights in place; its α and validation."""
        found = {}
        for alpha in ALPHAS:
            self._tower.set_weights(self._best_weights, alpha)
            found[alpha] = self.validate()
        best = max(ALPHAS, key=lambda alpha: (*found[alpha].rank, -alpha))
        self._tower.set_weights(self._best_weights, best)
        return best, found[best]

    @torch.no_grad()
    def validate(self) -> Validation:
        """The weights as they are, on the validation clips, by the rule that serves."""
        embeddings = [self._embed(int(clip)) for clip in self._validation]
        total, figure, loss = 0, 0.0, 0.0
        for control, head, targets in zip(self._controls, self._head.controls, self._targets, strict=True):
            known = targets.known[self._validation]
            if not known.any():
                continue
            scores = head_scores(control, head, [part for part, k in zip(embeddings, known, strict=True) if k])
            truth = targets.truth[self._validation][known]
            names = [label.value for label in control.labels]
            found = report(scores, truth, names, multiple=control.multiple)
            precision = found.mean_average_precision
            total += len(truth)
            figure += len(truth) * (found.accuracy if precision is None else precision)
            loss += len(truth) * _score_loss(scores, truth, multiple=control.multiple)
        return Validation(figure / total, loss / total)

    def state(self) -> dict[str, Any]:
        """All that `load_state` needs to go on as if nothing had happened."""
        return {
            "epoch": self.epoch,
            "curve": self.curve,
            "weights": self._tower.weights(),
            "optimiser": self._optimiser.state_dict(),
            "best": {"figure": self.best.figure, "loss": self.best.loss},
            "best_epoch": self._best_epoch,
            "best_weights": self._best_weights,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes back to where `state` was taken."""
        self.epoch, self.curve, self._best_epoch = state["epoch"], list(state["curve"]), state["best_epoch"]
        self.best = Validation(**state["best"])
        self._tower.set_weights(state["weights"])
        self._best_weights = {name: value.to(self._device) for name, value in state["best_weights"].items()}
        self._optimiser.load_state_dict(state["optimiser"])

    def _labelled(self, embeddings: Sequence[Array]) -> dict[str, LabelledEmbeddings]:
        """Each control's labels of the training clips, for its head."""
        found = {}
        for control, targets in zip(self._controls, self._targets, strict=True):
            known = targets.known[self._train]
            if known.any():
                clips = self._train[known]
                means = _means([part for part, k in zip(embeddings, known, strict=True) if k])
                truth, weights = targets.truth[clips].astype(np.float32), self._weights[clips].astype(np.float32)
                found[control.name] = LabelledEmbeddings(means, truth, weights)
        return found

    @torch.no_grad()
    def _embed(self, clip: int) -> Array:
        """`[W, D]`"""
        parts = torch.split(self._hidden.unchanged(clip), self._portion.size)
        embeddings: Array = torch.cat([self._tower.upper(part.to(self._device)) for part in parts]).cpu().numpy()
        return embeddings

    def _batches(self, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
        of_train = [Targets(targets.truth[self._train], targets.known[self._train]) for targets in self._targets]
        order = self._train[balanced_order(of_train, self._weights[self._train], rng)]
        num_batches = max(
            math.ceil(len(order) / self._config.batch_size), min(self._config.min_steps, len(order) // 2), 1
        )
        yield from np.array_split(order, num_batches)

    def _set_rates(self, progress: float) -> None:
        """A short rise, then down as a cosine."""
        rising = min(1.0, (progress * self._config.epochs + 0.1) / 1.0)
        factor = rising * (1 + math.cos(math.pi * progress)) / 2
        for group, peak in zip(self._optimiser.param_groups, self._peak_rates, strict=True):
            group["lr"] = peak * factor

    def _step(self, clips: npt.NDArray[np.int64], rng: np.random.Generator) -> float:
        """The batch's loss, after one optimiser step on it."""
        rows = self._hidden.draw(clips, rng)
        hidden = self._hidden.rows(rows)
        original = self._original[np.searchsorted(self._unchanged_rows, rows, side="right") - 1]  # [B, D]
        truths, knowns = self._batch_targets(clips)
        if self._config.mixup > 0:
            share = torch.from_numpy(rng.beta(self._config.mixup, self._config.mixup, len(clips)).astype(np.float32))
            partner = torch.from_numpy(rng.permutation(len(clips)))
            hidden, original = _mixed(hidden, share, partner), _mixed(original, share, partner)
            truths, knowns = ([_mixed(part, share, partner) for part in parts] for parts in (truths, knowns))

        def attempt(portion: int) -> float:
            self._optimiser.zero_grad()
            loss = 0.0
            for start in range(0, len(clips), portion):
                part = slice(start, start + portion)
                targets = [t[part] for t in truths], [k[part] for k in knowns]
                loss += self._backward(hidden[part], original[part], *targets, len(clips))
            anchoring = self._config.anchor * self._tower.anchor_distance()
            anchoring.backward()  # type: ignore[no-untyped-call]
            return loss + float(anchoring.item())

        loss = self._portion.run(attempt)
        self._optimiser.step()
        return loss

    def _batch_targets(self, clips: npt.NDArray[np.int64]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """For each control: truths `[B, L]`, zero where unknown, and whether they are known, `[B, 1]`; as float32."""
        knowns = [torch.from_numpy(targets.known[clips].astype(np.float32))[:, None] for targets in self._targets]
        truths = [torch.from_numpy(targets.truth[clips].astype(np.float32)) for targets in self._targets]
        return truths, knowns

    def _backward(
        self,
        hidden: torch.Tensor,
        original: torch.Tensor,
        truths: list[torch.Tensor],
        knowns: list[torch.Tensor],
        num_clips: int,
    ) -> float:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            embeddings = self._tower.upper(hidden.to(self._device))
        losses = [self._config.keep * (1 - cosine_similarity(embeddings, original.to(self._device))).sum()]
        for control, (weights, bias), truth, known in zip(self._controls, self._rows, truths, knowns, strict=True):
            logits = embeddings @ weights.T + bias  # [B, L]
            losses.append(label_loss(logits, truth.to(self._device), known.to(self._device), control.multiple))
        loss = torch.stack(losses).sum() / num_clips
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.item())


def label_loss(logits: torch.Tensor, truth: torch.Tensor, known: torch.Tensor, multiple: bool) -> torch.Tensor:
    """The summed cross-entropy of a batch: of the softmax, or the mean of each label's; unknown parts weigh nothing.

    `truth` `[B, L]` and `known` `[B, 1]` may be shares, as mixup makes them; truth is 0 where nothing is known.
    """
    if multiple:
        return -(truth * logsigmoid(logits) + (known - truth) * logsigmoid(-logits)).mean(dim=1).sum()
    return -(truth * logits.log_softmax(dim=1)).sum()


def uses_bfloat16(dtype: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16: where `auto`, if the device is made for it."""
    if dtype != "auto":
        return dtype == "bfloat16"
    return device.type == "cuda" or bool(torch.cpu.get_capabilities().get("amx_bf16"))


def _means(embeddings: Sequence[Array]) -> Array:
    """Each clip's unit-norm mean over its windows, `[N, D]`."""
    means = np.stack([part.mean(axis=0) for part in embeddings])
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def _on(device: torch.device, values: Array) -> torch.Tensor:
    return torch.from_numpy(values).to(device)


def _mixed(values: torch.Tensor, share: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
    """share · values + (1 − share) · the partner's, `[B, …]`."""
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    return share * values + (1 - share) * values[partner]


def _score_loss(scores: Array, truth: npt.NDArray[np.bool_], *, multiple: bool) -> float:
    """The mean negative log-likelihood of the truth by the scores."""
    likelihood = np.where(truth, scores, 1 - scores) if multiple else scores[truth]
    return float(-np.log(np.maximum(likelihood, 1e-7)).mean())

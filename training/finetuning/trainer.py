"""The parts of finetuning's loop: steps, epochs, validation, the share of the change to keep, and the saved state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cosine_similarity

from clapboard.errors import TrainingError
from clapboard.labels.label_space import LabelSpace
from clapboard.project.training_request import LEAST_LABELS
from clapboard.suggest.head import Head, scores_of_all
from clapboard.suggest.scoring import Array, mean_direction
from training.evaluate import Truth, report
from training.finetuning.hidden import HiddenStates
from training.finetuning.label_loss import label_loss
from training.finetuning.labelled import LabelledClip, Targets, balanced_order, targets_of
from training.finetuning.memory import Portion
from training.finetuning.tower import Tower
from training.finetuning.tower_stages import BELOW, PROJECTION, STAGE_3, STAGE_4, TrainableStages
from training.fit_head import LabelledEmbeddings, fit_head

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The shares of the tuned weights that are tried."""

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FinetuneConfig:
    """The settings that decide the result, besides the model and the clips. Stored manifests use these names."""

    rung: TrainableStages | Literal["auto"] = "auto"  # the trainable stages
    min_labels: int = LEAST_LABELS  # a class with fewer is learnt too, but doesn't count in choosing the stages
    stage4_labels: int = 16
    stages34_labels: int = 32
    epochs: int = 20
    batch_size: int = 32
    min_steps: int = 8  # per epoch: with few clips, batches are smaller
    projection_rate: float = 3e-4
    stage4_rate: float = 1e-4
    stage3_rate: float = 5e-5
    below_rate: float = 2e-5
    weight_decay: float = 0.05
    anchor: float = 0.01  # weight of the projection's squared distance from its pretrained value (ProLIP, 2410.05270)
    keep: float = 1.0  # weight of 1 − cos(embedding, original embedding)
    mixup: float = 0.2  # α of the Beta distribution (Zhang et al. 2018); 0: off
    num_views: int = 2  # augmented views of each window, besides the unchanged one
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


@dataclass(frozen=True)
class Validation:
    """The results on clips that aren't learnt from.

    `figure` is the accuracy, or mAP where labels don't exclude each other. `credit` is the mean score of the true
    labels: with few clips it is less noisy than the figure, and unlike the likelihood it doesn't punish overconfidence,
    which the head that is fitted afterwards corrects.
    """

    figure: float
    credit: float


class Trainer:
    """Trains a tower on labelled clips.

    The tower learns under the head that is fitted to its untuned embeddings (Kumar et al. 2022: first the head, then
    the features), and each embedding is kept near the original one, so that texts keep fitting, also those of labels
    that nobody has used yet. When it was trained under the texts alone, heads fitted to it became worse.
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
        learn: Indices,
        validate: Indices,
        device: torch.device,
        portion: Portion,
    ) -> None:
        self.epoch = 0
        self.curve: list[dict[str, float]] = []
        self._tower, self._controls, self._hidden, self._config = tower, label_space.predicted, hidden, config
        self._device, self._portion = device, portion
        self._learn, self._validate = learn, validate
        self._targets = [targets_of(control, clips) for control in self._controls]
        self._weights = np.array([clip.weight for clip in clips])
        tower.set_weights(tower.original)
        original = self.embeddings(learn)
        self._original = torch.from_numpy(np.concatenate(original))  # [windows, D]
        self._unchanged_rows = np.concatenate([hidden.unchanged_rows(int(clip)) for clip in learn])  # [windows]
        self._head = fit_head(label_space, zero_shot, self._labelled(original), _means(original))
        self._rows = [tuple(torch.from_numpy(a).to(device) for a in (p.weights, p.bias)) for p in self._head.controls]
        rates = {PROJECTION: config.projection_rate, STAGE_4: config.stage4_rate, STAGE_3: config.stage3_rate}
        rates[BELOW] = config.below_rate
        self._optimiser = torch.optim.AdamW(tower.parameter_groups(rates, config.weight_decay), fused=True)
        self._peak_rates = [group["lr"] for group in self._optimiser.param_groups]
        self.before = self.validate()

    @property
    def num_clips(self) -> int:
        """The number of clips to learn from."""
        return len(self._learn)

    def train_epoch(self) -> None:
        """Makes one pass over the clips to learn from, validates, and adds a point to the curve."""
        rng = np.random.default_rng([self._config.seed, self.epoch])
        batches = self._batches(rng)
        losses = []
        for step, clips in enumerate(batches):
            self._set_rates(self.epoch + step / len(batches))
            losses.append(self._step(clips, rng))
        self.epoch += 1
        self.curve.append({"epoch": self.epoch, "loss": float(np.mean(losses)), **asdict(self.validate())})

    def choose_alpha(self) -> tuple[float, Validation]:
        """The share in `ALPHAS` with the highest validation credit, the smallest of equals, and its validation."""
        tuned, validations = self._tower.weights(), {}
        for alpha in ALPHAS:
            self._tower.set_weights(tuned, alpha)
            validations[alpha] = self.validate()
        self._tower.set_weights(tuned)
        alpha = max(ALPHAS, key=lambda alpha: validations[alpha].credit)
        return alpha, validations[alpha]

    def keep(self, alpha: float) -> None:
        """Sets the weights to (1 − α) · original + α · tuned."""
        self._tower.set_weights(self._tower.weights(), alpha)

    def validate(self) -> Validation:
        """The current weights' results on the validation clips, scored as in service."""
        embeddings = self.embeddings(self._validate)
        num_clips, figure, credit = 0, 0.0, 0.0
        for control, head, targets in zip(self._controls, self._head.controls, self._targets, strict=True):
            known = targets.known[self._validate]
            if not known.any():
                continue
            truth = targets.truth[self._validate][known]
            scores = scores_of_all(control, head, [embeddings[index] for index in np.flatnonzero(known)])
            results = report(scores, truth, [label.value for label in control.labels], multiple=control.multiple)
            precision = results.mean_average_precision
            num_clips += len(truth)
            figure += len(truth) * (results.accuracy if precision is None else precision)
            credit += len(truth) * _credit(scores, truth, multiple=control.multiple)
        return Validation(figure / max(num_clips, 1), credit / max(num_clips, 1))

    @torch.no_grad()
    def embeddings(self, clips: Indices) -> list[Array]:
        """Each clip's embeddings `[W, D]` with the current weights."""
        rows = [self._hidden.unchanged_rows(int(clip)) for clip in clips]
        if not rows:
            return []
        hidden = self._hidden.rows(np.concatenate(rows))

        def attempt(size: int) -> torch.Tensor:
            return torch.cat([self._tower.upper(part.to(self._device)) for part in torch.split(hidden, size)])

        embeddings = self._portion.run(attempt).cpu().numpy()
        return np.split(embeddings, np.cumsum([len(part) for part in rows])[:-1])

    def state(self) -> dict[str, Any]:
        """The state with which `load_state` continues exactly where this one stopped."""
        return {
            "epoch": self.epoch,
            "curve": self.curve,
            "weights": self._tower.weights(),
            "optimiser": self._optimiser.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores a state that `state` returned."""
        self.epoch, self.curve = state["epoch"], list(state["curve"])
        self._tower.set_weights(state["weights"])
        self._optimiser.load_state_dict(state["optimiser"])

    def _labelled(self, embeddings: Sequence[Array]) -> dict[str, LabelledEmbeddings]:
        """The labelled embeddings of the clips to learn from, by control."""
        by_control = {}
        means = _means(embeddings)
        for control, targets in zip(self._controls, self._targets, strict=True):
            known = targets.known[self._learn]
            if known.any():
                clips = self._learn[known]
                truth, weights = targets.truth[clips].astype(np.float32), self._weights[clips].astype(np.float32)
                by_control[control.name] = LabelledEmbeddings(means[known], truth, weights)
        return by_control

    def _batches(self, rng: np.random.Generator) -> list[Indices]:
        """An epoch's batches of clips, balanced over the labels."""
        targets = [Targets(part.truth[self._learn], part.known[self._learn]) for part in self._targets]
        order = self._learn[balanced_order(targets, self._weights[self._learn], rng)]
        min_batches = min(self._config.min_steps, len(order) // 2)
        return np.array_split(order, max(1, min_batches, math.ceil(len(order) / self._config.batch_size)))

    def _set_rates(self, epoch: float) -> None:
        """Sets the learning rates: a linear rise over the first epoch, times a cosine down to zero."""
        factor = min(1.0, epoch + 0.1) * (1 + math.cos(math.pi * epoch / self._config.epochs)) / 2
        for group, peak in zip(self._optimiser.param_groups, self._peak_rates, strict=True):
            group["lr"] = peak * factor

    def _step(self, clips: Indices, rng: np.random.Generator) -> float:
        """Takes one optimiser step on the batch and returns its loss."""
        batch = self._batch(clips, rng)

        def attempt(portion: int) -> float:
            self._optimiser.zero_grad()
            anchoring = self._config.anchor * self._tower.anchor_distance()
            anchoring.backward()  # type: ignore[no-untyped-call]
            parts = zip(*(torch.split(values, portion) for values in batch), strict=True)
            return float(anchoring.item()) + sum(self._backward(list(part), len(clips)) for part in parts)

        loss = self._portion.run(attempt)
        if not math.isfinite(loss):
            raise TrainingError("Training diverged: its loss is no longer a finite number. Try again with lower rates.")
        self._optimiser.step()
        return loss

    def _batch(self, clips: Indices, rng: np.random.Generator) -> list[torch.Tensor]:
        """Hidden states, original embeddings, and each control's truth `[B, L]` and known `[B, 1]`, all after mixup."""
        rows = self._hidden.draw(clips, rng)
        windows = np.searchsorted(self._unchanged_rows, rows, side="right") - 1
        batch = [self._hidden.rows(rows), self._original[windows]]
        for targets in self._targets:
            batch.append(torch.from_numpy(targets.truth[clips].astype(np.float32)))
            batch.append(torch.from_numpy(targets.known[clips].astype(np.float32))[:, None])
        if self._config.mixup == 0:
            return batch
        share = torch.from_numpy(rng.beta(self._config.mixup, self._config.mixup, len(clips)).astype(np.float32))
        partner = torch.from_numpy(rng.permutation(len(clips)))
        return [_mixed(values, share, partner) for values in batch]

    def _backward(self, batch: Sequence[torch.Tensor], num_clips: int) -> float:
        """Adds the gradients of a portion of the batch and returns its share of the loss."""
        hidden, original, *targets = (values.to(self._device) for values in batch)
        embeddings = self._tower.upper(hidden)
        loss = self._config.keep * (1 - cosine_similarity(embeddings, original)).sum()
        answers = zip(targets[::2], targets[1::2], strict=True)
        for control, (weights, bias), (truth, known) in zip(self._controls, self._rows, answers, strict=True):
            loss = loss + label_loss(embeddings @ weights.T + bias, truth, known, multiple=control.multiple)
        loss = loss / num_clips
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.item())


def _mixed(values: torch.Tensor, share: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
    """share · values + (1 − share) · the partner's values, `[B, …]` (mixup)."""
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    return share * values + (1 - share) * values[partner]


def _means(embeddings: Sequence[Array]) -> Array:
    """Each clip's unit-norm mean over its windows, `[N, D]`."""
    return np.stack([mean_direction(part) for part in embeddings])


def _credit(scores: Array, truth: Truth, *, multiple: bool) -> float:
    """The mean score of the true labels; where labels don't exclude each other, averaged with 1 − that of the rest."""
    if not multiple:
        return float(scores[truth].mean())
    halves = [values.mean() for values in (scores[truth], 1 - scores[~truth]) if values.size]
    return float(np.mean(halves))

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest

from clapboard.labels.label_space import Control, Label, LabelSpace
from clapboard.suggest.head import Head, zero_shot_head
from training.fit_head import LabelledEmbeddings, fit_head

Array = npt.NDArray[np.float32]

DIM = 64
SCALE = 12.0


@dataclass(frozen=True)
class World:
    """Clusters on the unit sphere around a common offset, as audio embeddings are, and where each class lies."""

    places: Array  # [L, D]
    rng: np.random.Generator

    def clips(self, labels: list[int]) -> Array:
        noise = self.rng.normal(size=(len(labels), DIM)) / np.sqrt(DIM)
        return unit(self.places[labels] + 0.9 * noise)


def world(num_classes: int, seed: int = 1) -> World:
    rng = np.random.default_rng(seed)
    return World(unit(rng.normal(size=(num_classes, DIM))) + 0.5 * unit(rng.normal(size=(1, DIM))), rng)


def unit(vectors: npt.NDArray[np.floating]) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def label_space(num_classes: int, *, multiple: bool = False) -> LabelSpace:
    labels = tuple(Label(f"kind {i}", (f"kind {i}",), (f"kind {i}",)) for i in range(num_classes))
    return LabelSpace("audio", "audio", (Control("sound", "choices", "audio", labels, multiple, False, None),))


def texts_head(space: LabelSpace, texts: Array) -> Head:
    neutral = unit(texts.mean(axis=0, keepdims=True))
    return zero_shot_head(space, np.concatenate([texts, neutral]), SCALE)


def knowing_texts(made: World) -> Array:
    return unit(made.places + 0.3 * unit(made.rng.normal(size=made.places.shape)))


def ignorant_texts(made: World) -> Array:
    return unit(made.rng.normal(size=made.places.shape))


def labelled(embeddings: Array, labels: list[int], num_classes: int, weight: float = 1.0) -> LabelledEmbeddings:
    targets = np.eye(num_classes, dtype=np.float32)[labels]
    return LabelledEmbeddings(embeddings, targets, np.full(len(labels), weight, np.float32))


def fit_single(made: World, texts: Array, labels: list[int], pool: Array | None = None) -> Head:
    clips = made.clips(labels)
    space = label_space(len(texts))
    pool = clips if pool is None else pool
    return fit_head(space, texts_head(space, texts), {"sound": labelled(clips, labels, len(texts))}, pool)


def accuracy(head: Head, clips: Array, labels: list[int]) -> float:
    return float((head.controls[0].logits(clips).argmax(axis=1) == labels).mean())


def test_texts_that_the_labels_agree_with_are_kept() -> None:
    made = world(8)
    texts = knowing_texts(made)
    truth = list(range(8)) * 20
    clips = made.clips(truth)
    zero_shot = accuracy(texts_head(label_space(8), texts), clips, truth)

    one_a_class = fit_single(made, texts, list(range(8)), clips)

    assert zero_shot > 0.9
    assert accuracy(one_a_class, clips, truth) >= zero_shot


def test_texts_that_the_labels_contradict_are_dropped() -> None:
    made = world(8)
    texts = ignorant_texts(made)
    truth = list(range(8)) * 20
    clips = made.clips(truth)
    support = made.clips(list(range(8)) * 2)
    prototypes = unit(support[:8] + support[8:])
    space = label_space(8)

    head = fit_head(space, texts_head(space, texts), {"sound": labelled(support, list(range(8)) * 2, 8)}, clips)

    assert accuracy(texts_head(space, texts), clips, truth) < 0.3
    by_prototype = float(((clips @ prototypes.T).argmax(axis=1) == truth).mean())
    assert accuracy(head, clips, truth) >= by_prototype - 0.02


def test_a_text_that_is_near_to_every_clip_stops_winning_after_one_label_a_class() -> None:
    made = world(8)
    common = made.places.mean(axis=0)
    texts = unit(made.places - common + np.outer(np.linspace(-3.0, 3.0, 8), common))
    truth = list(range(8)) * 20
    clips = made.clips(truth)

    head = fit_single(made, texts, list(range(8)), clips)

    assert accuracy(head, clips, truth) > accuracy(texts_head(label_space(8), texts), clips, truth) + 0.2


def test_more_labels_never_end_below_the_texts() -> None:
    made = world(6, seed=3)
    texts = knowing_texts(made)
    truth = list(range(6)) * 30
    clips = made.clips(truth)
    zero_shot = accuracy(texts_head(label_space(6), texts), clips, truth)

    figures = [accuracy(fit_single(made, texts, list(range(6)) * shots, clips), clips, truth) for shots in (1, 4, 16)]

    assert min(figures) >= zero_shot
    assert figures[-1] >= 0.95


def test_a_class_without_labels_goes_on_working_from_its_text() -> None:
    made = world(8)
    texts = knowing_texts(made)
    new = [7] * 60
    new_clips = made.clips(new)
    pool = made.clips(list(range(8)) * 10)

    head = fit_single(made, texts, [label for label in range(7) for _ in range(8)], pool)

    assert accuracy(head, new_clips, new) >= accuracy(texts_head(label_space(8), texts), new_clips, new) - 0.05


@pytest.mark.parametrize("shots", [1, 8])
def test_two_labelled_classes_dont_drive_the_others_out(shots: int) -> None:
    made = world(10)
    texts = knowing_texts(made)
    others = list(range(2, 10)) * 10
    clips = made.clips(others)

    head = fit_single(made, texts, [0, 1] * shots, clips)

    assert accuracy(head, clips, others) >= accuracy(texts_head(label_space(10), texts), clips, others) - 0.02


def test_without_labels_to_compare_the_head_is_zero_shot() -> None:
    made = world(4)
    space = label_space(4)
    zero_shot = texts_head(space, knowing_texts(made))
    clips = made.clips([2, 2, 2])
    nothing = LabelledEmbeddings(clips[:0], np.zeros((0, 4), np.float32), np.zeros(0, np.float32))

    unnamed = fit_head(space, zero_shot, {}, clips)
    empty = fit_head(space, zero_shot, {"sound": nothing}, clips)
    one_class = fit_head(space, zero_shot, {"sound": labelled(clips, [2, 2, 2], 4)}, clips)
    weightless = fit_head(space, zero_shot, {"sound": labelled(clips, [0, 1, 2], 4, weight=0.0)}, clips)

    assert {head.name for head in (unnamed, empty, one_class, weightless)} == {zero_shot.name}


def test_each_control_learns_from_its_own_labels() -> None:
    made = world(4)
    texts = ignorant_texts(made)
    one = label_space(4).controls[0]
    space = LabelSpace("audio", "audio", (replace(one, name="first"), replace(one, name="second")))
    zero_shot = zero_shot_head(space, np.concatenate([texts, texts, texts[:1]]), SCALE)
    labels = list(range(4)) * 4
    clips = made.clips(labels)

    head = fit_head(space, zero_shot, {"second": labelled(clips, labels, 4)}, clips)

    assert np.array_equal(head.controls[0].weights, zero_shot.controls[0].weights)
    assert (head.controls[1].logits(clips).argmax(axis=1) == labels).all()


def test_labels_that_may_hold_together_are_learnt_each_for_itself() -> None:
    made = world(5)
    texts = ignorant_texts(made)
    space = label_space(5, multiple=True)
    pairs = [(first, second) for first in range(5) for second in range(5) if first != second]
    targets = np.array([np.eye(5)[list(pair)].sum(axis=0) for pair in pairs * 3], np.float32)
    clips = unit(made.clips([a for a, _ in pairs * 3]) + made.clips([b for _, b in pairs * 3]))
    labels = LabelledEmbeddings(clips[:40], targets[:40], np.ones(40, np.float32))

    head = fit_head(space, texts_head(space, texts), {"sound": labels}, clips)

    right = (head.controls[0].logits(clips[40:]) > 0) == (targets[40:] > 0)
    assert right.mean() > 0.85


def test_a_label_that_may_hold_with_others_and_has_no_labels_yet_keeps_the_order_of_its_text() -> None:
    made = world(4)
    texts = knowing_texts(made)
    space = label_space(4, multiple=True)
    zero_shot = texts_head(space, texts)
    labels = [0, 1, 2] * 6
    clips = made.clips([0, 1, 2, 3] * 5)

    head = fit_head(space, zero_shot, {"sound": labelled(made.clips(labels), labels, 4)}, clips)

    before, after = zero_shot.controls[0].logits(clips)[:, 3], head.controls[0].logits(clips)[:, 3]
    assert np.array_equal(np.argsort(before), np.argsort(after))


def test_a_label_that_counts_less_moves_the_head_less() -> None:
    made = world(4)
    space = label_space(4)
    zero_shot = texts_head(space, ignorant_texts(made))
    labels = list(range(4)) * 2
    clips = made.clips(labels)

    def own_margin(weight: float) -> float:
        head = fit_head(space, zero_shot, {"sound": labelled(clips, labels, 4, weight)}, clips)
        logits = head.controls[0].logits(clips)
        return float((logits[np.arange(8), labels] - logits.mean(axis=1)).mean())

    assert own_margin(0.3) < own_margin(1.0)


def test_the_same_labels_give_the_same_head() -> None:
    first, second = (fit_single(world(6), ignorant_texts(world(6)), list(range(6)) * 3) for _ in range(2))

    assert first.name == second.name


def test_a_clip_labelled_twice_in_contradiction_leaves_the_rest_learnt() -> None:
    made = world(3)
    texts = ignorant_texts(made)
    space = label_space(3)
    labels = [0, 1, 2] * 6
    clips = made.clips(labels)
    contradiction = np.repeat(clips[:1], 2, axis=0)
    all_labels = labelled(np.concatenate([clips, contradiction]), [*labels, 1, 2], 3)

    head = fit_head(space, texts_head(space, texts), {"sound": all_labels}, clips)

    assert accuracy(head, clips[3:], labels[3:]) == 1.0


@pytest.mark.parametrize("multiple", [False, True])
@pytest.mark.parametrize(
    ("num_classes", "labels"),
    [
        (1, [0]),
        (1, [0, 0, 0]),
        (2, [0]),
        (2, [0] * 200 + [1]),
        (200, list(range(200)) * 2),
        (200, [3, 5]),
        (3, [0, 1] * 2500),
    ],
)
def test_any_labels_give_finite_numbers(num_classes: int, labels: list[int], multiple: bool) -> None:
    made = world(num_classes)
    space = label_space(num_classes, multiple=multiple)
    clips = made.clips(labels)

    head = fit_head(
        space,
        texts_head(space, knowing_texts(made)),
        {"sound": labelled(clips, labels, num_classes)},
        clips,
    ).controls[0]

    assert np.isfinite(head.weights).all()
    assert np.isfinite(head.bias).all()
    assert np.isfinite(head.logits(clips)).all()
    assert head.weights.dtype == head.bias.dtype == np.float32


@pytest.mark.parametrize("multiple", [False, True])
def test_clips_that_all_sound_the_same_give_finite_numbers(multiple: bool) -> None:
    made = world(3)
    space = label_space(3, multiple=multiple)
    clips = np.repeat(made.clips([0]), 6, axis=0)

    head = fit_head(
        space, texts_head(space, knowing_texts(made)), {"sound": labelled(clips, [0, 1, 2] * 2, 3)}, clips[:0]
    ).controls[0]

    assert np.isfinite(head.logits(clips)).all()


def test_a_clip_with_no_label_that_may_hold_speaks_against_the_labels_that_others_have() -> None:
    made = world(2)
    space = label_space(2, multiple=True)
    zero_shot = texts_head(space, ignorant_texts(made))
    clips = made.clips([0] * 10 + [1] * 10)
    targets = np.zeros((20, 2), np.float32)
    targets[:10, 0] = 1.0

    head = fit_head(space, zero_shot, {"sound": LabelledEmbeddings(clips, targets, np.ones(20, np.float32))}, clips)

    logits = head.controls[0].logits(made.clips([0] * 10 + [1] * 10))[:, 0]
    assert (logits[:10] > 0).mean() > 0.8
    assert (logits[10:] < 0).mean() > 0.8

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from tests.training.labelled_sounds import KINDS, label_space, labelled_sounds
from training.finetune import FinetuneConfig, Progress, finetune
from training.finetuning.cross_fitting import Contenders, assign_folds, cross_fit, enough_evidence
from training.finetuning.labelled import LabelledClip
from training.gate import Trial

pytestmark = pytest.mark.usefixtures("one_torch_thread")

QUICK = FinetuneConfig(rung="projection", epochs=4, num_views=1, min_steps=1, projection_rate=1e-3, dtype="float32")
BY_BASE = Contenders(served=None, served_by_texts=False, base=None)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledClip]:
    sounds = labelled_sounds(tmp_path_factory.mktemp("sounds"))
    return [replace(clip, evidence=("label",), weight=1.0) for clip in sounds]


class Stopped(Exception):
    """The run is killed."""


def fitted(
    base: Path, clips: Sequence[LabelledClip], out: Path, *, kill_at_fold: int = 0, told: list[Progress] | None = None
) -> Trial:
    def on_progress(progress: Progress) -> None:
        if told is not None:
            told.append(progress)
        if kill_at_fold and progress.fold == kill_at_fold:
            raise Stopped

    (trial,) = cross_fit(
        str(base), label_space(), clips, QUICK, out, trainable_stages="projection", alpha=1.0, num_folds=3,
        contenders=BY_BASE, device="cpu", on_progress=on_progress,
    )  # fmt: skip
    return trial


def scores_of(trial: Trial, group: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    row = list(trial.groups).index(group)
    return np.stack([trial.candidate[row], trial.in_service[row]])


def test_folds_keep_recordings_together_and_spread_each_label(clips: list[LabelledClip]) -> None:
    pairs = [replace(clip, group=f"{clip.targets['label'][0]} {number // 2}") for number, clip in enumerate(clips)]
    folds = assign_folds(pairs, 3, seed=0)
    assert set(folds) == {1, 2, 3}
    assert len({(clip.group, fold) for clip, fold in zip(pairs, folds, strict=True)}) == len({c.group for c in pairs})
    counts = Counter((clip.targets["label"][0], int(fold)) for clip, fold in zip(pairs, folds, strict=True))
    assert all(2 <= counts[kind, fold] <= 4 for kind in KINDS for fold in (1, 2, 3))
    assert (assign_folds(pairs, 3, seed=0) == folds).all()


def test_no_clips_label_has_a_say_in_the_answers_for_its_own_fold(
    tiny_clap: Path, clips: list[LabelledClip], tmp_path: Path
) -> None:
    in_order = sorted(clips, key=lambda clip: str(clip.path))
    folds = assign_folds(in_order, 3, seed=0)

    def exchanged(first: int, second: int) -> list[LabelledClip]:
        """The clips with these two's labels exchanged."""
        others = list(in_order)
        others[first] = replace(in_order[first], targets=in_order[second].targets)
        others[second] = replace(in_order[second], targets=in_order[first].targets)
        return others

    first, second = next(
        (a, b)
        for a, b in combinations(range(len(in_order)), 2)
        if folds[a] == folds[b]
        and in_order[a].targets != in_order[b].targets
        and (assign_folds(exchanged(a, b), 3, seed=0) == folds).all()
    )
    before = fitted(tiny_clap, in_order, tmp_path / "before")
    after = fitted(tiny_clap, exchanged(first, second), tmp_path / "after")
    for index, clip in enumerate(in_order):
        equal = np.array_equal(scores_of(before, clip.group), scores_of(after, clip.group))
        assert equal == (folds[index] == folds[first]), clip.group
    assert before.folds == [int(fold) for fold in sorted(folds)]
    assert not np.array_equal(before.candidate, before.in_service)


def test_it_continues_from_the_candidates_hidden_states_and_after_a_kill_from_the_last_epoch(
    tiny_clap: Path, clips: list[LabelledClip], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    finetune(str(tiny_clap), label_space(), clips, QUICK, out, device="cpu", keep_hidden_states=True)
    told: list[Progress] = []
    with pytest.raises(Stopped):
        fitted(tiny_clap, clips, out, kill_at_fold=2, told=told)
    killed = fitted(tiny_clap, clips, out, told=told)
    assert [(progress.fold, progress.epoch) for progress in told] == [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)]
    assert {progress.folds for progress in told} == {3}
    whole = fitted(tiny_clap, clips, tmp_path / "whole")
    np.testing.assert_array_equal(killed.candidate, whole.candidate)


def test_labels_that_may_not_judge_are_learnt_but_not_answered(
    tiny_clap: Path, clips: list[LabelledClip], tmp_path: Path
) -> None:
    some = [replace(clip, evidence=()) if number % 2 else clip for number, clip in enumerate(clips)]
    trial = fitted(tiny_clap, some, tmp_path)
    assert sorted(trial.groups) == sorted(clip.group for clip in some if clip.evidence)
    assert enough_evidence(some, 3)
    assert not enough_evidence(some, 0)
    assert not enough_evidence([replace(clip, evidence=()) for clip in clips[:21]] + clips[:9], 3)

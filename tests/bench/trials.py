"""`python -m tests.bench.trials`: what trials find after the gate, and what they decide by mistake, by simulation.

The pairs of versions are those of `tests.bench.gate`: each hears with noise of its own, of such strength that heads
fitted to its embeddings reach a stated accuracy. The clips that are neither learnt from nor held out are labelled one
by one, in random order, and answer for the trial; the verdicts are those in service. `--lean` has people take what they
are shown, the suggestion of the version that serves, in that share of the clips on which it is wrong.

ESC-10 has all four folds here, because trials need 200 further clips: `mini` learnt from folds 1 to 3.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from clapboard.store.trials import Answer, Kind, State, Trial
from clapboard.suggest.scoring import Array
from tests.bench import gate
from tests.bench.gate import Draw, Indices, Sounds
from training.finetuning.cross_fitting import assign_folds
from training.finetuning.judging import FIRST_SHARE
from training.gate import GATE_SHARE, judge
from training.significance import allowed_chance, nearness
from training.trial_verdict import judge_trial
from training.verdict import Likely, Verdict
from workers.head_trials import ALPHA

CANARY_LABELS, HEAD_LABELS = 200, 60


@dataclass(frozen=True)
class Goal:
    """A share that is to be reached, or not to be passed."""

    share: float
    at_most: bool = False

    def line(self, what: str, reached: Sequence[bool], labels: Sequence[int] = ()) -> tuple[str, bool]:
        """The row, and whether the goal is missed."""
        share = float(np.mean(reached))
        missed = share > self.share if self.at_most else share < self.share
        median = f", after {np.median(labels):.0f} labels in the middle" if len(labels) else ""
        bound = f"goal {'≤' if self.at_most else '≥'} {self.share:.2f}"
        return f"{what}: {share:.2f} of {len(reached)}{median} ({bound}{', missed' if missed else ''})", missed


def esc10(folder: Path, source: Path) -> Sounds:
    """All of ESC-10."""
    with (source / "esc10.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    paths = [source / "audio" / row["filename"] for row in rows]
    labels, groups = ([row[name] for row in rows] for name in ("category", "freesound_id"))
    return gate.sounds_of("ESC-10", paths, labels, groups, folder / "esc10-whole.npz")


@dataclass
class Simulation:
    """Draws of pairs from one set of sounds."""

    sounds: Sounds
    shots: int
    lean: float

    def strength(self, accuracy: float) -> float:
        """The strength of noise at which heads reach the accuracy."""
        return gate.strength_for(self.sounds, accuracy, self.shots, 6)

    def candidates(self, served: float, better: float, seed: int, num_candidates: int = 1) -> list[tuple[bool, int]]:
        """Of so many candidates, one after the other until one is promoted: whether it is, after how many labels."""
        rng = np.random.default_rng([3, seed])
        draw = self.sounds.draw(rng, self.shots)
        folds = assign_folds([self.sounds.clips[index] for index in draw.learnt], gate.NUM_FOLDS, seed)
        shared = rng.standard_normal(self.sounds.embeddings.shape)
        before = gate.answers(self.sounds, gate.heard(self.sounds, rng, served, shared), draw, folds)
        texts, looked, num_trials = gate.by_texts(self.sounds, draw), {"held out": [], "all": []}, 0
        outcomes: list[tuple[bool, int]] = []
        for number in range(num_candidates):
            after = gate.answers(self.sounds, gate.heard(self.sounds, rng, better, shared), draw, folds)
            pair = gate.trial(self.sounds, draw, folds, after, before, texts)
            verdict = self._gate(pair, len(draw.held_out), looked)
            outcomes.append((verdict.promote, 0))
            if not verdict.promote and verdict.likely:
                num_trials += 1
                canary = self._canary(verdict.likely, num_trials, 100 * seed + number)
                answers = self.labelled(rng, draw, after.rest, before.rest, shown=before.rest)[:CANARY_LABELS]
                end = judge_trial(canary, answers)
                outcomes[-1] = (
                    end is not None and end.state is State.PROMOTED,
                    end.num_labels if end else len(answers),
                )
            if outcomes[-1][0]:
                break
        return outcomes

    def head(self, served: float, worse: float, seed: int) -> tuple[bool, int]:
        """Whether a head is rolled back, and after how many labels."""
        rng = np.random.default_rng([4, seed])
        draw = self.sounds.draw(rng, self.shots)
        shared = rng.standard_normal(self.sounds.embeddings.shape)
        reference, head = (
            gate.scores(self.sounds, gate.head(self.sounds, heard, draw.learnt, draw), heard, draw.rest)
            for heard in (gate.heard(self.sounds, rng, strength, shared) for strength in (served, worse))
        )
        answers = self.labelled(rng, draw, head, reference, shown=head)
        trial = Trial(1, Kind.HEAD, "head", "reference", HEAD_LABELS, ALPHA, id=seed)
        end = judge_trial(trial, answers[:HEAD_LABELS])
        return (end is not None and end.state is State.DROPPED), end.num_labels if end else HEAD_LABELS

    def labelled(
        self, rng: np.random.Generator, draw: Draw, candidate: Array, reference: Array, *, shown: Array
    ) -> list[Answer]:
        """What the other clips' labels say, in random order."""
        labels: Indices = self.sounds.labels[draw.rest].copy()
        leaning = rng.random(len(labels)) < self.lean
        labels[leaning] = shown.argmax(axis=1)[leaning]
        truth = np.eye(self.sounds.labels.max() + 1, dtype=bool)[labels]
        leads = nearness(candidate, truth, multiple=False) - nearness(reference, truth, multiple=False)
        rights = (candidate.argmax(axis=1) == labels) * 1.0 - (reference.argmax(axis=1) == labels)
        order = rng.permutation(len(labels))
        return [Answer(int(index), "", float(leads[index]), float(rights[index])) for index in order]

    def _gate(self, pair: gate.Trial, num_held_out: int, looked: dict[str, list[Sequence[str]]]) -> Verdict:
        """The gate's verdict as `training.finetuning.judging` comes to it where trials follow."""
        first = judge(
            [gate.first_clips(pair, num_held_out)],
            gate.RULES,
            earlier=looked["held out"],
            share=GATE_SHARE * FIRST_SHARE,
        )
        both = judge([pair], gate.RULES, earlier=looked["all"], share=GATE_SHARE * (1 - FIRST_SHARE))
        for verdict in (first, both):
            for look in verdict.looks:
                looked[look.look].append(look.recordings)
        return first if first.promote else both

    def _canary(self, likely: Likely, number: int, seed: int) -> Trial:
        alpha = allowed_chance((1 - GATE_SHARE) * gate.RULES.alpha, number)
        evidence = {
            "leads": likely.leads,
            "num_folds": likely.num_folds,
            "right": likely.right,
            "alpha": likely.allowed,
        }
        return Trial(1, Kind.CANARY, "c", "r", CANARY_LABELS, alpha, evidence=evidence, id=seed)


def main(
    folder: Annotated[Path, typer.Option(help="keeps clips and embeddings for the next run")],
    esc: Annotated[Path, typer.Option("--esc10", help="folder with esc10.csv and audio/")],
    draws: Annotated[int, typer.Option(min=2)] = 200,
    series: Annotated[int, typer.Option(min=1, help="series of 20 candidates that are no better")] = 100,
    shots: Annotated[int, typer.Option(min=4, help="labels a class")] = 16,
    lean: Annotated[float, typer.Option(min=0, max=1)] = 0.0,
    only: Annotated[str, typer.Option(help="pump or ESC-10")] = "",
) -> None:
    """Print the shares beside their goals. Exit code 1 if one is missed."""
    folder.mkdir(parents=True, exist_ok=True)
    missed = False
    for make in (lambda: gate.pump(folder), lambda: esc10(folder, esc)):
        simulation = Simulation(make(), shots, lean)
        name = simulation.sounds.name
        if only not in name:
            continue
        served = simulation.strength(gate.ACCURACY)
        better = {gain: simulation.strength(gate.ACCURACY + gain) for gain in (0.02, 0.05)}
        worse = simulation.strength(gate.ACCURACY - 0.05)
        for gain, goal in ((0.05, Goal(0.8)), (0.02, Goal(0.5))):
            ended = [simulation.candidates(served, better[gain], seed)[-1] for seed in range(draws)]
            line, is_missed = goal.line(f"{name}, {shots} a class, gain {gain}: promoted", [won for won, _ in ended])
            missed |= is_missed
            typer.echo(line)
        by_mistake = [simulation.candidates(served, served, seed, 20)[-1][0] for seed in range(series)]
        heads = [simulation.head(served, worse, seed) for seed in range(draws)]
        alarms = [simulation.head(served, served, seed)[0] for seed in range(draws)]
        gone, labels = [won for won, _ in heads], [number for won, number in heads if won]
        for line, is_missed in (
            Goal(0.05, at_most=True).line(f"{name}, any of 20 candidates that are no better: promoted", by_mistake),
            Goal(0.9).line(f"{name}, a head worse by 0.05: rolled back", gone, labels),
            Goal(0.05, at_most=True).line(f"{name}, a head that is as good: rolled back", alarms),
        ):
            missed |= is_missed
            typer.echo(line)
    raise typer.Exit(int(missed))


if __name__ == "__main__":
    typer.run(main)

"""`python -m tests.bench.gate`: what the gate finds, and what it lets through by mistake, by simulation.

Pairs of versions with a stated true gain: a version's encoder hears each clip with noise of its own, of such strength
that heads fitted to its embeddings reach a stated accuracy. So a pair needs no training, and hundreds of draws take
minutes. A candidate that is no better hears with as much noise as the version in service. Everything after the
embeddings is the code in service: folds, heads, verdict.

Beside the gate stand the same by held-out clips alone, by right answers alone, and the best that any test of these
scores could do: a likelihood ratio that knows the distributions under both hypotheses, at a level set on other
candidates that are no better. It knows how bold the scores of a better encoder are, so no real test comes near it.
`--finetunings` adds real ones, as a worker runs them.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from sklearn.ensemble import HistGradientBoostingClassifier

from clapboard.labels.label_space import LabelSpace, label_space_of
from clapboard.model.clap import ClapEncoder
from clapboard.suggest.head import Head, scores_of_all, zero_shot_head
from clapboard.suggest.prediction import compute_class_weights
from clapboard.suggest.scoring import Array, mean_direction
from demo.clips import label_config, make_pump_clips
from training.finetuning.cross_fitting import assign_folds
from training.finetuning.judging import FIRST_SHARE
from training.finetuning.labelled import LabelledClip
from training.finetuning.run import run
from training.finetuning.spec import SERVED_HEAD, ClipSpec, RunSpec
from training.fit_head import LabelledEmbeddings, fit_head
from training.gate import Rules, Trial, judge
from training.significance import chance_of_lead

NUM_PUMP_CLIPS = 600
NUM_FOLDS = 3
NUM_CANDIDATES = 20
ACCURACY = 0.8  # of the version in service
SHARED_NOISE = 0.9  # of the noise's variance, both versions of a pair hear the same
RULES = Rules(num_exchanges=20_000)

Indices = npt.NDArray[np.int64]
Rows = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sounds:
    """A set of labelled clips with their embeddings `[N, D]`."""

    name: str
    label_space: LabelSpace
    zero_shot: Head
    embeddings: Array
    labels: Indices
    clips: tuple[LabelledClip, ...]
    paths: tuple[Path, ...]

    def draw(self, rng: np.random.Generator, shots: int) -> Draw:
        """`shots` labelled clips a class, a tenth of the set held out, and the rest for the truth."""
        order = rng.permutation(len(self.labels))
        by_label = [order[self.labels[order] == label] for label in range(self.labels.max() + 1)]
        aside = max(2, round(0.1 * len(self.labels) / len(by_label) / 4))  # people label a part of the held-out tenth
        cuts = [np.split(indices, [shots, shots + aside]) for indices in by_label]
        learnt, held_out, rest = (np.concatenate([cut[part] for cut in cuts]) for part in range(3))
        return Draw(learnt, held_out, rest)


@dataclass(frozen=True)
class Draw:
    """The clips that are learnt from, those held out, and those that tell the truth."""

    learnt: Indices
    held_out: Indices
    rest: Indices


@dataclass(frozen=True)
class Answers:
    """A version's scores of the labelled clips (cross-fitted), the held-out ones and the rest."""

    learnt: Array
    held_out: Array
    rest: Array


@dataclass(frozen=True)
class Pair:
    """A drawn pair of versions: what the gate said, and what other tests would have."""

    promoted: bool
    by_held_out: bool
    by_right_answers: bool
    features: Rows  # of each judged clip, for the likelihood ratio
    gain: float  # in accuracy on the rest


def heard(sounds: Sounds, rng: np.random.Generator, strength: float, shared: Rows) -> Array:
    """The embeddings as an encoder gives them that hears with noise of this strength."""
    own = rng.standard_normal(shared.shape)
    noise = np.sqrt(SHARED_NOISE) * shared + np.sqrt(1 - SHARED_NOISE) * own
    noisy = sounds.embeddings + strength / np.sqrt(shared.shape[1]) * noise
    return (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)


def head(sounds: Sounds, embeddings: Array, learn: Indices, draw: Draw) -> Head:
    """The head that is fitted to these clips' labels."""
    truth = np.eye(sounds.labels.max() + 1, dtype=np.float32)[sounds.labels[learn]]
    labelled = LabelledEmbeddings(embeddings[learn], truth, np.ones(len(learn), np.float32))
    (control,) = sounds.label_space.predicted
    pool = embeddings[np.concatenate([draw.learnt, draw.rest])]
    return fit_head(sounds.label_space, sounds.zero_shot, {control.name: labelled}, pool)


def scores(sounds: Sounds, fitted: Head, embeddings: Array, clips: Indices) -> Array:
    """Scores `[N, L]` of the clips."""
    (control,) = sounds.label_space.predicted
    return scores_of_all(control, fitted.controls[0], [embeddings[clip][None] for clip in clips])


def answers(sounds: Sounds, embeddings: Array, draw: Draw, folds: Indices) -> Answers:
    """What a version answers: for labelled clips, by heads fitted to the other folds."""
    by_others = np.zeros((len(draw.learnt), sounds.labels.max() + 1), np.float32)
    for fold in np.unique(folds):
        fitted = head(sounds, embeddings, draw.learnt[folds != fold], draw)
        by_others[folds == fold] = scores(sounds, fitted, embeddings, draw.learnt[folds == fold])
    fitted = head(sounds, embeddings, draw.learnt, draw)
    return Answers(by_others, *(scores(sounds, fitted, embeddings, part) for part in (draw.held_out, draw.rest)))


def trial(sounds: Sounds, draw: Draw, folds: Indices, candidate: Answers, served: Answers, texts: Answers) -> Trial:
    """The trial on held-out and cross-fitted clips."""
    judged = np.concatenate([draw.held_out, draw.learnt])
    (control,) = sounds.label_space.predicted
    candidate_scores, served_scores, text_scores = (
        np.concatenate([version.held_out, version.learnt]) for version in (candidate, served, texts)
    )
    return Trial(
        control.name,
        tuple(label.value for label in control.labels),
        False,
        [sounds.clips[index].group for index in judged],
        np.eye(sounds.labels.max() + 1, dtype=bool)[sounds.labels[judged]],
        candidate_scores,
        served_scores,
        text_scores,
        [0] * len(draw.held_out) + folds.tolist(),
    )


def look(contenders: Trial, num_held_out: int, earlier: dict[str, list[Sequence[str]]]) -> tuple[bool, bool]:
    """Whether the gate promotes: after its look at the held-out clips, or at all; it notes down what it looked at."""
    alone = first_clips(contenders, num_held_out)
    first = judge([alone], RULES, earlier=earlier["held out"], share=FIRST_SHARE)
    both = judge([contenders], RULES, earlier=earlier["all"], share=1 - FIRST_SHARE)
    for verdict in (first, both):
        for looked in verdict.looks:
            earlier[looked.look].append(looked.recordings)
    return first.promote, first.promote or both.promote


def first_clips(contenders: Trial, num_held_out: int) -> Trial:
    """The trial on the held-out clips alone."""
    part = slice(0, num_held_out)
    return replace(
        contenders,
        groups=contenders.groups[part],
        truth=contenders.truth[part],
        candidate=contenders.candidate[part],
        in_service=contenders.in_service[part],
        zero_shot=contenders.zero_shot[part],
        folds=(),
    )


def strength_for(sounds: Sounds, accuracy: float, shots: int, num_draws: int) -> float:
    """The strength of noise at which heads fitted to `shots` labels a class reach the accuracy, by bisection."""

    def reached(strength: float) -> float:
        values = []
        for seed in range(num_draws):
            rng = np.random.default_rng([7, seed])
            draw = sounds.draw(rng, shots)
            embeddings = heard(sounds, rng, strength, rng.standard_normal(sounds.embeddings.shape))
            fitted = head(sounds, embeddings, draw.learnt, draw)
            values.append(_accuracy(sounds, scores(sounds, fitted, embeddings, draw.rest), draw.rest))
        return float(np.mean(values))

    weak, strong = 0.0, 8.0
    for _ in range(9):
        middle = (weak + strong) / 2
        weak, strong = (middle, strong) if reached(middle) > accuracy else (weak, middle)
    return (weak + strong) / 2


def pairs(sounds: Sounds, served: float, better: float, shots: int, num_draws: int, stream: int) -> Iterator[Pair]:
    """Draws with the strengths of noise with which the version in service and the candidate hear."""
    for seed in range(num_draws):
        rng = np.random.default_rng([stream, seed])
        draw = sounds.draw(rng, shots)
        folds = assign_folds([sounds.clips[index] for index in draw.learnt], NUM_FOLDS, seed)
        shared = rng.standard_normal(sounds.embeddings.shape)
        before = answers(sounds, heard(sounds, rng, served, shared), draw, folds)
        after = answers(sounds, heard(sounds, rng, better, shared), draw, folds)
        contenders = trial(sounds, draw, folds, after, before, by_texts(sounds, draw))
        by_held_out, promoted = look(contenders, len(draw.held_out), {"held out": [], "all": []})
        gain = _accuracy(sounds, after.rest, draw.rest) - _accuracy(sounds, before.rest, draw.rest)
        yield Pair(promoted, by_held_out, _by_right_answers(contenders), _features(contenders), gain)


def promoted_of_twenty(sounds: Sounds, strength: float, shots: int, num_series: int) -> float:
    """The share of series of candidates that are no better, all judged on one evidence, in which any is promoted."""
    num_promoted = 0
    for seed in range(num_series):
        rng = np.random.default_rng([20, seed])
        draw = sounds.draw(rng, shots)
        folds = assign_folds([sounds.clips[index] for index in draw.learnt], NUM_FOLDS, seed)
        shared = rng.standard_normal(sounds.embeddings.shape)
        before = answers(sounds, heard(sounds, rng, strength, shared), draw, folds)
        texts, earlier = by_texts(sounds, draw), {"held out": [], "all": []}
        for _ in range(NUM_CANDIDATES):
            after = answers(sounds, heard(sounds, rng, strength, shared), draw, folds)
            if look(trial(sounds, draw, folds, after, before, texts), len(draw.held_out), earlier)[1]:
                num_promoted += 1
                break
    return num_promoted / num_series


def best_possible(better: Sequence[Pair], equal: Sequence[Pair], level: float) -> float:
    """The share of better candidates that a likelihood ratio finds which knows both distributions of clips' scores."""
    half, other = (better[::2], equal[::2]), (better[1::2], equal[1::2])
    shares = []
    for (known_better, known_equal), (unseen_better, unseen_equal) in ((half, other), (other, half)):
        rows = [pair.features for pair in (*known_better, *known_equal)]
        is_better = np.repeat([True] * len(known_better) + [False] * len(known_equal), [len(part) for part in rows])
        model = HistGradientBoostingClassifier(max_iter=60, max_depth=3, random_state=0)
        model.fit(np.concatenate(rows), is_better)
        found, chance = (
            np.array([model.decision_function(pair.features).sum() for pair in part])
            for part in (unseen_better, unseen_equal)
        )
        shares.append(float((found > np.quantile(chance, 1 - level)).mean()))
    return float(np.mean(shares))


def by_texts(sounds: Sounds, draw: Draw) -> Answers:
    """Zero-shot, which any head beats here by far: its scores without a centre of their own."""
    flat = np.full(sounds.labels.max() + 1, 1 / (sounds.labels.max() + 1), np.float32)
    return Answers(*(np.tile(flat, (len(part), 1)) for part in (draw.learnt, draw.held_out, draw.rest)))


def _by_right_answers(contenders: Trial) -> bool:
    """Whether the same test would promote if it counted right answers alone."""
    true = contenders.truth.argmax(axis=1)
    right = [scores.argmax(axis=1) == true for scores in (contenders.candidate, contenders.in_service)]
    leads = np.zeros(len(set(contenders.groups)))
    place = {group: index for index, group in enumerate(sorted(set(contenders.groups)))}
    np.add.at(leads, [place[group] for group in contenders.groups], right[0].astype(float) - right[1])
    return chance_of_lead(leads, num_folds=NUM_FOLDS, num_exchanges=RULES.num_exchanges, seed=0) <= RULES.alpha / 2


def _features(contenders: Trial) -> Rows:
    """Both versions' scores of the true label, and their best others, `[N, 4]`."""
    columns = []
    for version in (contenders.candidate, contenders.in_service):
        columns += [version[contenders.truth], np.where(contenders.truth, 0, version).max(axis=1)]
    return np.stack(columns, axis=1).astype(np.float64)


def _accuracy(sounds: Sounds, version: Array, clips: Indices) -> float:
    return float((version.argmax(axis=1) == sounds.labels[clips]).mean())


# The sounds, and real finetunings


def sounds_of(name: str, paths: Sequence[Path], labels: Sequence[str], groups: Sequence[str], cache: Path) -> Sounds:
    """The clips embedded by `mini`, once."""
    space = label_space_of(tuple(sorted(set(labels))))
    encoder = ClapEncoder.load("mini", device="cpu", engine="torch")
    if not cache.is_file():
        embeddings = np.stack([mean_direction(encoder.embed_file(path)) for path in paths])
        np.savez(cache, embeddings=embeddings)
    with np.load(cache) as stored:
        embeddings = stored["embeddings"]
    zero_shot = zero_shot_head(space, compute_class_weights(space, encoder.embed_texts), encoder.logit_scale)
    names = sorted(set(labels))
    (control,) = space.predicted
    clips = [
        LabelledClip(path, group, {control.name: (label,)})
        for path, label, group in zip(paths, labels, groups, strict=True)
    ]
    return Sounds(
        name,
        space,
        zero_shot,
        embeddings,
        np.array([names.index(label) for label in labels]),
        tuple(clips),
        tuple(paths),
    )


def pump(folder: Path) -> Sounds:
    """A pump in five states, which people have to teach."""
    table = folder / "pump.csv"
    if not table.is_file():
        clips = make_pump_clips(folder / "pump", NUM_PUMP_CLIPS)
        with table.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows((clip.path, clip.label) for clip in clips)
    with table.open(encoding="utf-8", newline="") as file:
        rows = [(Path(path), label) for path, label in csv.reader(file)]
    return sounds_of(
        "pump",
        [path for path, _ in rows],
        [label for _, label in rows],
        [path.stem for path, _ in rows],
        folder / "pump.npz",
    )


def esc10(folder: Path, source: Path) -> Sounds:
    """ESC-10's folds 1 to 3. Fold 4 is for reports of what is served."""
    with (source / "esc10.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["fold"] != "4"]
    paths = [source / "audio" / row["filename"] for row in rows]
    return sounds_of(
        "ESC-10", paths, [row["category"] for row in rows], [row["freesound_id"] for row in rows], folder / "esc10.npz"
    )


def finetuning(sounds: Sounds, shots: int, seed: int) -> str:
    """A real finetuning on a draw, as a worker runs it: its verdict, and what it gained on the rest."""
    draw = sounds.draw(np.random.default_rng([5, seed]), shots)
    names = [label.value for label in sounds.label_space.predicted[0].labels]
    specs = []
    for index in np.concatenate([draw.learnt, draw.held_out]):
        is_test = bool(np.isin(index, draw.held_out))
        specs.append(
            ClipSpec(
                path=sounds.paths[index],
                group=sounds.clips[index].group,
                targets={"sound": (names[sounds.labels[index]],)},
                weight=1.0,
                is_test=is_test,
                evidence=() if is_test else ("sound",),
            )
        )
    served = head(sounds, sounds.embeddings, draw.learnt, draw)
    spec = RunSpec(
        base="mini",
        served="mini",
        served_head=served.name,
        label_config=label_config(names),
        clips=specs,
        config={"seed": seed},
        max_fall=RULES.max_fall,
        device="cpu",
        dtype="float32",
        batch_size=16,
        threads=2,
        num_folds=NUM_FOLDS,
    )
    with tempfile.TemporaryDirectory(prefix="clapboard-") as folder:
        (Path(folder) / SERVED_HEAD).write_bytes(served.to_bytes())
        return run(spec, Path(folder)).reason


def main(
    folder: Annotated[Path, typer.Option(help="keeps clips and embeddings for the next run")],
    esc: Annotated[Path, typer.Option("--esc10", help="folder with esc10.csv and audio/")],
    draws: Annotated[int, typer.Option(min=2, help="pairs for each point of the curves")] = 200,
    series: Annotated[int, typer.Option(min=1, help=f"series of {NUM_CANDIDATES} candidates that are no better")] = 100,
    shots: Annotated[int, typer.Option(min=4, help="labels a class")] = 16,
    only: Annotated[str, typer.Option(help="pump or ESC-10")] = "",
    finetunings: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Print the power curves. Exit code 1 if 5 points are found too seldom or too much is promoted by mistake."""
    folder.mkdir(parents=True, exist_ok=True)
    missed = False
    for sounds in (pump(folder), esc10(folder, esc)):
        if only not in sounds.name:
            continue
        served = strength_for(sounds, ACCURACY, shots, 12)
        equal = list(pairs(sounds, served, served, shots, draws, stream=1))
        for gain in (0.0, 0.02, 0.05, 0.08):
            strength = strength_for(sounds, ACCURACY + gain, shots, 12) if gain else served
            found = list(pairs(sounds, served, strength, shots, draws, stream=2)) if gain else equal
            best = f", any test {best_possible(found, equal, RULES.alpha / 2):.2f}" if gain else ""
            promoted = np.mean([pair.promoted for pair in found])
            missed |= gain == 0.05 and promoted < 0.8
            typer.echo(
                f"{sounds.name}, {shots} labels a class, true gain {gain:.2f} (measured "
                f"{np.mean([pair.gain for pair in found]):+.3f}): promoted {promoted:.2f}; by held-out clips alone "
                f"{np.mean([pair.by_held_out for pair in found]):.2f}; by right answers "
                f"{np.mean([pair.by_right_answers for pair in found]):.2f}{best}"
            )
        by_mistake = promoted_of_twenty(sounds, served, shots, series)
        missed |= by_mistake > 0.05
        typer.echo(f"{sounds.name}: of {NUM_CANDIDATES} candidates that are no better, any promoted: {by_mistake:.3f}")
        for seed in range(finetunings):
            typer.echo(f"{sounds.name}, a real finetuning: {finetuning(sounds, shots, seed)}")
    raise typer.Exit(int(missed))


if __name__ == "__main__":
    typer.run(main)

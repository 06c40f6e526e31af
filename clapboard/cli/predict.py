"""`predict`: score audio files on disk, without any server."""

from __future__ import annotations

import csv
import itertools
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from clapboard.cli.fast_imports import fast_imports
from clapboard.cli.output import (
    AsJson,
    JsonList,
    Model,
    console,
    errors_console,
    printable,
    progress_bar,
    require_text,
    settings_with,
)
from clapboard.cli.predict_regions import RegionFinder, predict_regions, with_threshold
from clapboard.errors import AudioError, InternalError, LabelConfigError, RequestError

if TYPE_CHECKING:
    from clapboard.audio.pieces import Condition
    from clapboard.labels.label_space import LabelSpace
    from clapboard.model.clap import ClapEncoder
    from clapboard.suggest.head import Head
    from clapboard.suggest.scoring import Array

_COLUMNS = ("path", "start_s", "end_s", "control", "label", "score", "suggested", "model_version", "error")


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(predict)


def predict(
    paths: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Audio files.")],
    labels: Annotated[str | None, typer.Option(help="Labels, comma-separated, such as “dog bark,rain”.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="One label, which may contain commas; repeat for each label.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE.xml", help="Take labels, prompts and thresholds from this label config."),
    ] = None,
    multiple: Annotated[
        bool, typer.Option("--multiple", help="A file may have any number of labels: score each label independently.")
    ] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Suggest only labels with at least this score.", min=0, max=1)
    ] = None,
    windows: Annotated[bool, typer.Option("--windows", help="Print scores for each window of 10 s too.")] = False,
    model: Model = None,
    fusion: Annotated[
        bool | None,
        typer.Option(
            "--fusion/--no-fusion",
            help="Embed each file as a whole, with a checkpoint with feature fusion, or in windows (CLAPBOARD_FUSION).",
            show_default=False,
        ),
    ] = None,
    regions: Annotated[
        bool, typer.Option("--regions", help="Print when each label sounds; with --json a line of JSON for each file.")
    ] = False,
    table_format: Annotated[
        Literal["raven", "audacity", "csv"] | None,
        typer.Option("--format", help="Write the regions to a table beside each file too."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one line for each label of each file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score audio files for labels, one line per file. Exit code 1 if a file can't be read."""
    if as_csv and as_json:
        raise RequestError("Results are either CSV or JSON: choose one of --csv and --json.")
    regions = regions or table_format is not None
    if regions and (windows or multiple or as_csv):
        raise RequestError("Regions are scored on their own: leave out --windows, --multiple and --csv (--format csv).")
    label_space = _label_space(labels, label or [], config, multiple, threshold, regions=regions)
    settings = settings_with(model=model, fusion=fusion)
    if (windows or regions) and settings.fusion:
        raise RequestError("With fusion a file is embedded as a whole and has no windows: add --no-fusion.")
    with fast_imports():
        from clapboard.audio.confined.decoders import decoders
        from clapboard.model.load import load_encoder

    decoders().start()
    if regions:
        finder = RegionFinder.of(label_space, load_encoder(settings), longest_s=settings.max_audio_s)
        predict_regions(paths, finder, table_format, as_json=as_json)
        return
    scorer = _Scorer.of(
        label_space,
        load_encoder(settings),
        by_control=config is not None,
        by_window=windows,
        longest_s=settings.max_audio_s,
    )
    failed = False
    with ExitStack() as stack:
        out = _Json(stack.enter_context(JsonList())) if as_json else _Csv() if as_csv else _Text()
        bar = stack.enter_context(progress_bar())
        for path in bar.track(paths, description="predict"):
            line = _line(path, scorer)
            failed |= "error" in line
            out.write(line)
    if failed:
        raise typer.Exit(1)


def _label_space(
    labels: str | None,
    one_by_one: list[str],
    config: Path | None,
    multiple: bool,
    threshold: float | None,
    *,
    regions: bool,
) -> LabelSpace:
    """The labels to score, from the options. Raises `LabelConfigError`, `RequestError`."""
    from clapboard.labels.label_space import label_space_of

    if config is not None:
        if labels is not None or one_by_one or multiple or threshold is not None:
            raise RequestError(
                "The file of --config already has labels, choice and threshold: leave out the other options."
            )
        return _configured(config, regions=regions)
    if labels is None and not one_by_one:
        raise RequestError(
            "There are no labels: give --labels “dog bark,rain”, --label for each, or --config FILE.xml."
        )
    names = [*(labels.split(",") if labels is not None else ()), *one_by_one]
    require_text(names, "The label")
    space = label_space_of(names, regions=regions)
    if regions:
        return with_threshold(space, threshold)
    (control,) = space.controls
    return replace(space, controls=(replace(control, multiple=multiple, threshold=threshold),))


def _configured(file: Path, *, regions: bool) -> LabelSpace:
    """The label space of a label config's file. Controls without suggestions are named on standard error."""
    from clapboard.labels.label_config import parse_label_config

    try:
        xml = file.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise LabelConfigError(f"The label config {file} can't be read ({reason}): check the file.") from None
    space = parse_label_config(xml)
    if regions and not space.marking:
        raise LabelConfigError(f"The label config {file} has no Labels for its audio: leave out --regions, or add one.")
    if not regions and not space.predicted and space.marking:
        raise LabelConfigError(f"The label config {file} asks for regions alone: add --regions.")
    if not space.suggested:
        raise LabelConfigError(
            f"The label config {file} has no control that gets suggestions. {space.controls[0].why_not_predicted}"
        )
    for control in space.controls:
        if not control.predicted:
            errors_console().print(f"[yellow]![/] {escape(control.why_not_predicted)}", highlight=False)
    return space


@dataclass(frozen=True)
class _Scorer:
    """An encoder, the zero-shot head of the labels, and how to present the scores."""

    label_space: LabelSpace
    encoder: ClapEncoder
    head: Head
    model_version: str
    by_control: bool
    by_window: bool
    longest_s: float

    @classmethod
    def of(
        cls, label_space: LabelSpace, encoder: ClapEncoder, *, by_control: bool, by_window: bool, longest_s: float
    ) -> _Scorer:
        from clapboard.suggest.head import zero_shot_head
        from clapboard.suggest.prediction import compute_class_weights, model_version

        weights = compute_class_weights(label_space, encoder.embed_texts)
        head = zero_shot_head(label_space, weights, encoder.logit_scale)
        version = model_version(encoder.identity, label_space)
        return cls(label_space, encoder, head, version, by_control, by_window, longest_s)

    def score(self, path: Path) -> dict[str, Any]:
        """The file's duration, scores and suggestions, as they are printed. Raises `AudioError`."""
        from clapboard.audio.pieces import Condition

        condition = Condition()
        spans, embeddings = self._embed(path, condition)
        (whole,) = self._scores([embeddings])
        line: dict[str, Any] = {"duration_s": spans[-1][1], **whole}
        if condition.damage:
            line["damage"] = condition.damage
        if self.by_window:
            by_window = self._scores([embeddings[index : index + 1] for index in range(len(spans))])
            line["windows"] = [
                {"start_s": start_s, "end_s": end_s, **scored}
                for (start_s, end_s), scored in zip(spans, by_window, strict=True)
            ]
        return line | {"model_version": self.model_version}

    def _embed(self, path: Path, condition: Condition) -> tuple[list[tuple[float, float]], Array]:
        """Start and end of each of the file's views, in seconds, and their embeddings `[W, D]`."""
        import numpy as np

        channel = self.label_space.channel
        views = self.encoder.views(path, channel=channel, longest_s=self.longest_s, condition=condition)
        spans: list[tuple[float, float]] = []
        parts = []
        while batch := [*itertools.islice(views, self.encoder.batch_size)]:
            spans += [(getattr(view, "start_s", 0.0), view.end_s) for view in batch]
            parts.append(self.encoder.embed_views(batch))
        return spans, np.concatenate(parts)

    def _scores(self, recordings: list[Array]) -> list[dict[str, Any]]:
        """For each recording, `scores` by label and `suggested` labels; with `by_control`, both by control."""
        from clapboard.suggest.head import scores_of_all
        from clapboard.suggest.prediction import predict_many

        predictions = predict_many(self.label_space, recordings, self.head, self.model_version)
        lines: list[dict[str, Any]] = [{"scores": {}, "suggested": {}} for _ in recordings]
        for control, rows in zip(self.label_space.predicted, self.head.controls, strict=True):
            values = [label.value for label in control.labels]
            for line, scores in zip(lines, scores_of_all(control, rows, recordings).tolist(), strict=True):
                line["scores"][control.name] = dict(zip(values, scores, strict=True))
                line["suggested"][control.name] = []
        for line, prediction in zip(lines, predictions, strict=True):
            for result in prediction.result:
                line["suggested"][result["from_name"]] = result["value"][result["type"]]
        if self.by_control:
            return lines
        return [{name: by_control["label"] for name, by_control in line.items()} for line in lines]


def _line(path: Path, scorer: _Scorer) -> dict[str, Any]:
    """The file's line: its scores, or the reason why it has none."""
    line: dict[str, Any] = {"path": str(path)}
    try:
        if path.is_dir():
            raise AudioError(f"{path.name} is a folder: name the files in it.")
        return line | scorer.score(path)
    except (AudioError, InternalError) as error:
        return line | {"error": str(error)}
    except OSError as error:
        return line | {"error": f"{path.name} can't be read: {error.strerror}."}


class _Json:
    def __init__(self, items: JsonList) -> None:
        self.write = items.write


class _Csv:
    """CSV: a line for each label of each file or window."""

    def __init__(self) -> None:
        self._rows = csv.writer(sys.stdout, lineterminator="\n")
        self._rows.writerow(_COLUMNS)

    def write(self, line: dict[str, Any]) -> None:
        if "error" in line:
            self._rows.writerow([line["path"], *[""] * (len(_COLUMNS) - 2), line["error"]])
        for start_s, end_s, scored in _pieces(line):
            for control, suggested, scores in _controls(scored):
                for label, score in scores.items():
                    is_suggested = int(label in suggested)
                    row = (line["path"], start_s, end_s, control, label, score, is_suggested, line["model_version"], "")
                    self._rows.writerow(row)
        sys.stdout.flush()


class _Text:
    """Text: the five best labels of each file or window, and the suggestion if it isn't just the best."""

    def write(self, line: dict[str, Any]) -> None:
        path = printable(line["path"])
        if "error" in line:
            errors_console().print(f"[red]{escape(path)}[/]: {escape(printable(line['error']))}", highlight=False)
        if "damage" in line:
            errors_console().print(f"[yellow]{escape(path)}[/] is damaged: {line['damage']}.", highlight=False)
        for start_s, end_s, scored in _pieces(line):
            where = f"{path} {start_s:.1f}–{end_s:.1f} s" if "windows" in line else path
            for control, suggested, scores in _controls(scored):
                best = sorted(scores.items(), key=lambda item: -item[1])
                scored_labels = "  ".join(f"{label} {score:.2f}" for label, score in best[:5])
                heading = f"{where} {control}" if control else where
                is_plain = suggested == [best[0][0]]
                shown = scored_labels if is_plain else f"{scored_labels}  → {', '.join(suggested) or 'nothing'}"
                console().print(printable(f"{heading}: {shown}"), highlight=False, markup=False)


def _pieces(line: dict[str, Any]) -> Iterator[tuple[float, float, dict[str, Any]]]:
    """Start, end and scores of the windows, if they were scored, or of the whole file."""
    if "windows" in line:
        for window in line["windows"]:
            yield window["start_s"], window["end_s"], window
    elif "scores" in line:
        yield 0.0, line["duration_s"], line


def _controls(scored: dict[str, Any]) -> Iterator[tuple[str, list[str], dict[str, float]]]:
    """Name, suggested labels and scores of each control; the name is empty without a label config."""
    if isinstance(scored["suggested"], list):
        yield "", scored["suggested"], scored["scores"]
        return
    for control, scores in scored["scores"].items():
        yield control, scored["suggested"][control], scores

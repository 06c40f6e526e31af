"""`predict --regions`: when each label sounds in audio files on disk, without any server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from clapboard.cli.output import console, errors_console, printable, progress_bar
from clapboard.errors import AudioError, EventTableError, InternalError
from clapboard.plurals import counted

if TYPE_CHECKING:
    from clapboard.labels.label_space import LabelSpace
    from clapboard.model.clap import ClapEncoder
    from clapboard.suggest.events.event import Event
    from clapboard.suggest.head import FrameHead


@dataclass(frozen=True)
class RegionFinder:
    """An encoder and the zero-shot heads of the controls that mark regions."""

    label_space: LabelSpace
    encoder: ClapEncoder
    heads: dict[str, FrameHead]  # by the control's name
    model_version: str
    longest_s: float

    @classmethod
    def of(cls, label_space: LabelSpace, encoder: ClapEncoder, *, longest_s: float) -> RegionFinder:
        """The finder for the label space's regions."""
        from clapboard.suggest.prediction import compute_class_weights, model_version
        from clapboard.suggest.regions import zero_shot_frames

        weights = compute_class_weights(label_space, encoder.embed_texts)
        heads = zero_shot_frames(label_space, weights, encoder.logit_scale, encoder.frame_scores)
        names = [control.name for control in label_space.on_frames]
        version = model_version(encoder.identity, label_space)
        return cls(label_space, encoder, dict(zip(names, heads, strict=True)), version, longest_s)

    def find(self, path: Path) -> dict[str, Any]:
        """The file's duration and regions, as they are printed. Raises `AudioError`."""
        from clapboard.audio.pieces import Condition
        from clapboard.model.recording_frames import embed_recording
        from clapboard.suggest.regions import events_of

        condition = Condition()
        channel = self.label_space.channel
        frames = embed_recording(self.encoder, path, channel=channel, longest_s=self.longest_s, condition=condition)
        regions = []
        for control in self.label_space.marking:
            events, _ = events_of(control, self.heads[control.name], frames)
            regions += [_region(event, control.labels[event.label].value) for event in events]
        line: dict[str, Any] = {"duration_s": frames.duration_s}
        if condition.damage:
            line["damage"] = condition.damage
        regions.sort(key=lambda region: (region["start"], region["end"]))
        return line | {"regions": regions, "model_version": self.model_version}


def predict_regions(paths: Sequence[Path], finder: RegionFinder, table_format: str | None, *, as_json: bool) -> None:
    """Print each file's regions, and write them as tables beside the files if a format is given.

    Exit code 1 if a file can't be read or a table can't be written.
    """
    failed = False
    with progress_bar() as bar:
        for path in bar.track(paths, description="predict"):
            line = _line(path, finder)
            if table_format is not None and "error" not in line:
                line = _with_table(path, line, table_format)
            failed |= "error" in line
            if as_json:
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()
            else:
                _show(line)
    if failed:
        raise typer.Exit(1)


def with_threshold(label_space: LabelSpace, threshold: float | None) -> LabelSpace:
    """The label space with this threshold for all regions, if there is one."""
    if threshold is None:
        return label_space
    (control,) = label_space.controls
    labels = tuple(replace(label, limits=replace(label.limits, threshold=threshold)) for label in control.labels)
    return replace(label_space, controls=(replace(control, labels=labels),))


def _region(event: Event, label: str) -> dict[str, Any]:
    return {
        "start": round(event.start_s, 3),
        "end": round(event.end_s, 3),
        "label": label,
        "score": round(event.score, 6),
    }


def _line(path: Path, finder: RegionFinder) -> dict[str, Any]:
    """The file's line: its regions, or the reason why it has none."""
    line: dict[str, Any] = {"path": str(path)}
    try:
        if path.is_dir():
            raise AudioError(f"{path.name} is a folder: name the files in it.")
        return line | finder.find(path)
    except (AudioError, InternalError) as error:
        return line | {"error": str(error)}
    except OSError as error:
        return line | {"error": f"{path.name} can't be read: {error.strerror}."}


def _with_table(path: Path, line: dict[str, Any], table_format: str) -> dict[str, Any]:
    """The line with its regions written beside the file; the table's name, or why there is none, is added to it."""
    from clapboard.event_tables.formats import Format, table_name, write_events

    file_format = Format(table_format)
    table = path.with_name(table_name(path.name, file_format))
    try:
        write_events(table, _rows(path, line), file_format)
    except EventTableError as error:
        return line | {"error": str(error)}
    return line | {"table": str(table)}


def _rows(path: Path, line: dict[str, Any]) -> Iterator[Any]:
    from clapboard.event_tables.event_row import EventRow

    for region in line["regions"]:
        yield EventRow(
            recording=path.name,
            start_s=region["start"],
            end_s=region["end"],
            label=region["label"],
            score=region["score"],
            version=line["model_version"],
        )


def _show(line: dict[str, Any]) -> None:
    path = printable(line["path"])
    if "error" in line:
        errors_console().print(f"[red]{escape(path)}[/]: {escape(printable(line['error']))}", highlight=False)
    if "damage" in line:
        errors_console().print(f"[yellow]{escape(path)}[/] is damaged: {line['damage']}.", highlight=False)
    if "regions" not in line:
        return
    where = f" → {printable(line['table'])}" if "table" in line else ""
    number = len(line["regions"])
    heading = f"{path}: {counted(number, 'region')}{where}"
    console().print(heading, highlight=False, markup=False)
    for region in line["regions"]:
        text = f"  {region['start']:.2f}–{region['end']:.2f} s  {region['label']} {region['score']:.2f}"
        console().print(printable(text), highlight=False, markup=False)

"""Rows of event tables → the results of annotations, in the form in which Label Studio's editor stores its own."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from clapboard.errors import LabelConfigError
from clapboard.event_tables.event_row import EventRow, shown
from clapboard.labels.label_space import Control, Label, LabelSpace

OnSkipped = Callable[[str], object]
"""Is told in a sentence of each row that is left out."""


class ResultsOf:
    """Makes results of rows, with the project's controls."""

    def __init__(self, label_space: LabelSpace, control: str = "") -> None:
        """`control` names the one that takes the labels, where several have them.

        Raises `LabelConfigError` if the label config has none of that name, or none that takes labels.
        """
        takers = [one for one in label_space.controls if one.kind in ("labels", "choices", "taxonomy")]
        takers = [one for one in takers if one.kind == "labels" or not one.per_region]
        chosen = [one for one in takers if control in ("", one.name)]
        if not chosen:
            there = ", ".join(f"“{one.name}”" for one in takers) or "none"
            raise LabelConfigError(
                f"The label config has no control “{shown(control)}” that takes imported labels; there are {there}."
                if control
                else "The label config has no Labels, Choices or Taxonomy on its audio: add one."
            )
        self._of_regions = _by_label(one for one in chosen if one.kind == "labels")
        self._of_clips = _by_label(one for one in chosen if one.kind != "labels")

    def results(
        self, rows: Iterable[EventRow], task: int, duration_s: float | None, on_skipped: OnSkipped
    ) -> list[dict[str, Any]]:
        """The results of the rows of one task and annotator; `duration_s` is the recording's length, if known."""
        results: dict[str, dict[str, Any]] = {}
        whole: dict[str, list[tuple[Control, Label]]] = defaultdict(list)
        annotator = ""
        for row in rows:
            annotator = row.annotator
            try:
                control, label = _control_of(self._of_clips if row.whole else self._of_regions, row)
                if row.whole:
                    _add_whole(whole[control.name], control, label, row)
                else:
                    result = _region(row, control, label, task, duration_s)
                    results[result["id"]] = result  # a row that is there twice is one region
            except _Skipped as skipped:
                on_skipped(f"{shown(row.recording)}: {skipped}")
        return [*results.values(), *(_clip(pairs, task, annotator) for pairs in whole.values() if pairs)]


class _Skipped(Exception):
    """Why a row is left out, in words."""


def _by_label(controls: Iterable[Control]) -> dict[str, list[tuple[Control, Label]]]:
    labels: dict[str, list[tuple[Control, Label]]] = defaultdict(list)
    for control in controls:
        for label in control.labels:
            for name in {label.value, " / ".join(label.path)}:
                labels[" ".join(name.split())].append((control, label))
    return labels


def _control_of(labels: dict[str, list[tuple[Control, Label]]], row: EventRow) -> tuple[Control, Label]:
    pairs = labels.get(" ".join(row.label.split()), [])
    if not pairs:
        kind = "Choices or Taxonomy" if row.whole else "Labels"
        raise _Skipped(f"no {kind} of the label config has “{shown(row.label)}”: add it there.")
    if len(pairs) > 1:
        names = " and ".join(f"“{control.name}”" for control, _ in pairs[:2])
        raise _Skipped(f"both {names} have “{shown(row.label)}”: say which with --control.")
    return pairs[0]


def _region(row: EventRow, control: Control, label: Label, task: int, duration_s: float | None) -> dict[str, Any]:
    if row.end_s <= row.start_s:
        raise _Skipped(f"“{shown(row.label)}” at {row.start_s:g} s is a point, and regions have a length.")
    end_s = row.end_s
    if duration_s is not None:
        if row.start_s >= duration_s:
            raise _Skipped(
                f"“{shown(row.label)}” from {row.start_s:g} to {row.end_s:g} s is behind the end of the recording, "
                f"which lasts {duration_s:g} s: check which file the table is about."
            )
        end_s = min(end_s, duration_s)  # a table's last window may be longer than what is left
    value = {"start": row.start_s, "end": end_s, "channel": row.channel or 0, "labels": [label.value]}
    result = {
        "id": result_id(task, row.annotator, repr((row.start_s, row.end_s, row.label, row.channel))),
        "from_name": control.name,
        "to_name": control.to_name,
        "type": "labels",
        "value": value,
        "origin": "manual",
    }
    return result | ({"original_length": duration_s} if duration_s is not None else {})


def _add_whole(pairs: list[tuple[Control, Label]], control: Control, label: Label, row: EventRow) -> None:
    if (control, label) in pairs:
        return
    if pairs and not control.multiple:
        raise _Skipped(
            f"“{control.name}” takes one label, and “{shown(pairs[0][1].value)}” is there besides “{shown(row.label)}”."
        )
    pairs.append((control, label))


def _clip(pairs: list[tuple[Control, Label]], task: int, annotator: str) -> dict[str, Any]:
    control = pairs[0][0]
    labels = [list(label.path) if control.kind == "taxonomy" else label.value for _, label in pairs]
    return {
        "id": result_id(task, annotator, f"{control.name} {labels}"),
        "from_name": control.name,
        "to_name": control.to_name,
        "type": control.kind,
        "value": {control.kind: labels},
        "origin": "manual",
    }


def result_id(task: int, annotator: str, content: str) -> str:
    """The same row's id in each import."""
    named = "\0".join((str(task), annotator, content)).encode("utf-8", "surrogatepass")
    return f"import-{hashlib.sha256(named).hexdigest()[:10]}"

"""Renamed labels: an annotation with the old name counts as one with the new name. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from clapboard.feedback.entries import Entry
from clapboard.labels.label_space import LabelSpace


@dataclass(frozen=True)
class Rename:
    """A label that has got another name or control. An empty label stands for all labels of the control."""

    control: str
    label: str
    new_control: str
    new_label: str


def renamed(entries: Iterable[Entry], renames: Iterable[Rename], label_space: LabelSpace) -> list[Entry]:
    """The entries, with the current names of labels that the label space no longer has."""
    names = {(rename.control, rename.label): (rename.new_control, rename.new_label) for rename in renames}
    if not names:
        return list(entries)
    known = {(control.name, label.value) for control in label_space.controls for label in control.labels}
    return [_renamed(entry, names, known) for entry in entries]


def _renamed(entry: Entry, names: Mapping[tuple[str, str], tuple[str, str]], known: set[tuple[str, str]]) -> Entry:
    chosen = [_current(entry.control, label, names, known) for label in entry.labels]
    suggested = [_current(entry.control, label, names, known) for label in entry.suggested]
    control = next((control for control, _ in (*chosen, *suggested)), entry.control)
    labels = list(dict.fromkeys(label for _, label in chosen))
    return replace(entry, control=control, labels=labels, suggested=list(dict.fromkeys(name for _, name in suggested)))


def _current(
    control: str, label: str, names: Mapping[tuple[str, str], tuple[str, str]], known: set[tuple[str, str]]
) -> tuple[str, str]:
    """The current control and label, through renames of renames."""
    current = (control, label)
    for _ in range(len(names)):  # ends even if renames form a circle
        if current in known:
            return current
        if current in names:
            current = names[current]
        elif (current[0], "") in names:
            current = (names[current[0], ""][0], current[1])
        else:
            return current
    return current

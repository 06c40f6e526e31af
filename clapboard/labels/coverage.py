"""Sentences about which of a project's controls get suggestions, for `connect`, `prelabel` and `doctor`."""

from __future__ import annotations

from clapboard.labels.label_space import LabelSpace


def with_suggestions(label_space: LabelSpace) -> str:
    """The controls that get suggestions, such as «“sound” (11 labels)»; empty if none does."""
    return ", ".join(f"“{control.name}” ({_num_labels(len(control.labels))})" for control in label_space.suggested)


def without_suggestions(label_space: LabelSpace) -> list[str]:
    """For each control without suggestions, a sentence with the reason."""
    ours = [control.why_not_predicted for control in label_space.controls if not control.predicted]
    return [*ours, *label_space.elsewhere]


def remedy(label_space: LabelSpace) -> str:
    """What to do if no control gets suggestions."""
    return (
        f'Add Choices or Labels with toName="{label_space.audio_name}" to the labeling interface, with a Choice or a '
        "Label for each sound: they must always be shown."
    )


def no_suggestions(label_space: LabelSpace) -> str:
    """Why nothing in the project gets suggestions, and what to do."""
    return " ".join([*without_suggestions(label_space), remedy(label_space)])


def _num_labels(number: int) -> str:
    return f"{number} label" if number == 1 else f"{number} labels"

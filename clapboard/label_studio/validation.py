"""Validation of predictions before they are pushed, because Label Studio drops invalid ones silently."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clapboard.errors import LabelStudioError
from clapboard.plurals import counted, plural

if TYPE_CHECKING:
    from label_studio_sdk.label_interface import LabelInterface

MAX_NAMED_TASKS = 5
MAX_FAULT_CHARS = 160


class PredictionsDropped(LabelStudioError):
    """Some predictions were not stored; all others were. `dropped` has the reason by task."""

    def __init__(self, project_id: int, num_created: int, dropped: Mapping[int, str]) -> None:
        self.num_created = num_created
        self.dropped = dict(dropped)
        named = "; ".join(f"task {task}: {why}" for task, why in list(self.dropped.items())[:MAX_NAMED_TASKS])
        others = len(self.dropped) - MAX_NAMED_TASKS
        more = f"; and {others} more" if others > 0 else ""
        super().__init__(
            f"{counted(len(self.dropped), 'prediction')} for project {project_id} "
            f"{plural(len(self.dropped), 'was', 'were')} not stored: {named}{more}."
        )


def invalid_items(items: Sequence[Mapping[str, Any]], label_config: str) -> dict[int, str]:
    """By task, what is wrong with the items that Label Studio would drop, or store in an unusable form.

    Raises `LabelStudioError` if the label config can't be parsed.
    """
    from label_studio_sdk.label_interface import LabelInterface  # takes 0.5 s, with boto3 and jsonschema behind it

    try:
        interface = LabelInterface(label_config)
    except Exception:  # the SDK documents no exception types, and raises many
        raise LabelStudioError("The project's label config can't be read: save it once more in its settings.") from None
    faults = ((item["task"], _fault(item, interface)) for item in items)
    return {task: fault for task, fault in faults if fault}


def is_cheaper_one_by_one(num_items: int, num_tasks: int) -> bool:
    """Whether single requests cost Label Studio less than one import.

    A single one takes 0.2 s. An import recounts all tasks of the project, whatever it brings: 3 to 20 s were measured
    with 100,000 tasks on SQLite.
    """
    return num_items * 1000 < num_tasks


def _fault(item: Mapping[str, Any], interface: LabelInterface) -> str:
    if not item.get("model_version"):
        return "it has no model_version"
    if not isinstance(item.get("score"), int | float):
        return "its score is no number"
    try:
        json.dumps(item, allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"it is no JSON ({error})"
    faults = interface.validate_prediction(dict(item), return_errors=True)
    return str(faults[0])[:MAX_FAULT_CHARS] if faults else ""

"""What annotation events meant: each thing that a person said, against the suggestion that it answered.

Pure: an event of the inbox, with the suggestions kept beside it, always gives the same entries. Every annotation that
can be read gives at least one, so that the ledger knows of all there are. The difference alone decides, never what
Label Studio says of a result's origin.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from clapboard.feedback.suggestions import annotations_in

if TYPE_CHECKING:
    from clapboard.store.inbox import Event

SAME_REGION_IOU = 0.5
"""From here on, a region without a counterpart of the same id counts as a suggested one that was changed."""
UNMOVED_IOU = 0.95

_SAYING = frozenset({"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED"})
_BULK = "ANNOTATIONS_CREATED"
_WITHDRAWING = "ANNOTATIONS_DELETED"
_UNNAMED_VERSION = "undefined"  # as Label Studio calls the version of a prediction that came without
_VALUE_KEYS = {"textarea": "text", "pairwise": "selected"}  # where a result's value isn't named like its type


class Outcome(enum.StrEnum):
    """What became of a suggestion, or of an annotation as a whole."""

    ACCEPTED = "accepted"
    RELABELLED = "relabelled"
    ADDED = "added"  # also: nothing said where nothing was suggested
    DELETED = "deleted"
    MOVED = "moved"
    SKIPPED = "skipped"
    BULK = "bulk"  # accepted in the data manager: nobody listened
    WITHDRAWN = "withdrawn"  # the annotation was deleted


@dataclass(frozen=True)
class Entry:
    """One thing that an annotation says about a control, for the whole clip or for one region.

    A skip and an annotation that says nothing have no control; a withdrawal knows nothing but its annotation.
    """

    project: int
    task: int
    annotation: int
    revision: float  # the annotation's updated_at, in seconds since 1970
    annotator: int  # Label Studio's user; 0 where it names none
    outcome: Outcome
    control: str = ""
    region: str = ""  # the result's id; empty for whole-clip results
    labels: list[str] = field(default_factory=list)  # what the person says now
    suggested: list[str] = field(default_factory=list)
    model_version: str = ""  # of the suggestion in sight; empty where there was none
    score: float | None = None  # of that suggestion
    iou: float | None = None  # of the region, with the suggested one
    lead_time_s: float | None = None
    ground_truth: bool = False


def entries(event: Event) -> list[Entry]:
    """What the event says, annotation by annotation; empty for other events and for what can't be read."""
    project = _id(event.project)
    if project is None:
        return []
    if event.action == _WITHDRAWING:
        listed = event.body.get("annotations")
        ids = dict.fromkeys(_id_in(item) for item in (listed if isinstance(listed, list) else []))
        return [Entry(project, 0, number, 0.0, 0, Outcome.WITHDRAWN) for number in ids if number]
    if event.action not in _SAYING:
        return []
    found: dict[int, list[Entry]] = {}
    for annotation in annotations_in(event.body):
        if (about := _about(project, annotation)) and about.annotation not in found:
            suggestion = event.suggestions.get(str(about.task))
            bulk = event.action == _BULK or annotation.get("bulk_created") is True
            found[about.annotation] = list(_annotation_entries(about, annotation, suggestion, bulk))
    return [entry for some in found.values() for entry in some]


@dataclass(frozen=True)
class _Said:
    """What the results of one control say, about the whole clip or about one region."""

    control: str
    region: str
    labels: list[str]
    span_s: tuple[float, float] | None


def _about(project: int, annotation: Mapping[str, Any]) -> Entry | None:
    """All that the annotation's entries have in common; None if it can't be read."""
    if not isinstance(annotation.get("result", ""), list | None):
        return None
    number, task, revision = _id_in(annotation), _id_in(annotation.get("task")), _seconds(annotation.get("updated_at"))
    if number is None or task is None or revision is None:
        return None
    annotator = _id_in(annotation.get("completed_by")) or 0
    about = Entry(project, task, number, revision, annotator, Outcome.ADDED)
    lead_time_s = _number(annotation.get("lead_time"))
    return replace(about, lead_time_s=lead_time_s, ground_truth=annotation.get("ground_truth") is True)


def _annotation_entries(about: Entry, annotation: Mapping[str, Any], suggestion: Any, bulk: bool) -> Iterator[Entry]:
    suggested: dict[tuple[str, str], _Said] = {}
    if isinstance(suggestion, Mapping) and isinstance(suggestion.get("result"), list):
        version = _text(suggestion.get("model_version")) or _UNNAMED_VERSION
        about = replace(about, model_version=version, score=_number(suggestion.get("score")))
        suggested = _read(suggestion["result"])
    if annotation.get("was_cancelled") is True:
        yield replace(about, outcome=Outcome.SKIPPED)
        return
    said = _read(annotation["result"] or [])  # null where it was made without any
    if not said and not suggested:
        yield replace(about, outcome=Outcome.BULK if bulk else Outcome.ADDED)
    for old, new in _counterparts(suggested, said):
        iou = _iou(old, new)
        one = new or old
        assert one is not None
        yield replace(
            about,
            outcome=Outcome.BULK if bulk else _outcome(old, new, iou),
            control=one.control,
            region=one.region,
            labels=new.labels if new else [],
            suggested=old.labels if old else [],
            iou=iou,
        )


def _outcome(old: _Said | None, new: _Said | None, iou: float | None) -> Outcome:
    if old is None:
        return Outcome.ADDED
    if new is None:
        return Outcome.DELETED
    if set(old.labels) != set(new.labels):
        return Outcome.RELABELLED
    return Outcome.MOVED if iou is not None and iou < UNMOVED_IOU else Outcome.ACCEPTED


def _counterparts(
    suggested: Mapping[tuple[str, str], _Said], said: Mapping[tuple[str, str], _Said]
) -> list[tuple[_Said | None, _Said | None]]:
    """Each thing said with what was suggested for it, by control and id or by the greatest overlap; then the rest."""
    matched = {key: key for key in said if key in suggested and _iou(suggested[key], said[key]) != 0.0}
    taken = set(matched)
    overlaps = [
        (-iou, old, new)
        for new in said.keys() - taken
        for old in suggested.keys() - taken
        if old[0] == new[0] and (iou := _iou(suggested[old], said[new]) or 0.0) >= SAME_REGION_IOU
    ]
    for _, old, new in sorted(overlaps):
        if new not in matched and old not in taken:
            matched[new] = old
            taken.add(old)
    pairs: list[tuple[_Said | None, _Said | None]] = [
        (suggested[matched[key]] if key in matched else None, answer) for key, answer in said.items()
    ]
    return pairs + [(suggestion, None) for key, suggestion in suggested.items() if key not in taken]


def _iou(old: _Said | None, new: _Said | None) -> float | None:
    """Overlap of the two regions over their union, in [0, 1]; None for whole-clip results and for one alone."""
    if old is None or new is None or old.span_s is None or new.span_s is None:
        return None
    if old.span_s == new.span_s:
        return 1.0
    (start_a, end_a), (start_b, end_b) = old.span_s, new.span_s
    union_s = max(end_a, end_b) - min(start_a, start_b)
    return max(0.0, min(end_a, end_b) - max(start_a, start_b)) / union_s


def _read(result: list[Any]) -> dict[tuple[str, str], _Said]:
    """What a list of results says, by control and region; results without a value, such as relations, say nothing."""
    read: dict[tuple[str, str], _Said] = {}
    for index, item in enumerate(result):
        said = _read_one(item, index)
        if said is None or (not said.labels and said.span_s is None):
            continue
        before = read.get((said.control, said.region), said)
        read[said.control, said.region] = replace(said, labels=list(dict.fromkeys([*before.labels, *said.labels])))
    return read


def _read_one(item: Any, index: int) -> _Said | None:
    if not isinstance(item, Mapping) or not isinstance(item.get("value"), Mapping):
        return None
    control, kind, value = _text(item.get("from_name")), _text(item.get("type")), item["value"]
    labels = _labels(value.get(_VALUE_KEYS.get(kind, kind)))
    if not control or labels is None:
        return None
    if "start" not in value and "end" not in value:
        return _Said(control, "", labels, None)
    start_s, end_s = _number(value.get("start")), _number(value.get("end"))
    if start_s is None or end_s is None:
        return None
    return _Said(control, _text(item.get("id")) or f"#{index}", labels, (min(start_s, end_s), max(start_s, end_s)))


def _labels(value: Any) -> list[str] | None:
    """Labels as text: those of a taxonomy with their paths, numbers as they are written. None if they are none."""
    labels = []
    for item in value if isinstance(value, list) else [] if value is None else [value]:
        parts = [_text(part) for part in (item if isinstance(item, list) else [item])]
        if not parts or not all(parts):
            return None
        labels.append(" / ".join(parts))
    return list(dict.fromkeys(labels))


def _text(value: Any) -> str:
    """The text, or a number as text; empty if it is neither, or nothing that every database keeps."""
    if isinstance(value, int | float):
        return "" if isinstance(value, bool) or _number(value) is None else str(value)
    if not isinstance(value, str) or "\0" in value:
        return ""
    return value if value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value) else ""


def _id(value: Any) -> int | None:
    """A number that Label Studio may have given to something."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63 else None


def _id_in(value: Any) -> int | None:
    return _id(value.get("id") if isinstance(value, Mapping) else value)


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e300 or math.isnan(value):
        return None
    return float(value)


def _seconds(value: Any) -> float | None:
    """Seconds since 1970 of a date and time in ISO 8601; UTC where it names no zone."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

"""Annotation events → ledger entries: each answer of an annotator, compared with the suggestion that it answers. Pure.

An event of the inbox, with the suggestions that are stored with it, always gives the same entries. Every readable
annotation gives at least one, so that the ledger has all annotations. Outcomes follow from the comparison only, never
from what Label Studio records about a result's origin.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from clapboard.errors import LabelConfigError
from clapboard.feedback.suggestions import annotations_in
from clapboard.labels.visibility import Visibility
from clapboard.untrusted import identifier, is_storable, whole_number

if TYPE_CHECKING:
    from clapboard.store.inbox import Event

SAME_REGION_IOU = 0.5
"""The overlap from which a region counts as a changed suggestion, although it has another id."""
UNMOVED_IOU = 0.95

_MAX_CHANNELS = 1_000

_LAST_DAY_S = 253_402_214_400.0  # 31 December 9999, Python's last day

_ANNOTATING = frozenset({"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED"})
_BULK = "ANNOTATIONS_CREATED"
_DELETING = "ANNOTATIONS_DELETED"
_UNNAMED_VERSION = "undefined"  # Label Studio's name for a prediction without a version
_VALUE_KEYS = {"textarea": "text", "pairwise": "selected"}  # results whose value isn't stored under their type


class Outcome(enum.StrEnum):
    """The outcome of a suggestion, or of an annotation as a whole."""

    ACCEPTED = "accepted"
    RELABELLED = "relabelled"
    ADDED = "added"  # also: no labels, and none were suggested
    DELETED = "deleted"
    MOVED = "moved"
    SKIPPED = "skipped"
    BULK = "bulk"  # accepted in the Data Manager: nobody listened
    WITHDRAWN = "withdrawn"  # the annotation was deleted


@dataclass(frozen=True)
class Entry:
    """An annotation's labels of one control, for the whole clip or for one region.

    A skip and an annotation without labels have no control. A withdrawal has only the annotation's id.
    """

    project: int
    task: int
    annotation: int
    revision: float  # the annotation's updated_at, in seconds since 1970
    annotator: int  # Label Studio's user id; 0 if unknown
    outcome: Outcome
    control: str = ""
    region: str = ""  # the result's id; empty for whole-clip results
    labels: list[str] = field(default_factory=list)  # the annotation's
    suggested: list[str] = field(default_factory=list)
    model_version: str = ""  # of the suggestion in view; empty if there was none
    score: float | None = None  # of that suggestion
    iou: float | None = None  # of the region, with the suggested one
    lead_time_s: float | None = None
    ground_truth: bool = False
    # Of a region, in seconds: None in whole-clip entries, where a region has no extent, and where none was suggested.
    start_s: float | None = None
    end_s: float | None = None
    suggested_start_s: float | None = None
    suggested_end_s: float | None = None
    recording_s: float | None = None  # the recording's length, as the annotator's page measured it
    channel: int | None = None  # from 0

    @property
    def span_s(self) -> tuple[float, float] | None:
        """Start and end of the annotated region, if it has both."""
        return None if self.start_s is None or self.end_s is None else (self.start_s, self.end_s)


def entries(event: Event) -> list[Entry]:
    """The event's entries, annotation by annotation; none for other events and for what can't be read."""
    project = identifier(event.project)
    if project is None:
        return []
    if event.action == _DELETING:
        items = event.body.get("annotations")
        ids = dict.fromkeys(_id_in(item) for item in (items if isinstance(items, list) else []))
        return [Entry(project, 0, annotation_id, 0.0, 0, Outcome.WITHDRAWN) for annotation_id in ids if annotation_id]
    if event.action not in _ANNOTATING:
        return []
    by_annotation: dict[int, list[Entry]] = {}
    visibility = _visibility(event.body)
    for annotation in annotations_in(event.body):
        template = _template(project, annotation)
        if template and template.annotation not in by_annotation:
            suggestion = event.suggestions.get(str(template.task))
            bulk = event.action == _BULK or annotation.get("bulk_created") is True
            by_annotation[template.annotation] = list(
                _annotation_entries(template, annotation, suggestion, bulk, visibility)
            )
    return [entry for group in by_annotation.values() for entry in group]


def states_visibility(label_config: str) -> bool:
    """Whether the label config shows some controls only conditionally, so that events can't be read without it."""
    return "visiblewhen" in label_config.lower() or "whenchoicevalue" in label_config.lower()


def _visibility(body: Mapping[str, Any]) -> Visibility:
    """When each control is shown, according to the label config in the event."""
    project = body.get("project")
    label_config = project.get("label_config") if isinstance(project, Mapping) else None
    if not isinstance(label_config, str) or not states_visibility(label_config):
        return Visibility()
    return _visibility_of(label_config)


@lru_cache(maxsize=64)
def _visibility_of(label_config: str) -> Visibility:
    from clapboard.labels.label_config import parse_label_config  # Label Studio's SDK takes a second to import

    try:
        return parse_label_config(label_config).visibility
    except LabelConfigError:
        return Visibility()


@dataclass(frozen=True)
class _Answer:
    """The labels of one control, for the whole clip or for one region."""

    control: str
    region: str
    labels: list[str]
    span_s: tuple[float, float] | None
    recording_s: float | None = None
    channel: int | None = None


def _template(project: int, annotation: Mapping[str, Any]) -> Entry | None:
    """An entry with what all entries of the annotation have in common; None if it can't be read."""
    if not isinstance(annotation.get("result", ""), list | None):
        return None
    annotation_id, task = _id_in(annotation), _id_in(annotation.get("task"))
    revision = _seconds(annotation.get("updated_at"))
    if annotation_id is None or task is None or revision is None:
        return None
    annotator = _id_in(annotation.get("completed_by")) or 0
    return Entry(
        project,
        task,
        annotation_id,
        revision,
        annotator,
        Outcome.ADDED,
        lead_time_s=_number(annotation.get("lead_time")),
        ground_truth=annotation.get("ground_truth") is True,
    )


def _annotation_entries(
    template: Entry, annotation: Mapping[str, Any], suggestion: Any, bulk: bool, visibility: Visibility
) -> Iterator[Entry]:
    suggested: dict[tuple[str, str], _Answer] = {}
    if isinstance(suggestion, Mapping) and isinstance(suggestion.get("result"), list):
        version = _text(suggestion.get("model_version")) or _UNNAMED_VERSION
        template = replace(template, model_version=version, score=_number(suggestion.get("score")))
        suggested = {
            key: answer for key, answer in _answers(suggestion["result"]).items() if answer.span_s or not answer.region
        }
    if annotation.get("was_cancelled") is True:
        yield replace(template, outcome=Outcome.SKIPPED)
        return
    given = _answers(annotation["result"] or [])  # null if it was made without any
    chosen = {control: answer.labels for (control, region), answer in given.items() if not region}
    for control in visibility.hidden(chosen, regions=True):  # a hidden control has no answer
        given.pop((control, ""), None)
        suggested.pop((control, ""), None)
    if not given and not suggested:
        yield replace(template, outcome=Outcome.BULK if bulk else Outcome.ADDED)
    for old, new in _counterparts(suggested, given):
        iou = _iou(old, new)
        answer = new or old
        assert answer is not None
        yield replace(
            template,
            outcome=Outcome.BULK if bulk else _outcome(old, new, iou),
            control=answer.control,
            region=answer.region,
            labels=new.labels if new else [],
            suggested=old.labels if old else [],
            iou=iou,
            **_extent("", new),
            **_extent("suggested_", old),
            recording_s=answer.recording_s,
            channel=answer.channel,
        )


def _extent(prefix: str, answer: _Answer | None) -> dict[str, Any]:
    start_s, end_s = answer.span_s if answer and answer.span_s else (None, None)
    return {f"{prefix}start_s": start_s, f"{prefix}end_s": end_s}


def _outcome(old: _Answer | None, new: _Answer | None, iou: float | None) -> Outcome:
    if old is None:
        return Outcome.ADDED
    if new is None:
        return Outcome.DELETED
    if set(old.labels) != set(new.labels):
        return Outcome.RELABELLED
    return Outcome.MOVED if iou is not None and iou < UNMOVED_IOU else Outcome.ACCEPTED


def _counterparts(
    suggested: Mapping[tuple[str, str], _Answer], given: Mapping[tuple[str, str], _Answer]
) -> list[tuple[_Answer | None, _Answer | None]]:
    """Pairs of a suggested and a given answer: matched by control and id, or by greatest overlap; then the others."""
    matched = {key: key for key in given if key in suggested and _iou(suggested[key], given[key]) != 0.0}
    taken = set(matched)
    overlaps = [
        (-iou, old, new)
        for new in given.keys() - taken
        for old in suggested.keys() - taken
        if old[0] == new[0] and (iou := _iou(suggested[old], given[new]) or 0.0) >= SAME_REGION_IOU
    ]
    for _, old, new in sorted(overlaps):
        if new not in matched and old not in taken:
            matched[new] = old
            taken.add(old)
    pairs: list[tuple[_Answer | None, _Answer | None]] = [
        (suggested[matched[key]] if key in matched else None, answer) for key, answer in given.items()
    ]
    return pairs + [(suggestion, None) for key, suggestion in suggested.items() if key not in taken]


def _iou(old: _Answer | None, new: _Answer | None) -> float | None:
    """Intersection over union of the two regions, in [0, 1]; None for whole-clip answers or if one is missing."""
    if old is None or new is None or old.span_s is None or new.span_s is None:
        return None
    if old.span_s == new.span_s:
        return 1.0
    (start_a, end_a), (start_b, end_b) = old.span_s, new.span_s
    union_s = max(end_a, end_b) - min(start_a, start_b)
    return max(0.0, min(end_a, end_b) - max(start_a, start_b)) / union_s


def _answers(result: list[Any]) -> dict[tuple[str, str], _Answer]:
    """The answers in a list of results, by control and region. Those without a value, such as relations, give none."""
    answers: dict[tuple[str, str], _Answer] = {}
    for index, item in enumerate(result):
        answer = _answer(item, index)
        if answer is None or (not answer.labels and not answer.region):
            continue
        key = (answer.control, answer.region)
        before = answers.get(key, answer)
        answers[key] = replace(answer, labels=list(dict.fromkeys([*before.labels, *answer.labels])))
    return answers


def _answer(item: Any, index: int) -> _Answer | None:
    if not isinstance(item, Mapping) or not isinstance(item.get("value"), Mapping):
        return None
    control, kind, value = _text(item.get("from_name")), _text(item.get("type")), item["value"]
    labels = _labels(value.get(_VALUE_KEYS.get(kind, kind)))
    if not control or labels is None:
        return None
    if "start" not in value and "end" not in value:
        return _Answer(control, "", labels, None)
    region = _text(item.get("id")) or f"#{index}"
    start_s, end_s = _number(value.get("start")), _number(value.get("end"))
    span_s = None if start_s is None or end_s is None else (min(start_s, end_s), max(start_s, end_s))
    return _Answer(control, region, labels, span_s, _number(item.get("original_length")), _channel(value))


def _channel(value: Mapping[str, Any]) -> int | None:
    channel = whole_number(value.get("channel"))
    is_one = isinstance(channel, int) and not isinstance(channel, bool) and 0 <= channel < _MAX_CHANNELS
    return channel if is_one else None


def _labels(value: Any) -> list[str] | None:
    """Labels as text; a taxonomy's with their paths. None if the value isn't labels."""
    labels = []
    for item in value if isinstance(value, list) else [] if value is None else [value]:
        parts = [_text(part) for part in (item if isinstance(item, list) else [item])]
        if not parts or not all(parts):
            return None
        labels.append(" / ".join(parts))
    return list(dict.fromkeys(labels))


def _text(value: Any) -> str:
    """The text, or the number as text; empty if it is neither, or can't be stored."""
    if isinstance(value, int | float):
        return "" if isinstance(value, bool) or _number(value) is None else str(value)
    return value if isinstance(value, str) and is_storable(value) else ""


def _id_in(value: Any) -> int | None:
    return identifier(value.get("id") if isinstance(value, Mapping) else value)


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e300 or math.isnan(value):
        return None
    return float(value)


def _seconds(value: Any) -> float | None:
    """Seconds since 1970 of an ISO 8601 time, UTC if it names no zone; None if it isn't one."""
    try:
        moment = datetime.fromisoformat(value)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < _LAST_DAY_S else None

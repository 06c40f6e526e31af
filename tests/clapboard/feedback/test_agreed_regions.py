"""Which regions a task's annotators agree on."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import pytest

from clapboard.feedback.agreed_regions import MAX_REGIONS
from clapboard.feedback.consensus import BULK_WEIGHT, Agreed, Consensus, consensus
from clapboard.feedback.entries import Entry, Outcome
from clapboard.feedback.left_out import Tasks, UnknownLabel
from clapboard.feedback.task_labels import LabelRules, as_json, by_task, from_json, together
from clapboard.labels.label_config import parse_label_config

SPACE = parse_label_config(
    """<View><Audio name="audio" value="$audio"/>
    <Labels name="ev" toName="audio"><Label value="bark"/><Label value="rain"/></Labels>
    <Choices name="clip" toName="audio"><Choice value="dog"/><Choice value="wind"/></Choices></View>"""
)
Span = tuple[str, float, float]


def entry(by: int, label: str, start_s: float | None, end_s: float | None, **others: object) -> Entry:
    said = Entry(6, 11, 100 + by, 0.0, by, Outcome.ADDED, control="ev", region=f"{label}{start_s}", labels=[label])
    return replace(said, start_s=start_s, end_s=end_s, recording_s=60.0, **others)  # type: ignore[arg-type]


def nothing(by: int) -> Entry:
    """An annotation without regions: whoever made it heard nothing."""
    return Entry(6, 11, 100 + by, 0.0, by, Outcome.ADDED)


def agreed(*entries: Entry) -> Consensus:
    """The consensus, the same in whatever order the annotations come."""
    found = [consensus(order, SPACE) for order in permutations(entries)]
    assert all(one == found[0] for one in found)
    return found[0]


def of_regions(*entries: Entry) -> Agreed:
    return agreed(*entries).labels[11]["ev"]


def spans(answer: Agreed) -> list[Span]:
    return [(region.label, region.start_s, region.end_s) for region in answer.regions]


def test_what_one_person_marked_holds() -> None:
    answer = of_regions(entry(1, "rain", 5.0, 9.0), entry(1, "bark", 1.0, 2.0, channel=1))
    assert spans(answer) == [("bark", 1.0, 2.0), ("rain", 5.0, 9.0)]
    assert (answer.labels, answer.weight, answer.recording_s) == (("bark", "rain"), 1.0, 60.0)
    assert [(region.channel, region.annotators) for region in answer.regions] == [(1, (1,)), (0, (1,))]


def test_the_majority_marks_an_event_from_the_median_start_to_the_median_end() -> None:
    three = (entry(1, "bark", 1.0, 3.0), entry(2, "bark", 1.2, 3.2), entry(3, "bark", 0.9, 3.6))
    assert spans(of_regions(*three)) == [("bark", 1.0, 3.2)]
    assert of_regions(*three).regions[0].annotators == (1, 2, 3)
    assert spans(of_regions(*three[:2], nothing(3))) == [("bark", 1.1, 3.1)]
    assert of_regions(three[0], nothing(2), nothing(3)) == Agreed((), 1.0, False, False, recording_s=60.0)


def test_an_event_that_half_of_them_marked_is_unsettled() -> None:
    found = agreed(entry(1, "bark", 1.0, 3.0), entry(1, "rain", 9.0, 12.0), entry(2, "bark", 1.1, 3.0))
    answer = found.labels[11]["ev"]
    assert (answer.labels, [region.label for region in answer.unsettled]) == (("bark",), ["rain"])
    assert found.left_out.ties == (Tasks("ev", (11,)),)


@pytest.mark.parametrize(
    "other", [entry(2, "bark", 2.0, 6.0), entry(2, "rain", 1.0, 3.0), entry(2, "bark", 1.0, 3.0, channel=1)]
)
def test_regions_that_overlap_little_or_differ_are_two_events(other: Entry) -> None:
    answer = of_regions(entry(1, "bark", 1.0, 3.0), other)
    assert (answer.regions, len(answer.unsettled)) == ((), 2)


def test_an_annotator_counts_once_in_an_event_and_the_greatest_overlap_is_matched() -> None:
    answer = of_regions(entry(1, "bark", 1.0, 2.0), entry(1, "bark", 1.4, 3.0), entry(2, "bark", 1.0, 2.1))
    assert spans(answer) == [("bark", 1.0, 2.05)]
    assert [(region.start_s, region.end_s) for region in answer.unsettled] == [(1.4, 3.0)]


def test_what_was_accepted_in_bulk_weighs_less() -> None:
    answer = of_regions(entry(1, "bark", 1.0, 2.0, outcome=Outcome.BULK, model_version="v1"))
    assert (answer.weight, answer.bulk, answer.suggestion_biased) == (BULK_WEIGHT, True, True)
    assert answer.regions[0].versions == ("v1",)


@pytest.mark.parametrize("extent", [(2.0, 2.0), (61.0, 64.0), (None, None), (-3.0, -1.0), (0.0, math.inf)], ids=str)
def test_an_impossible_region_is_left_out_with_its_reason_and_the_rest_counts(
    extent: tuple[float | None, float | None],
) -> None:
    kept = () if extent == (0.0, math.inf) else (Tasks("ev", (11,)),)
    found = agreed(entry(1, "bark", *extent), entry(1, "rain", 5.0, 9.0))
    assert ("rain", 5.0, 9.0) in spans(found.labels[11]["ev"])
    assert found.left_out.extents == kept
    if kept:
        assert "1 task with a region of “ev” that has no length or lies outside the recording" in (
            found.left_out.sentence
        )


def test_a_region_over_the_end_is_cut_there() -> None:
    assert spans(of_regions(entry(1, "bark", 58.0, 63.0))) == [("bark", 58.0, 60.0)]


def test_a_label_that_the_config_no_longer_has_is_named() -> None:
    found = agreed(entry(1, "howl", 1.0, 2.0), entry(1, "bark", 3.0, 4.0))
    assert found.left_out.unknown == (UnknownLabel("ev", "howl", (11,)),)
    assert spans(found.labels[11]["ev"]) == [("bark", 3.0, 4.0)]


def test_too_many_regions_are_not_matched() -> None:
    many = [entry(by, "bark", float(n), n + 0.5) for by in (1, 2) for n in range(MAX_REGIONS // 2 + 1)]
    found = consensus([replace(one, recording_s=None) for one in many], SPACE)
    assert (found.labels, found.left_out.ties) == ({}, (Tasks("ev", (11,)),))


def test_the_store_keeps_all_of_it() -> None:
    found = agreed(
        entry(1, "bark", 1.0, 3.0, model_version="v1"),
        entry(1, "rain", 9.0, 9.0, model_version="v1"),
        entry(2, "bark", 1.1, 3.0),
        entry(2, "rain", 9.0, 12.0),
        replace(nothing(2), control="clip", labels=["dog"]),
    )
    tasks = by_task(found)
    assert {task: from_json(**as_json(labelled)) for task, labelled in tasks.items()} == tasks
    assert together(tasks) == found
    assert by_task(LabelRules(SPACE).consensus([])) == {}

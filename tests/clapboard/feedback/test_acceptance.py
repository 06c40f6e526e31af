"""Acceptance per class, version and annotator, and lead times."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clapboard.feedback.acceptance import ClassFate, Fate, LeadTime, RegionFate, acceptance
from clapboard.feedback.entries import Entry, Outcome


def entry(number: int, outcome: Outcome, labels: str, suggested: str, **others: object) -> Entry:
    """What annotation `number` says; labels are separated by spaces."""
    one = Entry(6, number, number, 0.0, 1, outcome, "clip", "", labels.split(), suggested.split(), "v1")
    return replace(one, **others)  # type: ignore[arg-type]


STANDING = [
    entry(1, Outcome.ACCEPTED, "dog", "dog", lead_time_s=2.0),
    entry(2, Outcome.ACCEPTED, "dog", "dog", lead_time_s=4.0, annotator=2),
    entry(3, Outcome.RELABELLED, "rain", "dog", lead_time_s=9.0),
    entry(4, Outcome.DELETED, "", "rain", lead_time_s=5.0, model_version="v2"),
    entry(5, Outcome.ADDED, "wind", "", lead_time_s=30.0, model_version=""),
    entry(6, Outcome.SKIPPED, "", "", control="", lead_time_s=1.0),
    entry(7, Outcome.BULK, "dog", "dog", lead_time_s=100.0),
    entry(8, Outcome.ADDED, "", "", control="", lead_time_s=40.0, model_version=""),
]


def test_acceptance_is_of_what_was_judged() -> None:
    found = acceptance(STANDING)
    assert found.num_annotations == 8
    assert found.overall == Fate(2, 1, 0, 1, 1, 1, 1, acceptance=0.5)
    assert found.by_version == {
        "": Fate(0, 0, 0, 0, 1, 0, 0, acceptance=None),
        "v1": Fate(2, 1, 0, 0, 0, 1, 1, acceptance=2 / 3),
        "v2": Fate(0, 0, 0, 1, 0, 0, 0, acceptance=0.0),
    }
    assert {user: fate.acceptance for user, fate in found.by_annotator.items()} == {1: 1 / 3, 2: 1.0}


def test_each_class_is_counted_where_it_was_suggested_and_where_it_was_added() -> None:
    assert acceptance(STANDING).by_class == [
        ClassFate("clip", "dog", suggested=3, accepted=2, added=0, acceptance=2 / 3),
        ClassFate("clip", "rain", suggested=1, accepted=0, added=1, acceptance=0.0),
        ClassFate("clip", "wind", suggested=0, accepted=0, added=1, acceptance=None),
    ]


def test_a_label_that_stays_when_others_change_is_accepted() -> None:
    (dog, rain, wind) = acceptance([entry(1, Outcome.RELABELLED, "dog wind", "dog rain")]).by_class
    assert (dog.label, dog.suggested, dog.accepted, dog.added) == ("dog", 1, 1, 0)
    assert (rain.label, rain.suggested, rain.accepted, rain.added) == ("rain", 1, 0, 0)
    assert (wind.label, wind.suggested, wind.accepted, wind.added) == ("wind", 0, 0, 1)


def test_a_moved_region_is_not_accepted() -> None:
    found = acceptance(
        [entry(1, Outcome.MOVED, "bark", "bark", region="r"), entry(2, Outcome.ACCEPTED, "bark", "bark")]
    )
    assert found.overall.acceptance == 0.5
    assert found.by_class == [ClassFate("clip", "bark", suggested=2, accepted=1, added=0, acceptance=0.5)]


def test_the_same_label_of_two_controls_is_two_classes() -> None:
    found = acceptance([entry(1, Outcome.ACCEPTED, "a", "a"), entry(1, Outcome.DELETED, "", "a", control="also")])
    assert [(fate.control, fate.label, fate.acceptance) for fate in found.by_class] == [
        ("also", "a", 0.0),
        ("clip", "a", 1.0),
    ]


def test_lead_times_are_those_of_annotations_that_people_opened() -> None:
    found = acceptance(STANDING)
    assert found.accepted_lead_time == LeadTime(2, 3.0)
    assert found.corrected_lead_time == LeadTime(2, 7.0)
    assert found.unaided_lead_time == LeadTime(2, 35.0)


def test_an_annotation_counts_once_and_one_correction_makes_it_corrected() -> None:
    three = [
        entry(1, Outcome.ACCEPTED, "dog", "dog", lead_time_s=6.0),
        entry(1, Outcome.MOVED, "bark", "bark", control="ev", region="a", lead_time_s=6.0),
        entry(1, Outcome.ADDED, "far", "", control="note", lead_time_s=6.0),
    ]
    found = acceptance(three)
    assert (found.corrected_lead_time, found.accepted_lead_time.num_annotations) == (LeadTime(1, 6.0), 0)
    assert acceptance([three[0], three[2]]).accepted_lead_time == LeadTime(1, 6.0)


def test_nothing_stands_for_nothing() -> None:
    found = acceptance([])
    assert found.overall == Fate(0, 0, 0, 0, 0, 0, 0, acceptance=None)
    assert (found.num_annotations, found.by_class, found.by_version, found.by_annotator) == (0, [], {}, {})
    assert found.accepted_lead_time == LeadTime(0, None)


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("mini-1d8c8678.zero-shot.520d35c8", "zero-shot"),
        ("clap-1.5-1d8c8678.head-00112233.520d35c8", "head"),
        ("mini-tuned-17-1d8c8678.head-00112233.520d35c8", "finetuned"),
        ("mini-tuned-17-1d8c8678.zero-shot.520d35c8", "finetuned"),
        ("my-tuned-model-1d8c8678.zero-shot.520d35c8", "zero-shot"),
        ("undefined", "other"),
        ("somebody.elses.own", "other"),
        ("", "none"),
    ],
)
def test_a_version_is_of_a_kind(version: str, kind: str) -> None:
    found = acceptance([entry(1, Outcome.ACCEPTED, "dog", "dog", model_version=version)])
    assert list(found.by_kind) == [kind]


def test_a_thousand_heads_are_one_row_and_days_come_in_their_order() -> None:
    day_s = 86_400.0
    found = acceptance(
        entry(
            n, Outcome.ACCEPTED, "dog", "dog", model_version=f"m-ab.head-{-n % 7919:08x}.c0", revision=n * day_s / 500
        )
        for n in range(1, 1001)
    )
    assert {kind: fate.accepted for kind, fate in found.by_kind.items()} == {"head": 1000}
    assert list(found.by_day.items()) == [
        (day, found.by_day[day]) for day in ("1970-01-01", "1970-01-02", "1970-01-03")
    ]
    assert [fate.accepted for fate in found.by_day.values()] == [499, 500, 1]
    assert list(found.by_version)[:2] == [f"m-ab.head-{-n % 7919:08x}.c0" for n in (1, 2)]  # as people met them


def test_regions_tell_how_far_their_edges_were_moved() -> None:
    def region(number: int, outcome: Outcome, labels: str, suggested: str, **extent: float) -> Entry:
        return entry(number, outcome, labels, suggested, control="ev", region=f"r{number}", **extent)

    accepted = {"start_s": 1.0, "end_s": 2.0, "suggested_start_s": 1.0, "suggested_end_s": 2.0, "iou": 1.0}
    moved = accepted | {"start_s": 0.6, "end_s": 2.1, "iou": 2 / 3}
    standing = [
        region(1, Outcome.ACCEPTED, "bark", "bark", **accepted),
        region(2, Outcome.MOVED, "bark", "bark", **moved),
        region(3, Outcome.MOVED, "bark", "bark", **moved | {"start_s": 1.5}),
        region(4, Outcome.RELABELLED, "rain", "bark", **moved),
        region(5, Outcome.DELETED, "", "bark", suggested_start_s=4.0, suggested_end_s=5.0),
        region(6, Outcome.BULK, "bark", "bark", **accepted),
    ]
    assert acceptance(standing).by_region_label == [
        RegionFate("ev", "bark", 5, 1, 2, 1, 1, 0, 0.2, pytest.approx(0.4), pytest.approx(0.1), pytest.approx(2 / 3)),
        RegionFate("ev", "rain", 0, 0, 0, 0, 0, 1, None, None, None, None),
    ]
    assert acceptance(STANDING).by_region_label == []

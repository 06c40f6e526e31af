"""What annotation events mean, against what was suggested."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import pytest

from clapboard.feedback.entries import Entry, Outcome, entries
from clapboard.store.inbox import Event
from tests.support.annotation_events import (
    CREATED,
    PROJECT,
    UPDATED,
    annotation,
    bulk,
    clip,
    deleted,
    event,
    region,
    said,
    suggestion,
)

BESIDE = 11
DOG, RAIN = clip("dog"), clip("rain")


def meant(result: list[Any], suggested: list[Any] | None = None, **others: Any) -> list[Entry]:
    """What an annotation of that result means, where that was suggested; None where nothing was."""
    beside = {} if suggested is None else {str(BESIDE): suggestion(*suggested)}
    return entries(event(said(annotation(3, *result, **others)), beside))


def outcomes(found: list[Entry]) -> list[tuple[str, str, str]]:
    return [(entry.control, entry.region, str(entry.outcome)) for entry in found]


class TestWholeClips:
    def test_an_entry_says_all_there_is_to_know(self) -> None:
        (entry,) = meant([DOG], [clip("rain")], second=5, ground_truth=True)
        assert entry == Entry(
            project=PROJECT,
            task=BESIDE,
            annotation=3,
            revision=datetime(2026, 11, 22, 0, 0, 5, 250_000, tzinfo=UTC).timestamp(),
            annotator=1,
            outcome=Outcome.RELABELLED,
            control="clip",
            region="",
            labels=["dog"],
            suggested=["rain"],
            model_version="v1",
            score=0.75,
            iou=None,
            lead_time_s=3.5,
            ground_truth=True,
        )

    @pytest.mark.parametrize(
        ("result", "suggested", "outcome"),
        [
            ([DOG], [DOG], "accepted"),
            ([clip("dog", result_id="another")], [DOG], "accepted"),
            ([clip("dog", "rain")], [clip("rain", "dog")], "accepted"),
            ([clip("dog"), clip("rain")], [clip("rain", "dog")], "accepted"),
            ([RAIN], [DOG], "relabelled"),
            ([clip("dog", "rain")], [DOG], "relabelled"),
            ([DOG], [clip("dog", "rain")], "relabelled"),
            ([DOG], [], "added"),
            ([DOG], None, "added"),
            ([], [DOG], "deleted"),
            ([clip()], [DOG], "deleted"),
        ],
    )
    def test_label_sets_are_compared(self, result: list[Any], suggested: list[Any] | None, outcome: str) -> None:
        assert outcomes(meant(result, suggested)) == [("clip", "", outcome)]

    def test_each_control_is_compared_by_itself(self) -> None:
        result = [clip("dog"), clip("loud", control="level"), clip("new", control="mood")]
        suggested = [clip("soft", control="level"), clip("dog"), clip("day", control="time")]
        assert outcomes(meant(result, suggested)) == [
            ("clip", "", "accepted"),
            ("level", "", "relabelled"),
            ("mood", "", "added"),
            ("time", "", "deleted"),
        ]

    def test_an_origin_is_not_trusted(self) -> None:
        (entry,) = meant([RAIN | {"origin": "prediction"}], [DOG])
        assert entry.outcome == "relabelled"
        (entry,) = meant([DOG | {"origin": "manual"}], [DOG])
        assert entry.outcome == "accepted"

    def test_other_kinds_of_results_are_read_too(self) -> None:
        def result(kind: str, **value: Any) -> dict[str, Any]:
            return {"id": kind, "from_name": kind, "to_name": "audio", "type": kind, "value": value}

        found = meant(
            [
                result("taxonomy", taxonomy=[["Animal", "Dog"], ["Weather"]]),
                result("textarea", text=["a dog", "far away"]),
                result("rating", rating=4),
                result("number", number=2.5),
                result("datetime", datetime="2026-11-22"),
                {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"},
            ]
        )
        assert {entry.control: entry.labels for entry in found} == {
            "taxonomy": ["Animal / Dog", "Weather"],
            "textarea": ["a dog", "far away"],
            "rating": ["4"],
            "number": ["2.5"],
            "datetime": ["2026-11-22"],
        }

    def test_a_suggestion_in_sight_is_named_even_where_it_said_nothing_of_the_control(self) -> None:
        (entry,) = meant([DOG], [])
        assert (entry.model_version, entry.score, entry.suggested) == ("v1", 0.75, [])
        (entry,) = meant([DOG])
        assert (entry.model_version, entry.score) == ("", None)

    def test_a_suggestion_without_a_version_is_still_one(self) -> None:
        beside = {str(BESIDE): {"result": [DOG], "score": "high", "model_version": None}}
        (entry,) = entries(event(said(annotation(3, DOG)), beside))
        assert (entry.outcome, entry.model_version, entry.score) == ("accepted", "undefined", None)

    def test_the_suggestion_of_another_task_is_not_its(self) -> None:
        (entry,) = entries(event(said(annotation(3, DOG)), {"12": suggestion(RAIN)}))
        assert (entry.outcome, entry.model_version) == ("added", "")

    @pytest.mark.parametrize("suggested", [None, []])
    @pytest.mark.parametrize("result", [None, []])
    def test_an_annotation_that_says_nothing_is_known_all_the_same(
        self, result: list[Any] | None, suggested: list[Any] | None
    ) -> None:
        beside = {} if suggested is None else {str(BESIDE): suggestion()}
        (entry,) = entries(event(said(annotation(3) | {"result": result}), beside))
        assert (entry.control, entry.outcome, entry.labels, entry.annotation) == ("", "added", [], 3)


class TestAnnotationsAsAWhole:
    def test_a_skip_is_one_entry_whatever_was_filled_in(self) -> None:
        for result in ([], [DOG, region("r", 0, 1, "bark")]):
            (entry,) = meant(result, [DOG], was_cancelled=True)
            assert (entry.outcome, entry.control, entry.labels, entry.model_version) == ("skipped", "", [], "v1")

    def test_what_was_accepted_in_bulk_is_bulk(self) -> None:
        found = entries(event(bulk(annotation(3, DOG), annotation(4, RAIN, task=12)), {"11": suggestion(DOG)}))
        assert [(entry.annotation, entry.task, entry.outcome, entry.labels) for entry in found] == [
            (3, 11, "bulk", ["dog"]),
            (4, 12, "bulk", ["rain"]),
        ]
        assert [entry.suggested for entry in found] == [["dog"], []]

    def test_an_annotation_may_say_itself_that_it_is_bulk(self) -> None:
        (entry,) = meant([DOG], [DOG], bulk_created=True)
        assert entry.outcome == "bulk"

    def test_one_that_somebody_opened_later_is_not_bulk(self) -> None:
        (_, body) = bulk(annotation(3, DOG))
        opened = body["annotation"][0] | {"updated_by": 1, "lead_time": 2.0}
        (entry,) = entries(event(said(opened, UPDATED), {"11": suggestion(DOG)}))
        assert entry.outcome == "accepted"

    def test_deletions_name_their_annotations_and_nothing_else(self) -> None:
        found = entries(event(deleted(3, 5, 3)))
        assert found == [Entry(PROJECT, 0, number, 0.0, 0, Outcome.WITHDRAWN) for number in (3, 5)]

    @pytest.mark.parametrize(("by", "annotator"), [(7, 7), ({"id": 7, "email": "a@b"}, 7), (None, 0), ("7", 0)])
    def test_the_annotator_is_a_number_or_an_object(self, by: Any, annotator: int) -> None:
        (entry,) = meant([DOG], by=by)
        assert entry.annotator == annotator

    @pytest.mark.parametrize(
        ("updated_at", "revision"),
        [
            ("1970-01-01T00:00:01Z", 1.0),
            ("1970-01-01T02:00:01.5+02:00", 1.5),
            ("1970-01-01T00:00:01", 1.0),
        ],
    )
    def test_a_revision_is_seconds_since_1970(self, updated_at: str, revision: float) -> None:
        (entry,) = meant([DOG], updated_at=updated_at)
        assert entry.revision == revision

    def test_revisions_a_microsecond_apart_differ(self) -> None:
        first, second = (meant([DOG], updated_at=f"2026-11-22T15:48:11.67031{n}Z")[0].revision for n in (4, 5))
        assert first < second


class TestRegions:
    @pytest.mark.parametrize(
        ("given", "outcome", "iou"),
        [
            (region("a", 1.0, 3.0, "bark"), "accepted", 1.0),
            (region("a", 1.0, 3.05, "bark"), "accepted", 2 / 2.05),
            (region("b", 1.0, 3.0, "bark"), "accepted", 1.0),
            (region("a", 1.0, 2.5, "bark"), "moved", 0.75),
            (region("b", 1.0, 2.5, "bark"), "moved", 0.75),
            (region("a", 2.9, 4.0, "bark"), "moved", 0.1 / 3),
            (region("a", 1.0, 3.0, "miaow"), "relabelled", 1.0),
            (region("b", 1.0, 2.0, "miaow"), "relabelled", 0.5),
            (region("a", 3.0, 1.0, "bark"), "accepted", 1.0),
        ],
    )
    def test_labels_and_overlap_decide(self, given: dict[str, Any], outcome: str, iou: float) -> None:
        (entry,) = meant([given], [region("a", 1.0, 3.0, "bark")])
        assert (entry.region, entry.outcome) == (given["id"], outcome)
        assert entry.iou == pytest.approx(iou)
        assert entry.span_s == tuple(sorted((given["value"]["start"], given["value"]["end"])))
        assert (entry.suggested_start_s, entry.suggested_end_s, entry.recording_s) == (1.0, 3.0, 10.0)

    @pytest.mark.parametrize(
        "given",
        [
            region("b", 1.0, 1.9, "bark"),
            region("a", 5.0, 6.0, "bark"),
            region("a", 3.0, 5.0, "bark"),
            region("b", 1.0, 3.0, "bark", control="other"),
        ],
        ids=["overlaps too little", "is elsewhere", "touches", "is of another control"],
    )
    def test_without_a_counterpart_one_is_deleted_and_one_added(self, given: dict[str, Any]) -> None:
        found = meant([given], [region("a", 1.0, 3.0, "bark")])
        assert [(entry.outcome, entry.labels, entry.suggested, entry.iou) for entry in found] == [
            ("added", ["bark"], [], None),
            ("deleted", [], ["bark"], None),
        ]

    def test_ids_go_before_overlap(self) -> None:
        given = [region("a", 2.0, 4.0, "bark"), region("x", 0.0, 2.0, "bark")]
        found = meant(given, [region("a", 0.0, 2.5, "bark")])
        assert outcomes(found) == [("ev", "a", "moved"), ("ev", "x", "added")]

    def test_the_greatest_overlap_wins_whatever_the_order(self) -> None:
        given = [region("x", 0.0, 2.0, "bark"), region("y", 0.2, 2.2, "bark"), region("z", 9.0, 9.5, "bark")]
        suggested = [region("a", 0.1, 2.2, "bark"), region("b", 0.0, 1.6, "bark")]
        seen = set()
        for some in permutations(given):
            for others in permutations(suggested):
                found = meant(list(some), list(others))
                seen.add(frozenset((entry.region, entry.outcome, entry.iou) for entry in found))
        assert len(seen) == 1
        by_region = {name: (outcome, iou) for name, outcome, iou in seen.pop()}
        assert by_region["y"] == ("accepted", pytest.approx(2.0 / 2.1))
        assert by_region["x"] == ("moved", pytest.approx(0.8))
        assert by_region["z"] == ("added", None)

    def test_a_region_of_no_length_equals_itself_alone(self) -> None:
        found = meant([region("a", 1, 1, "bark"), region("b", 2, 2, "bark")], [region("a", 1, 1, "bark")])
        assert outcomes(found) == [("ev", "a", "accepted"), ("ev", "b", "added")]

    def test_a_region_has_an_entry_for_each_control(self) -> None:
        clean = region("a", 1, 2, control="quality") | {"type": "choices"}
        clean["value"] = {"start": 1, "end": 2, "choices": ["clean"]}
        found = meant([region("a", 1, 2, "bark"), clean], [region("a", 1, 2, "bark")])
        assert outcomes(found) == [("ev", "a", "accepted"), ("quality", "a", "added")]

    def test_a_region_without_labels_is_one_all_the_same(self) -> None:
        (entry,) = meant([region("a", 1, 2)], [region("a", 1, 2, "bark")])
        assert (entry.outcome, entry.labels) == ("relabelled", [])


NOTHING = [None, True, 0, -1, 2**63, 10**400, 1.0, math.nan, "3", "", [], {}, {"id": None}, "\0", "\ud83d"]


class TestMalformed:
    @pytest.mark.parametrize("key", ["id", "task", "updated_at", "result"])
    def test_without_what_is_needed_there_are_no_entries(self, key: str) -> None:
        for value in NOTHING:
            if key != "result" or value not in (None, []):
                assert entries(event(said(annotation(3, DOG) | {key: value}))) == []
        without = {name: held for name, held in annotation(3, DOG).items() if name != key}
        assert entries(event(said(without))) == []

    @pytest.mark.parametrize("body", [{}, {"annotation": None}, {"annotation": [None, 3, []]}, {"annotations": 3}])
    @pytest.mark.parametrize("action", [CREATED, UPDATED, "ANNOTATIONS_CREATED", "ANNOTATIONS_DELETED"])
    def test_events_without_annotations_say_nothing(self, action: str, body: dict[str, Any]) -> None:
        assert entries(event((action, body))) == []

    @pytest.mark.parametrize("action", ["START_TRAINING", "TASKS_DELETED", "PROJECT_UPDATED", "", "annotation_created"])
    def test_other_events_say_nothing(self, action: str) -> None:
        _, body = said(annotation(3, DOG))
        assert entries(event((action, body | {"annotations": [{"id": 3}]}))) == []

    @pytest.mark.parametrize("project", [None, 0, -1, 2**63])
    def test_an_event_of_no_project_says_nothing(self, project: int | None) -> None:
        assert entries(Event(1, 0.0, *_with_project(project))) == []

    @pytest.mark.parametrize("name", ["was_cancelled", "ground_truth", "lead_time", "completed_by", "bulk_created"])
    def test_what_is_odd_beside_that_does_no_harm(self, name: str) -> None:
        for value in (*NOTHING, math.inf, "true"):
            (entry,) = entries(event(said(annotation(3, DOG) | {name: value}), {"11": suggestion(DOG)}))
            assert entry.lead_time_s is None or math.isfinite(entry.lead_time_s)
            assert entry.annotator in (0, 1)

    @pytest.mark.parametrize(
        "item",
        [
            *NOTHING,
            {"value": None, "from_name": "clip", "type": "choices"},
            {"value": {"choices": ["dog"]}, "type": "choices"},
            {"value": {"choices": ["dog"]}, "from_name": "a\0b", "type": "choices"},
            {"value": {"choices": ["dog"]}, "from_name": {}, "type": "choices"},
            {"value": {"choices": ["dog"]}, "from_name": "clip", "type": []},
            {"value": {"choices": ["d\0g"]}, "from_name": "clip", "type": "choices"},
            {"value": {"choices": ["\ud83d"]}, "from_name": "clip", "type": "choices"},
            {"value": {"choices": [{"a": 1}]}, "from_name": "clip", "type": "choices"},
            {"value": {"choices": [["a", None]]}, "from_name": "clip", "type": "choices"},
            {"value": {"choices": [10**400]}, "from_name": "clip", "type": "choices"},
        ],
        ids=lambda value: repr(value)[:40],
    )
    def test_a_result_that_says_nothing_leaves_the_others_alone(self, item: Any) -> None:
        (entry,) = meant([item, RAIN], [item, RAIN])
        assert (entry.control, entry.outcome, entry.labels) == ("clip", "accepted", ["rain"])
        (entry,) = meant([item])
        assert (entry.control, entry.labels) == ("", [])

    @pytest.mark.parametrize("extent", [{"start": 1}, {"start": "1", "end": 2}, {"start": 1, "end": math.nan}])
    def test_a_region_without_an_extent_is_an_entry_that_says_so(self, extent: dict[str, Any]) -> None:
        item = region("a", 0, 0) | {"value": extent | {"labels": ["bark"]}}
        whole, broken = meant([RAIN, item], [RAIN, item])
        assert (whole.outcome, whole.span_s) == ("accepted", None)
        assert (broken.control, broken.region, broken.outcome, broken.span_s) == ("ev", "a", "added", None)

    @pytest.mark.parametrize(
        "beside", [*NOTHING, {"result": None}, {"result": "dog"}], ids=lambda value: repr(value)[:12]
    )
    def test_a_malformed_suggestion_is_none(self, beside: Any) -> None:
        (entry,) = entries(event(said(annotation(3, DOG)), {"11": beside}))
        assert (entry.outcome, entry.model_version, entry.score) == ("added", "", None)

    def test_one_malformed_annotation_takes_no_other_along(self) -> None:
        found = entries(event(bulk(annotation(3, DOG), annotation(2**63, DOG), annotation(4, DOG, task=12))))
        assert [entry.annotation for entry in found] == [3, 4]
        _, body = deleted(3, 4)
        body["annotations"] += [None, {"id": 10**400}, {"id": "5"}, 6]
        assert [entry.annotation for entry in entries(event(("ANNOTATIONS_DELETED", body)))] == [3, 4, 6]

    def test_letters_of_all_kinds_are_kept(self) -> None:
        labels = ["häufig", "☃", "🐕", "狗", "а / б", "<b>", "'; DROP TABLE ledger; --"]
        (entry,) = meant([clip(*labels, control="ключ")], [clip(*labels, control="ключ")])
        assert (entry.control, entry.labels, entry.outcome) == ("ключ", labels, "accepted")


def _with_project(project: int | None) -> tuple[str, int | None, dict[str, Any], dict[str, Any]]:
    action, body = said(annotation(3, DOG))
    return action, project, body, {}


class TestHiddenControls:
    """What Label Studio doesn't show is no part of the ledger; the event's label config says what that is."""

    CONFIG = """<View><Audio name="audio" value="$audio"/>
      <Choices name="clip" toName="audio"><Choice value="dog"/><Choice value="rain"/></Choices>
      <Choices name="breed" toName="audio" visibleWhen="choice-selected" whenTagName="clip" whenChoiceValue="dog">
        <Choice value="big"/></Choices>
      <View visibleWhen="region-selected"><Choices name="region" toName="audio"><Choice value="noisy"/></Choices></View>
      <Labels name="ev" toName="audio"><Label value="bark"/></Labels></View>"""
    BIG = clip("big", control="breed", result_id="c2")

    def meant(self, result: list[Any], label_config: Any = CONFIG) -> dict[str, str]:
        """By control, what became of the suggestion of a big dog."""
        action, body = said(annotation(3, *result))
        body["project"] = {"id": PROJECT, "label_config": label_config}
        found = entries(event((action, body), {str(BESIDE): suggestion(DOG, self.BIG)}))
        return {entry.control: str(entry.outcome) for entry in found}

    def test_a_suggestion_that_disappeared_with_a_correction_is_none_itself(self) -> None:
        assert self.meant([RAIN]) == {"clip": "relabelled"}
        assert self.meant([RAIN], "<View/>") == {"clip": "relabelled", "breed": "deleted"}

    def test_one_that_was_shown_and_taken_away_is(self) -> None:
        assert self.meant([DOG]) == {"clip": "accepted", "breed": "deleted"}
        assert self.meant([DOG, self.BIG]) == {"clip": "accepted", "breed": "accepted"}

    def test_a_result_that_label_studio_kept_of_a_hidden_control_says_nothing(self) -> None:
        assert self.meant([RAIN, self.BIG]) == {"clip": "relabelled"}

    def test_what_a_selected_region_brought_up_was_said(self) -> None:
        noisy = clip("noisy", control="region", result_id="c3")
        assert self.meant([RAIN, noisy]) == {"clip": "relabelled", "region": "added"}

    def test_regions_stay(self) -> None:
        assert self.meant([RAIN, region("r1", 0, 1, "bark")]) == {"clip": "relabelled", "ev": "added"}

    @pytest.mark.parametrize("label_config", [None, 7, "", "<View visibleWhen=", "<View visibleWhen='x'/>"])
    def test_a_label_config_that_cannot_be_read_hides_nothing(self, label_config: Any) -> None:
        assert self.meant([RAIN], label_config) == {"clip": "relabelled", "breed": "deleted"}

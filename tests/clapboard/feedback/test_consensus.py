"""What people agree on, from what stands in the ledger."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from clapboard.feedback.consensus import BULK_WEIGHT, Agreed, Consensus, consensus
from clapboard.feedback.entries import Entry, Outcome
from clapboard.feedback.left_out import LeftOut, Tasks, UnknownLabel
from clapboard.labels.label_config import parse_label_config

SPACE = parse_label_config(
    """<View><Audio name="audio" value="$audio"/>
    <Choices name="clip" toName="audio"><Choice value="dog"/><Choice value="rain"/><Choice value="wind"/></Choices>
    <Choices name="also" toName="audio" choice="multiple"><Choice value="loud"/><Choice value="far"/></Choices>
    <Rating name="ev" toName="audio"/><TextArea name="note" toName="audio"/></View>"""
)

SHRILL = UnknownLabel("also", "shrill", (11,))


def entry(*labels: str, by: int = 1, number: int = 0, control: str = "clip", **others: object) -> Entry:
    """What an annotation says about a control; unless it is numbered, each annotator has one."""
    said = Entry(6, 11, number or 100 + by, 0.0, by, Outcome.ADDED, control=control, labels=list(labels))
    return replace(said, **others)  # type: ignore[arg-type]


def skip(by: int = 1, **others: object) -> Entry:
    return entry(by=by, control="", outcome=Outcome.SKIPPED, **others)


def in_bulk(*labels: str, by: int = 1, **others: object) -> Entry:
    return entry(*labels, by=by, outcome=Outcome.BULK, model_version="v1", **others)


def agreed(*entries: Entry) -> Consensus:
    """The consensus, the same in whatever order the annotations come."""
    found = [consensus(order, SPACE) for order in permutations(entries)]
    assert all(one == found[0] for one in found)
    return found[0]


def labels_of(found: Consensus, control: str = "clip") -> tuple[str, ...] | None:
    one = found.labels.get(11, {}).get(control)
    return one.labels if one else None


class TestSingleChoice:
    def test_what_one_person_says_holds(self) -> None:
        found = agreed(entry("dog"))
        assert found == Consensus({11: {"clip": Agreed(("dog",), 1.0, False, False)}})

    @pytest.mark.parametrize(
        ("said", "winner"),
        [
            (["dog", "dog", "rain"], "dog"),
            (["dog", "dog", "rain", "wind"], "dog"),
            (["dog", "rain"], None),
            (["dog", "dog", "rain", "rain", "wind"], None),
            (["dog", "rain", "wind"], None),
        ],
    )
    def test_most_decide_and_ties_are_left_out(self, said: list[str], winner: str | None) -> None:
        found = agreed(*(entry(label, by=by) for by, label in enumerate(said, start=1)))
        assert labels_of(found) == ((winner,) if winner else None)
        assert found.left_out.ties == (() if winner else (Tasks("clip", (11,)),))
        assert bool(found.labels) == (winner is not None)

    def test_an_annotator_counts_once_with_the_latest(self) -> None:
        mine = [entry("rain", number=number, revision=float(number)) for number in (1, 2)]
        assert labels_of(agreed(*mine, entry("dog", by=2), entry("dog", by=3))) == ("dog",)
        assert labels_of(agreed(*mine, entry("wind", number=3, revision=3.0))) == ("wind",)

    def test_the_later_number_decides_between_equal_revisions(self) -> None:
        assert labels_of(agreed(entry("dog", number=2), entry("rain", number=1))) == ("dog",)

    def test_those_whose_name_is_lost_are_several(self) -> None:
        found = agreed(*(entry(label, by=0, number=n) for n, label in enumerate(("dog", "rain", "dog"), start=1)))
        assert labels_of(found) == ("dog",)

    def test_saying_nothing_is_no_vote(self) -> None:
        found = agreed(entry(by=1, outcome=Outcome.DELETED), entry(by=2, control=""), entry("dog", by=3))
        assert labels_of(found) == ("dog",)
        assert agreed(entry(outcome=Outcome.DELETED)) == Consensus({})

    def test_tasks_do_not_mix(self) -> None:
        found = agreed(entry("dog"), entry("rain", number=7, task=12), skip(number=8, task=13))
        assert {task: labels["clip"].labels for task, labels in found.labels.items()} == {11: ("dog",), 12: ("rain",)}
        assert found.left_out == LeftOut(skipped=(13,))

    def test_nothing_gives_nothing(self) -> None:
        assert consensus([], SPACE) == Consensus({})


class TestSkips:
    def test_a_task_that_all_skipped_is_counted(self) -> None:
        assert agreed(skip(1), skip(2)) == Consensus({}, LeftOut(skipped=(11,)))

    def test_a_skip_is_no_vote(self) -> None:
        found = agreed(skip(1), skip(2), entry("dog", by=3))
        assert (labels_of(found), found.left_out.skipped) == (("dog",), ())

    def test_who_skips_later_takes_the_vote_back(self) -> None:
        before = entry("dog", number=1, revision=1.0)
        assert agreed(before, skip(number=2, revision=2.0)) == Consensus({}, LeftOut(skipped=(11,)))
        assert labels_of(agreed(before, skip(number=2, revision=0.5))) == ("dog",)


class TestBulk:
    def test_what_was_accepted_in_bulk_alone_weighs_less(self) -> None:
        found = agreed(in_bulk("dog"))
        assert found.labels[11]["clip"] == Agreed(("dog",), BULK_WEIGHT, True, True)

    def test_who_listened_decides_against_any_number_who_did_not(self) -> None:
        found = agreed(in_bulk("dog", by=1), in_bulk("dog", by=2), entry("rain", by=3))
        assert found.labels[11]["clip"] == Agreed(("rain",), 1.0, False, False)
        assert found.left_out.ties == ()

    def test_what_somebody_heard_outlives_their_own_bulk_action(self) -> None:
        found = agreed(entry("rain", number=1, revision=1.0), in_bulk("dog", number=2, revision=2.0))
        assert labels_of(found) == ("rain",)

    def test_a_skip_of_another_leaves_them_alone(self) -> None:
        found = agreed(in_bulk("dog", by=1), skip(2))
        assert (labels_of(found), found.left_out.skipped) == (("dog",), ())


class TestGroundTruth:
    def test_it_wins_outright(self) -> None:
        gold = entry("wind", by=9, ground_truth=True)
        found = agreed(entry("dog", by=1), entry("dog", by=2), gold, entry("rain", by=9, number=2, revision=9.0))
        assert labels_of(found) == ("wind",)
        assert labels_of(agreed(replace(gold, outcome=Outcome.BULK), entry("dog", by=2))) == ("wind",)

    def test_several_decide_among_themselves(self) -> None:
        gold = [entry(label, by=by, ground_truth=True) for by, label in enumerate(("dog", "rain"), start=1)]
        assert agreed(*gold, entry("dog", by=3)).left_out.ties == (Tasks("clip", (11,)),)

    def test_a_skip_is_none(self) -> None:
        assert labels_of(agreed(skip(1, ground_truth=True), entry("dog", by=2))) == ("dog",)


class TestSuggestionBias:
    def test_one_voter_with_a_suggestion_in_sight_is_enough(self) -> None:
        blind, seeing = entry("dog", by=1), entry("dog", by=2, model_version="v1", outcome=Outcome.ACCEPTED)
        assert not agreed(blind).labels[11]["clip"].suggestion_biased
        assert agreed(blind, seeing).labels[11]["clip"].suggestion_biased

    def test_those_outvoted_do_not_bias(self) -> None:
        found = agreed(entry("dog", by=1), entry("dog", by=2), entry("rain", by=3, model_version="v1"))
        assert not found.labels[11]["clip"].suggestion_biased


class TestMultipleChoice:
    @pytest.mark.parametrize(
        ("said", "winners"),
        [
            ([["far", "loud"]], ("loud", "far")),
            ([["loud"], ["loud", "far"], ["loud"]], ("loud",)),
            ([["loud"], ["far"], []], ()),
            ([["loud"], ["loud"], ["loud"], ["far"]], ("loud",)),
            ([["loud"], ["loud", "far"]], None),
            ([["loud"], []], None),
            ([[], []], ()),
        ],
    )
    def test_most_decide_on_each_label(self, said: list[list[str]], winners: tuple[str, ...] | None) -> None:
        votes = (entry(*labels, by=by, control="also") for by, labels in enumerate(said, start=1))
        found = agreed(*votes)
        assert labels_of(found, "also") == winners
        assert found.left_out.ties == (() if winners is not None else (Tasks("also", (11,)),))

    def test_an_annotation_that_says_nothing_at_all_means_none(self) -> None:
        assert agreed(entry(control="")).labels[11] == {"also": Agreed((), 1.0, False, False)}

    def test_one_that_speaks_of_others_alone_says_nothing_of_it(self) -> None:
        assert list(agreed(entry("dog")).labels[11]) == ["clip"]

    def test_controls_are_agreed_on_by_themselves(self) -> None:
        first = [entry("dog", by=1), entry("loud", by=1, control="also")]
        found = agreed(*first, entry("rain", by=2))
        assert (labels_of(found), labels_of(found, "also"), found.left_out.ties) == (
            None,
            ("loud",),
            (Tasks("clip", (11,)),),
        )


class TestLabelsThatAreGone:
    def test_they_are_counted_and_left_out(self) -> None:
        found = agreed(entry("cat", by=1), entry("cat", by=2), entry("dog", by=3))
        assert (labels_of(found), found.left_out) == (("dog",), LeftOut(unknown=(UnknownLabel("clip", "cat", (11,)),)))
        assert agreed(entry("cat")) == Consensus({}, LeftOut(unknown=(UnknownLabel("clip", "cat", (11,)),)))

    def test_the_others_of_a_choice_stay(self) -> None:
        found = agreed(entry("loud", "shrill", control="also"))
        assert (labels_of(found, "also"), found.left_out.unknown) == (("loud",), (SHRILL,))

    def test_a_choice_of_nothing_else_is_not_taken_for_none(self) -> None:
        found = agreed(entry("shrill", control="also"))
        assert (labels_of(found, "also"), found.left_out.unknown) == (None, (SHRILL,))

    def test_several_labels_where_one_is_asked_for_are_left_out(self) -> None:
        found = agreed(entry("dog", "rain"))
        assert found == Consensus({}, LeftOut(several=(Tasks("clip", (11,)),)))

    def test_controls_that_are_gone_are_counted_but_not_those_left_to_people(self) -> None:
        gone = entry("old", number=1, control="before")
        note, event = (entry("x", number=1, control=name, region=name) for name in ("note", "ev"))
        assert agreed(gone, note, event) == Consensus({}, LeftOut(unknown=(UnknownLabel("before", "old", (11,)),)))

    def test_regions_of_a_control_are_no_labels_of_the_clip(self) -> None:
        assert agreed(entry("dog", region="r1")) == Consensus({})


class TestHiddenControls:
    """Nobody says «none of these» of what they didn't see."""

    SPACE = parse_label_config(
        """<View><Audio name="audio" value="$audio"/>
        <Choices name="clip" toName="audio"><Choice value="dog"/><Choice value="rain"/></Choices>
        <Choices name="also" toName="audio" choice="multiple"
          visibleWhen="choice-selected" whenTagName="clip" whenChoiceValue="dog">
          <Choice value="loud"/><Choice value="far"/></Choices></View>"""
    )

    def agreed(self, *entries: Entry) -> dict[str, tuple[str, ...]]:
        found = consensus(entries, self.SPACE).labels.get(11, {})
        return {control: one.labels for control, one in found.items()}

    def test_a_control_that_was_shown_and_left_empty_has_none_of_its_labels(self) -> None:
        left = entry(control="also", outcome=Outcome.DELETED, suggested=["loud"])
        assert self.agreed(entry("dog"), left) == {"clip": ("dog",), "also": ()}

    def test_one_that_was_hidden_has_no_say(self) -> None:
        for hidden in (
            entry(control="also", outcome=Outcome.DELETED, suggested=["loud"]),
            entry("far", control="also"),
        ):
            assert self.agreed(entry("rain"), hidden) == {"clip": ("rain",)}
        assert self.agreed(entry(control="")) == {}

    def test_each_annotation_is_seen_by_itself(self) -> None:
        saw, saw_not = (entry("dog", by=1), entry("far", by=1, control="also")), (entry("rain", by=2),)
        assert self.agreed(*saw, *saw_not) == {"also": ("far",)}

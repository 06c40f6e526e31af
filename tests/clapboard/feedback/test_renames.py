"""Labels under the names that they have today."""

from __future__ import annotations

import pytest

from clapboard.feedback.entries import Entry, Outcome
from clapboard.feedback.renames import Rename, renamed
from clapboard.labels.label_config import parse_label_config

SPACE = parse_label_config(
    """<View><Audio name="audio" value="$audio"/>
    <Choices name="sound" toName="audio"><Choice value="dog"/><Choice value="rain"/></Choices></View>"""
)


def said(*labels: str, control: str = "sound") -> Entry:
    return Entry(6, 11, 1, 0.0, 1, Outcome.RELABELLED, control, labels=list(labels), suggested=["dog bark"])


@pytest.mark.parametrize(
    ("renames", "labels"),
    [
        ([], ["dog bark"]),
        ([Rename("sound", "dog bark", "sound", "dog")], ["dog"]),
        ([Rename("sound", "dog bark", "sound", "hound"), Rename("sound", "hound", "sound", "dog")], ["dog"]),
        ([Rename("sound", "dog bark", "sound", "hound"), Rename("sound", "hound", "sound", "dog bark")], ["dog bark"]),
        ([Rename("other", "dog bark", "sound", "dog")], ["dog bark"]),
    ],
)
def test_a_label_has_the_last_name_that_it_was_given(renames: list[Rename], labels: list[str]) -> None:
    (entry,) = renamed([said("dog bark")], renames, SPACE)
    assert (entry.labels, entry.suggested) == (labels, labels)


def test_a_label_that_the_label_config_has_is_left_alone() -> None:
    (entry,) = renamed([said("rain")], [Rename("sound", "rain", "sound", "dog")], SPACE)
    assert entry.labels == ["rain"]


def test_a_control_that_was_renamed_takes_its_labels_along() -> None:
    renames = [Rename("noise", "", "sound", ""), Rename("sound", "dog bark", "sound", "dog")]
    (entry,) = renamed([said("rain", "dog bark", control="noise")], renames, SPACE)
    assert (entry.control, entry.labels) == ("sound", ["rain", "dog"])

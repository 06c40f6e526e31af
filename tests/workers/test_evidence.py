"""Which labels may judge a candidate beside the held-out ones."""

from __future__ import annotations

import pytest

from clapboard.feedback.consensus import Agreed
from workers.evidence import Evidence

HEARD, BULK = Agreed(("dog",), 1.0, False, True), Agreed(("dog",), 0.3, True, False)


@pytest.mark.parametrize(
    ("suggested_by", "learnt", "controls"),
    [
        (set(), set(), ("clip",)),
        ({"mini-11"}, set(), ("clip",)),  # leans towards what serves
        ({"mini-11", "mini-tuned-3-22"}, set(), ()),  # might lean towards the candidate
        (set(), {"tape 1"}, ()),
        (set(), {"sound"}, ()),
        (set(), None, ()),  # nobody knows what the serving encoder has learnt from
    ],
)
def test_labels_that_might_favour_the_candidate_are_no_evidence(
    suggested_by: set[str], learnt: set[str] | None, controls: tuple[str, ...]
) -> None:
    evidence = Evidence("mini-11", {1: suggested_by}, learnt)
    assert evidence.controls(1, "tape 1", "sound", {"clip": HEARD, "place": BULK}) == controls

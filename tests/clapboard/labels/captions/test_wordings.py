from __future__ import annotations

from clapboard.labels.captions.wordings import WORDINGS
from training.sounds.synthesis import KINDS


def test_every_kind_that_we_synthesise_has_its_own_wording() -> None:
    assert set(WORDINGS) == set(KINDS)
    for keyword, names in WORDINGS.items():
        assert keyword in names.all or keyword.removesuffix(" beep") in names.all


def test_no_name_stands_for_two_kinds() -> None:
    names = [name for wording in WORDINGS.values() for name in {*wording.all, *wording.clauses}]
    assert len(names) == len(set(names))

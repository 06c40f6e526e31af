from __future__ import annotations

import re

import pytest

from training.benchmarks.figures import Classification
from training.benchmarks.published import PUBLISHED, RETRIEVAL, SUPERVISED, ZERO_SHOT
from training.benchmarks.registry import SOURCES
from training.benchmarks.tables import Result, layouts
from training.evaluation.retrieval import Recalls, Retrieval

KEYS = {source.key for source in SOURCES}


def test_every_data_set_has_its_columns() -> None:
    columns = {(column.key, column.measure) for layout in layouts(KEYS) for column in layout.columns}
    captioned, classified = {"audiocaps", "clotho"}, KEYS - {"audiocaps", "clotho"}
    assert columns == {(key, name) for key in captioned for name in RETRIEVAL} | {
        (key, name) for key in classified for name in (ZERO_SHOT, SUPERVISED)
    }


@pytest.mark.parametrize(
    ("keys", "titles"),
    [
        ({"clotho"}, ["1. Retrieval on Clotho, %"]),
        ({"esc50", "fsd50k"}, ["2. Zero-shot accuracy, %", "3. Supervised accuracy, %"]),
        (set(), []),
    ],
)
def test_tables_without_a_chosen_data_set_are_left_out(keys: set[str], titles: list[str]) -> None:
    found = layouts(keys)
    assert [layout.title for layout in found] == titles
    assert {column.key for layout in found for column in layout.columns} == keys


def test_a_result_tells_its_figures_by_the_tables_names() -> None:
    about = ("esc50", "ESC-50", 3, 3, (), ())
    assert Result(*about, zero_shot=Classification(0.5, 3)).measures == {ZERO_SHOT: 0.5}
    both = Retrieval(3, 15, Recalls(0.1, 0.2, 0.3, 0.4), Recalls(0.5, 0.6, 0.7, 0.8), 0.9)
    measures = Result(*about, retrieval=both).measures
    assert (measures["T→A R@1"], measures["T→A mAP@10"], measures["A→T R@10"], measures["A→T mAP@10"]) == (
        0.1,
        0.4,
        0.7,
        0.8,
    )


def test_published_figures_stand_in_a_column_and_name_their_source() -> None:
    columns = {(column.key, column.measure) for layout in layouts(KEYS) for column in layout.columns}
    for one in PUBLISHED:
        assert len(one.source) > 10
        assert one.figures
        for key, figures in one.figures.items():
            for measure, value in figures.items():
                assert (key, measure) in columns
                assert re.fullmatch(r"\d\d(\.\d{1,2})?", value), value
    assert len({(one.model, one.source) for one in PUBLISHED}) == len(PUBLISHED)

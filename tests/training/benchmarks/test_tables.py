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


def test_each_captioned_set_has_the_authors_row_before_all_others() -> None:
    for key in ("audiocaps", "clotho"):
        first = next(one for one in PUBLISHED if key in one.figures)
        assert first.model == "LAION-CLAP"
        assert first.source.startswith("arXiv 2211.06687")
        assert set(first.figures[key]) == {name for name in RETRIEVAL if "R@" in name}


@pytest.mark.parametrize(
    ("num_heard", "by_fold", "expected"),
    [
        (15, dict.fromkeys("12345", 0.5), ""),
        (14, dict.fromkeys("12345", 0.5), "14 of 15 clips"),
        (9, dict.fromkeys("123", 0.5), "9 of 15 clips, 3 of 5 folds"),
    ],
)
def test_a_result_tells_what_it_is_of_where_that_isnt_all(
    num_heard: int, by_fold: dict[str, float], expected: str
) -> None:
    found = Classification(0.5, num_heard, by_fold=by_fold)
    assert Result("esc50", "ESC-50", 15, num_heard, (), (), zero_shot=found, num_folds=5).shortfall == expected
    assert Result("gtzan", "GTZAN", 15, 0, (), (), num_folds=10).shortfall == "0 of 15 clips, 0 of 10 folds"
    assert Result("clotho", "Clotho", 3, 2, (), ()).shortfall == "2 of 3 clips"

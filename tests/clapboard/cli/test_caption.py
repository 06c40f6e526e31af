"""`clapboard caption`: what tags become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clapboard.errors import ClapboardError, ModelError
from clapboard.labels.captions import RULES
from tests.clapboard.cli.conftest import Clapboard, lines
from tests.support.text_models import save_taught_t5


def test_captions_are_those_that_pretraining_draws(clapboard: Clapboard) -> None:
    done = clapboard("caption", "Hand_saw", "rain", "--count", "4", "--seed", "3", "--relation", "background")
    assert done.exit_code == 0, done.stderr
    rng = np.random.default_rng(3)
    expected = [RULES.caption(("Hand_saw", "rain"), rng, relation="background") for _ in range(4)]
    assert done.stdout.splitlines() == expected


def test_programs_get_one_json_value(clapboard: Clapboard) -> None:
    (found,) = lines(clapboard("caption", "Hand_saw", "--count", "2", "--json"))
    assert found["keywords"] == ["Hand_saw"]
    assert found["relation"] == "together"
    assert found["replaced"] == 0
    assert len(found["captions"]) == 2


def test_a_text_model_writes_them_and_what_it_could_not_is_told(clapboard: Clapboard, tmp_path: Path) -> None:
    folder = str(save_taught_t5(tmp_path / "t5"))
    done = clapboard("caption", "dog", "--count", "1", "--t5", folder)
    assert done.stdout == "A dog barks at the gate.\n"
    assert done.stderr == ""
    done = clapboard("caption", "church bell", "--count", "1", "--t5", folder)
    assert done.exit_code == 0
    assert "church bell" in done.stdout.lower()
    assert done.stderr == "1 of 1 were made by rule, because the model's text named none of the keywords.\n"
    (found,) = lines(clapboard("caption", "church bell", "--count", "3", "--t5", folder, "--json"))
    assert found["replaced"] == 3


@pytest.mark.parametrize("arguments", [(), ("rain", "--count", "0"), ("rain", "--relation", "beside")])
def test_wrong_usage_is_2(clapboard: Clapboard, arguments: tuple[str, ...]) -> None:
    assert clapboard("caption", *arguments).exit_code == 2


def test_what_can_not_be_captioned_is_one_sentence(clapboard: Clapboard) -> None:
    assert isinstance(clapboard("caption", "rain", "_").exception, ClapboardError)
    assert isinstance(clapboard("caption", "rain", "--t5", "/nowhere").exception, ModelError)

from __future__ import annotations

import pytest

from backend.wire import project_id
from clapboard.errors import RequestError


@pytest.mark.parametrize(
    ("given", "number"), [("2.1795338111", 2), ("2", 2), (2, 2), (None, 0), ("", 0), ("0", 0), ("007", 7)]
)
def test_a_projects_number_is_read_in_every_form(given: str | int | None, number: int) -> None:
    assert project_id(given) == number


@pytest.mark.parametrize("given", ["two", "-1", ".5", "2e3", "٣", "9" * 19, " 2"])
def test_a_project_without_a_number_is_refused(given: str) -> None:
    with pytest.raises(RequestError, match="no Label Studio project"):
        project_id(given)

from __future__ import annotations

import pytest

from backend.polling import pause_s


@pytest.mark.parametrize(("waited_s", "pause"), [(0.0, 0.03), (0.2, 0.03), (1.0, 0.1), (2.0, 0.2), (20.0, 0.3)])
def test_a_longer_wait_looks_less_often(waited_s: float, pause: float) -> None:
    assert pause_s(waited_s) == pytest.approx(pause)

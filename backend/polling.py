"""How often a request that waits for workers looks at the store."""

from __future__ import annotations

_SHORTEST_S, _LONGEST_S = 0.03, 0.3


def pause_s(waited_s: float) -> float:
    """Seconds until the next look: a tenth of the wait so far, within bounds, so that many requests can wait."""
    return min(_LONGEST_S, max(_SHORTEST_S, waited_s / 10))

"""A row of the table: what is compared with what, what was measured, and what was to be reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

PER_SECOND, BYTES = "/s", "bytes"


@dataclass(frozen=True)
class Goal:
    """Bounds of the ratio, and of our own figure in the row's unit. All that are given have to be kept."""

    ratio_at_least: float | None = None
    ratio_at_most: float | None = None
    ours_at_least: float | None = None
    ours_at_most: float | None = None

    def reached(self, ours: float, ratio: float | None) -> bool:
        """Whether every bound is kept. Raises `ValueError` where a ratio is bounded and there is none."""
        kept = [_within(ours, self.ours_at_least, self.ours_at_most)]
        if self.ratio_at_least is not None or self.ratio_at_most is not None:
            if ratio is None:
                raise ValueError("a goal for the ratio needs a peer")
            kept.append(_within(ratio, self.ratio_at_least, self.ratio_at_most))
        return all(kept)

    def text(self, unit: str) -> str:
        """As the table shows it: «≤ 2×, ≤ 100 ms»."""
        ratios = (("≥", self.ratio_at_least), ("≤", self.ratio_at_most))
        figures = (("≥", self.ours_at_least), ("≤", self.ours_at_most))
        told = [f"{sign} {bound:g}×" for sign, bound in ratios if bound is not None]
        return ", ".join(told + [f"{sign} {quantity(bound, unit)}" for sign, bound in figures if bound is not None])


@dataclass(frozen=True)
class Case:
    """A row before it is measured. Name and peer together are its own.

    `ratio_of` says which way the two figures are divided: «peer ÷ ours» is how many times faster we are.
    """

    name: str
    unit: str  # s, s/clip, clips/s, windows/s or bytes
    peer_name: str = ""  # with its version; empty: there is none
    goal: Goal | None = None
    ratio_of: Literal["peer ÷ ours", "ours ÷ peer"] = "peer ÷ ours"


@dataclass(frozen=True)
class Figures:
    """What was measured, in the case's unit."""

    ours: float
    peer: float | None = None


@dataclass(frozen=True)
class Row:
    """A case and what came of it: the figures, or the reason why there are none."""

    case: Case
    hardware: str
    figures: Figures | None = None
    skipped: str = ""
    failed: bool = False  # skipped because of an error

    @property
    def ratio(self) -> float | None:
        """As `Case.ratio_of` says; None without a peer's figure."""
        if self.figures is None or self.figures.peer is None:
            return None
        ours, peer = self.figures.ours, self.figures.peer
        return peer / ours if self.case.ratio_of == "peer ÷ ours" else ours / peer

    @property
    def reached(self) -> bool | None:
        """Whether the goal is; None without a goal or figures."""
        if self.case.goal is None or self.figures is None:
            return None
        return self.case.goal.reached(self.figures.ours, self.ratio)

    def as_json(self) -> Mapping[str, Any]:
        """The row in bench.json. `skipped` is null for a row that was measured."""
        case, figures = self.case, self.figures
        return {
            "name": case.name,
            "ours": figures and figures.ours,
            "peer": figures and figures.peer,
            "peer_name": case.peer_name or None,
            "ratio": self.ratio,
            "ratio_of": case.ratio_of if case.peer_name else None,
            "unit": case.unit,
            "goal": case.goal and case.goal.text(case.unit),
            "reached": self.reached,
            "skipped": self.skipped or None,
            "hardware": self.hardware,
        }


def quantity(value: float, unit: str) -> str:
    """The value with its unit, in digits that can be read: «12.3 ms/clip», «1.20 GB», «2,500 clips/s»."""
    if unit.endswith(PER_SECOND):
        return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"
    if unit == BYTES:
        return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"
    if value >= 1:
        return f"{value:.3g} {unit}"
    return f"{1e3 * value:.3g} m{unit}"


def _within(value: float, lowest: float | None, highest: float | None) -> bool:
    return (lowest is None or value >= lowest) and (highest is None or value <= highest)

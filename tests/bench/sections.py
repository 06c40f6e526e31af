"""Sections of the bench: cases that are measured together, and how a run goes through them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.rows import Case, Figures, Row

Outcome = Figures | str
"""What was measured, or why it could not be."""

LEFT_OUT = "left out by --quick"


@dataclass(frozen=True)
class Effort:
    """How thorough a run is: of `quick` ones only the course is looked at, never the figures."""

    checkpoint: Path  # random weights; of the real size, unless it is a quick run
    folder: Path  # for whatever a section writes
    quick: bool = False

    def of(self, thorough: int, quick: int) -> int:
        """The one or the other number."""
        return quick if self.quick else thorough


@dataclass(frozen=True)
class Section:
    """Cases with one way to measure them. `obstacle` says why that can't be done here, or nothing."""

    cases: Sequence[Case]
    measure: Callable[[Effort], Mapping[Case, Outcome]]
    obstacle: Callable[[], str] = str
    in_quick: bool = True


def run_section(section: Section, cases: Sequence[Case], effort: Effort, hardware: str) -> list[Row]:
    """A row for each of these cases of the section, whatever happens: what fails says so in its rows."""
    reason = LEFT_OUT if effort.quick and not section.in_quick else section.obstacle()
    if reason:
        return [Row(case, hardware, skipped=reason) for case in cases]
    try:
        found = section.measure(effort)
        return [_row(case, hardware, found[case]) for case in cases]
    except Exception as error:  # of any class: the other sections' figures shall not be lost with it
        traceback.print_exc()
        reason = f"failed: {type(error).__name__}: {error}".splitlines()[0]
        return [Row(case, hardware, skipped=reason, failed=True) for case in cases]


def chosen(sections: Sequence[Section], substring: str) -> list[tuple[Section, list[Case]]]:
    """The sections with those of their cases whose name or peer holds the substring, in whatever case it is written."""
    wanted = substring.casefold()
    found = []
    for section in sections:
        cases = [case for case in section.cases if wanted in f"{case.name} {case.peer_name}".casefold()]
        if cases:
            found.append((section, cases))
    return found


def _row(case: Case, hardware: str, outcome: Outcome) -> Row:
    return Row(case, hardware, outcome) if isinstance(outcome, Figures) else Row(case, hardware, skipped=outcome)

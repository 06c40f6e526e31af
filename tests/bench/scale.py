"""Serving at scale: cached predictions, what comes of an annotation, search in a million windows.

They are measured by `serving`, `learning` and `search`; here they become rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from demo.label_studio_server import VENV, is_installed
from tests.bench.learning import accept_seconds
from tests.bench.rows import BYTES, Case, Figures, Goal
from tests.bench.search import search_seconds
from tests.bench.sections import Effort, Outcome, Section
from tests.bench.serving import failed_seconds, predict_seconds

NUM_TASKS, MANY_TASKS = 100, 10_000
NUM_WINDOWS = 1_000_000
FASTAPI = f"FastAPI {version('fastapi')}"
CACHED = Case(
    f"cached /predict, {NUM_TASKS} tasks",
    "s",
    f"{FASTAPI}, a constant of that size",
    Goal(ratio_at_most=3),
    "ours ÷ peer",
)
LINEAR = Case(
    f"cached /predict, {MANY_TASKS:,} tasks, for each {NUM_TASKS}",
    "s",
    f"itself with {NUM_TASKS} tasks",
    Goal(ratio_at_most=1.2),
    "ours ÷ peer",
)
FAILED = Case("/predict of a task that failed before, p95", "s", goal=Goal(ours_at_most=0.05))
ACCEPTED = Case(
    "annotation → new suggestions shown, 1,000 tasks",
    "s",
    "Label Studio's own import of as many predictions",
    Goal(ours_at_most=1),
    "ours ÷ peer",
)
_PRODUCT = f"one float32 product by numpy {version('numpy')} over the same vectors"
SEARCH = Case(f"text search over {NUM_WINDOWS:,} windows", "s", _PRODUCT, Goal(ratio_at_most=1.0), "ours ÷ peer")
SEARCH_MEMORY = Case(
    f"vectors of {NUM_WINDOWS:,} windows in memory", BYTES, _PRODUCT, Goal(ratio_at_most=0.5), "ours ÷ peer"
)


def measure_cached(effort: Effort) -> Mapping[Case, Outcome]:
    """`/predict` beside the constant answer, and ten thousand tasks beside a hundred."""
    ours, constant = predict_seconds(num_tasks=NUM_TASKS, rounds=effort.of(20, 2))
    many_tasks = effort.of(MANY_TASKS, 2 * NUM_TASKS)
    many, _ = predict_seconds(num_tasks=many_tasks, rounds=effort.of(5, 1))
    return {CACHED: Figures(ours, constant), LINEAR: Figures(many * NUM_TASKS / many_tasks, ours)}


def measure_failed(effort: Effort) -> Mapping[Case, Outcome]:
    """What somebody waits for whose task's audio can't be had."""
    return {FAILED: Figures(failed_seconds(rounds=effort.of(400, 10)))}


def measure_accepted(effort: Effort) -> Mapping[Case, Outcome]:
    """From an annotation to what Label Studio shows."""
    return {ACCEPTED: Figures(*accept_seconds(num_tasks=effort.of(1000, 50), rounds=effort.of(8, 1)))}


def measure_search(effort: Effort) -> Mapping[Case, Outcome]:
    """The nearest windows to a text, beside the scores alone."""
    ours, peer, our_bytes, peer_bytes = search_seconds(num_windows=effort.of(NUM_WINDOWS, 2000), rounds=effort.of(9, 1))
    return {SEARCH: Figures(ours, peer), SEARCH_MEMORY: Figures(our_bytes, peer_bytes)}


def _no_label_studio() -> str:
    return "" if is_installed(VENV) else "Label Studio is not installed: run `make install`"


CACHED_SECTION = Section((CACHED, LINEAR), measure_cached)
FAILED_SECTION = Section((FAILED,), measure_failed)
ACCEPTED_SECTION = Section((ACCEPTED,), measure_accepted, _no_label_studio, in_quick=False)
SEARCH_SECTION = Section((SEARCH, SEARCH_MEMORY), measure_search)

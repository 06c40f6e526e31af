"""Tabs in Label Studio's Data Manager: one for where to begin, and one for each reason why a form may be empty.

The labelling page can't show these reasons: of a suggestion it shows the version and score, of a task's `meta` nothing,
and of a result's `meta` only that of regions. So `connect` makes tabs, and workers keep them up to date:

    unsure first     has a suggestion and no annotation; lowest score first
    held out         gets no suggestion, so that its labels can judge a model fairly
    no audio         could not be predicted; `clapboard jobs` says why
    nothing heard    has a suggestion, which is empty
    not yet          none of these: its suggestion is still to come

Nothing is written to tasks, so exports don't change. A tab that a person renamed or added filters to stays that way. A
tab whose task filter a person removed is left alone from then on. A tab that a person closed comes back only with the
next `connect`.
"""

from __future__ import annotations

from typing import Any

from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.tabs import Tab, condition, none_of, one_of
from clapboard.store import Store

MAX_IDS = 2_000
"""How many tasks a tab lists by id, the newest ones: PostgreSQL is slow at longer expressions."""

UNSURE, HELD_OUT, NO_AUDIO, NOTHING_HEARD, NOT_YET = TABS = (
    "unsure first",
    "held out",
    "no audio",
    "nothing heard",
    "not yet",
)
_DEFAULT = "Default"  # what Label Studio's own page calls the first tab
_ID_FILTER = ("filter:tasks:id", "regex")


def make_tabs(store: Store, client: LabelStudioClient, project_id: int) -> list[str]:
    """Make the tabs that are missing and update the others. Returns the names of those that were made.

    Raises `LabelStudioError`.
    """
    there = {tab.id: tab for tab in client.tabs(project_id)}
    patterns = _patterns(store, project_id)
    ours = {name: tab for name, tab in store.tabs.of_project(project_id).items() if tab in there}
    hidden = client.hidden_columns(project_id)
    if not there:  # Label Studio makes its tab of all tasks only for a project without tabs
        client.add_tab(project_id, {"title": _DEFAULT, "hiddenColumns": hidden})
    made = [name for name in TABS if name not in ours]
    for name in made:
        twin = next((tab.id for tab in there.values() if _is_twin(tab, name)), None)  # a tab that another store made
        store.tabs.put(project_id, name, twin or client.add_tab(project_id, _data(name, patterns, hidden)))
    _update(store, client, project_id, there, patterns)
    return made


def keep_tabs(store: Store, client: LabelStudioClient, project_id: int) -> int:
    """Update the tabs that are there. Returns how many had to change. Raises `LabelStudioError`."""
    if not (ours := store.tabs.of_project(project_id)):
        return 0
    there = {tab.id: tab for tab in client.tabs(project_id)}
    if not there:  # deleting all tasks of a project deletes its tabs, too
        return len(make_tabs(store, client, project_id))
    return _update(
        store,
        client,
        project_id,
        {tab: there[tab] for tab in ours.values() if tab in there},
        _patterns(store, project_id),
    )


def _update(
    store: Store, client: LabelStudioClient, project_id: int, there: dict[int, Tab], patterns: dict[str, str]
) -> int:
    num_changed = 0
    for name, tab_id in store.tabs.of_project(project_id).items():
        tab = there.get(tab_id)
        listed = _listed(tab) if tab else None
        if tab and listed and name in patterns and listed["value"] != patterns[name]:
            listed["value"] = patterns[name]
            client.change_tab(project_id, tab)
            num_changed += 1
    return num_changed


def _patterns(store: Store, project_id: int) -> dict[str, str]:
    """By tab, the regular expression that matches the ids of its tasks."""
    held_out = set(store.tasks.held_out(project_id))
    failed = store.jobs.failed_for_good(project_id) - held_out
    return {
        HELD_OUT: one_of(_newest(held_out)),
        NO_AUDIO: one_of(_newest(failed)),
        NOT_YET: none_of(_newest(held_out | failed)),
    }


def _newest(ids: set[int]) -> list[int]:
    return sorted(ids)[-MAX_IDS:]


def _data(name: str, patterns: dict[str, str], hidden: dict[str, list[str]]) -> dict[str, Any]:
    """The tab as Label Studio's API takes it: title, filters, order and columns."""
    unannotated = condition("total_annotations", "equal", "Number", 0)
    by_id = condition("id", "regex", "String", patterns.get(name, ""))
    items = {
        UNSURE: [condition("predictions_score", "empty", "Number", False), unannotated],
        HELD_OUT: [by_id],
        NO_AUDIO: [by_id],
        NOTHING_HEARD: [condition("predictions_results", "equal", "String", "[]")],
        NOT_YET: [condition("total_predictions", "equal", "Number", 0), unannotated, by_id],
    }[name]
    shown = {"tasks:predictions_score"} if name in (UNSURE, NOTHING_HEARD) else set()
    columns = {view: [name for name in names if name not in shown] for view, names in hidden.items()}
    data: dict[str, Any] = {"title": name, "hiddenColumns": columns}
    data["filters"] = {"conjunction": "and", "items": items}
    if name in patterns:
        data["columnsDisplayType"] = {
            "tasks:id": "String"
        }  # without this the page offers no regular expressions for ids
    if name == UNSURE:
        data["ordering"] = ["tasks:predictions_score"]
    return data


def _listed(tab: Tab) -> dict[str, Any] | None:
    """The tab's filter by task id."""
    filters = tab.data.get("filters") or {}
    return next((item for item in filters.get("items", []) if (item["filter"], item["operator"]) == _ID_FILTER), None)


def _is_twin(tab: Tab, name: str) -> bool:
    """Whether the tab has our title and filters, though our store has no record of it."""
    expected = _data(name, {}, {})["filters"]["items"]
    actual = (tab.data.get("filters") or {}).get("items", [])
    return tab.data.get("title") == name and _operators(actual) == _operators(expected)


def _operators(items: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(item["filter"], item["operator"]) for item in items]

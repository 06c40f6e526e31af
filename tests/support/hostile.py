"""Hostile JSON: what a task's or an event's fields may hold where somebody means harm, or a program is broken."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

TEXTS = (
    "\ud800",
    "\udfffa",
    "\0",
    "a\0b",
    "\ufffe",
    "\U0001f415",
    "x" * 10_000,
    "../x",
    "1.1795338111",
    str(2**63),
    "NaN",
    "data:audio/wav;base64,\0",
    "data:,\ud800",
    "s3://bucket/\0.wav",
    "http://[::1/a.wav",
    "http://host.example:99999/a.wav",
    "https://\0host.example/a.wav",
    "/data/upload/1/\ud800.wav",
    "/data/upload/1/a.wav",
    "9999-99-99T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "2026-01-01T00:00:00Z",
    "' OR 1=1 --",
)
NUMBERS = (
    0,
    -1,
    1,
    2**31,
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    10**400,
    math.nan,
    math.inf,
    -math.inf,
    1e308,
    0.5,
)


def nested(levels: int) -> Any:
    """A value of so many levels, lists and objects in turns."""
    value: Any = 0
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.text(alphabet=st.characters(exclude_categories=()), max_size=5),
)
values = st.recursive(
    st.one_of(scalars, st.sampled_from([nested(260), {}, []])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(["id", "start", "choices", "\ud800", "\0"]), st.text(max_size=3)),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


def either(*usual: Any) -> st.SearchStrategy[Any]:
    """A usual value, or a hostile one."""
    return st.one_of(st.sampled_from(usual), st.sampled_from(usual), values)


def some_of(
    always: dict[str, st.SearchStrategy[Any]] | None = None, /, **members: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    """An object with some of the members, and perhaps one that nobody knows."""
    return st.fixed_dictionaries(always or {}, optional=members | {"\ud800?": values})


results = st.lists(
    st.one_of(
        values,
        some_of(
            id=either("r1", "r2", "clapboard-clip"),
            from_name=either("clip", "event"),
            to_name=either("audio"),
            type=either("choices", "labels", "taxonomy", "textarea", "rating"),
            value=st.one_of(
                values,
                some_of(
                    start=either(0.5, "x"),
                    end=either(2.0, "x"),
                    choices=either(["dog"], None, "dog", [["dog"]], [None]),
                    labels=either(["bark"], [["bark"]]),
                    taxonomy=either([["a", "b"]], [[]]),
                    text=either("said"),
                    rating=either(3),
                ),
            ),
        ),
    ),
    max_size=3,
)


def tasks(*numbers: int) -> st.SearchStrategy[Any]:
    """A task, mostly of one of those ids."""
    data = some_of(audio=either("https://host.example/a.wav", "/data/upload/1/a.wav"), recording=either("tape 1", 17))
    return some_of(
        {"id": either(*numbers), "data": st.one_of(values, data, data, data)},
        project=either(5),
        annotations=values,
        predictions=st.one_of(values, st.lists(some_of(model_version=either("v1")), max_size=2)),
    )


def annotations(*numbers: int) -> st.SearchStrategy[Any]:
    """An annotation, mostly of one of those tasks."""
    return some_of(
        {
            "id": either(1, 2, 3),
            "task": either(*numbers),
            "result": st.one_of(results, results, values),
            "updated_at": either("2026-01-01T00:00:00.5Z", "2026-01-02T00:00:00", "9999-12-31T23:59:59-14:00"),
        },
        project=either(5),
        completed_by=either(1, {"id": 2}),
        was_cancelled=either(False, True),
        ground_truth=either(False),
        lead_time=either(3.5, -1.0),
        created_at=either("2026-01-01T00:00:00Z"),
        parent_prediction=values,
        bulk_created=either(True, False),
    )


def events(project: int, *numbers: int) -> st.SearchStrategy[Any]:
    """An event of the project's webhook, of any kind."""
    actions = (
        *("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED", "ANNOTATIONS_DELETED"),
        *("TASKS_CREATED", "TASKS_DELETED", "PROJECT_UPDATED", "START_TRAINING"),
    )
    annotation, task = annotations(*numbers), tasks(*numbers)
    listed = st.lists(st.one_of(values, some_of(id=either(*numbers))), max_size=3)
    named = st.sampled_from([project, {"id": project}, f"{project}.1795338111"])
    return st.fixed_dictionaries(
        {
            "action": either(*actions),
            "project": named | named | some_of(id=either(project), label_config=either("<View/>")) | values,
            "annotation": st.one_of(annotation, annotation, st.lists(annotation, max_size=3), values),
        },
        optional={
            "annotations": listed,
            "task": st.one_of(task, task, st.lists(task, max_size=3), values),
            "tasks": listed,
        },
    )

"""Requests and answers as pydantic models: lenient where Label Studio's versions differ, strict where we need it."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from clapboard.errors import RequestError
from clapboard.untrusted import whole_number

PROJECT_TEXT = r"^([0-9]{1,18}(\.[0-9]*)?)?$"
PROJECT_NUMBER = {"minimum": 0, "exclusiveMaximum": 10**18}
"""A project in JSON schema: Label Studio's «id».«timestamp», a plain id, or nothing."""

_PROJECT = re.compile(r"([0-9]{1,18})(\.[0-9]*)?")


def project_id(project: str | int | None) -> int:
    """Label Studio's project number from `«id».«timestamp»`, a plain id, or nothing (0). Raises `RequestError`."""
    if isinstance(project, int):
        match: re.Match[str] | None = _PROJECT.fullmatch(str(project)) if abs(project) < 2**63 else None
    else:
        match = _PROJECT.fullmatch(project or "0")
    if match is None:
        raise RequestError("The request's project is no Label Studio project: it must look like 2 or 2.1795338111.")
    return int(match[1])


def _as_text(value: Any) -> Any:
    value = whole_number(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_object(value: Any) -> Any:
    """`extra_params` as an object: Label Studio sends an object, a string that holds one, or null."""
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {"text": value}
    return value if isinstance(value, dict) else {"value": value}


ProjectId = Annotated[
    str | None,
    BeforeValidator(_as_text),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": PROJECT_TEXT}, {"type": "integer"} | PROJECT_NUMBER, {"type": "null"}]}
    ),
]
# The tasks are looked at on a thread: there may be a hundred thousand.
Tasks = Annotated[list[Any], WithJsonSchema({"type": "array", "items": {"type": "object"}})]
LabelConfig = Annotated[str, WithJsonSchema({"type": "string", "format": "label-config"})]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class SetupRequest(_Wire):
    """The body of `POST /setup`."""

    project: ProjectId = None
    label_config: LabelConfig = Field(alias="schema")
    hostname: Annotated[
        str, BeforeValidator(lambda value: value if isinstance(value, str) else ""), WithJsonSchema({})
    ] = ""
    extra_params: Annotated[dict[str, Any], BeforeValidator(_as_object), WithJsonSchema({})] = Field(
        default_factory=dict
    )


class PredictRequest(_Wire):
    """The body of `POST /predict`."""

    tasks: Tasks
    label_config: LabelConfig
    project: ProjectId = None


class VersionsRequest(_Wire):
    """The body of `POST /versions`."""

    project: ProjectId = None


class TrainRequest(_Wire):
    """The body of `POST /train`."""

    project: Annotated[
        str,
        BeforeValidator(_as_text),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "pattern": r"^[1-9][0-9]{0,17}(\.[0-9]*)?$"},
                    {"type": "integer", "minimum": 1, "exclusiveMaximum": 10**18},
                ]
            }
        ),
    ]


class Health(_Wire):
    """The answer to `/health` and `/`."""

    status: str = "UP"
    model_class: str = "Clapboard"
    version: str


class SetupAnswer(_Wire):
    """The answer to `/setup`."""

    model_version: str


class Predictions(_Wire):
    """The answer to `/predict`: one entry per task, a prediction or the empty list."""

    results: list[dict[str, Any] | list[Any]]
    model_version: str


class Versions(_Wire):
    """The answer to `/versions`."""

    versions: list[str]


class Received(_Wire):
    """The answer to `/webhook`: the event's number in the inbox, and the job that it started, if any."""

    event: int
    job: int | None = None
    message: str | None = Field(None, description="what «Start Training» will do, or why it does nothing")


class JobAnswer(_Wire):
    """The answer to `/train`: the job, and what it will do."""

    job: int
    message: str


class MatchAnswer(_Wire):
    """A place in a task's audio that is like what was searched for. Times are seconds from the start of the audio."""

    task: int
    start_s: float
    end_s: float
    best_s: float = Field(description="start of the best window, whose score this is")
    score: float = Field(description="cosine similarity with the search, less that of the project's average window")
    audio: str
    url: str = Field(description="the task in Label Studio")


class SearchAnswer(_Wire):
    """The answer to `/search`: the matches, best first."""

    matches: list[MatchAnswer]


class Problem(_Wire):
    """The body of every error: a stable code and one sentence."""

    error: str
    detail: str

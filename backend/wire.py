"""What Label Studio sends, as pydantic models: as lenient as its versions differ, as strict as we need."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_object(value: Any) -> Any:
    """`extra_params` comes as an object, as a string that holds one, or as null."""
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {"text": value}
    return value if isinstance(value, dict) else {"value": value}


ProjectId = Annotated[str | None, BeforeValidator(_as_text)]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class SetupRequest(_Wire):
    """`POST /setup`."""

    project: ProjectId = None
    label_config: str = Field("", alias="schema")
    extra_params: Annotated[dict[str, Any], BeforeValidator(_as_object)] = Field(default_factory=dict)


class PredictRequest(_Wire):
    """`POST /predict`."""

    tasks: list[dict[str, Any]]
    label_config: str
    project: ProjectId = None


class TrainRequest(_Wire):
    """`POST /train`."""

    project: ProjectId = None


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


class JobAnswer(_Wire):
    """The answer to `/train`."""

    job: int


class MatchAnswer(_Wire):
    """A place where a task sounds like what was searched for; seconds from the start of its audio."""

    task: int
    start_s: float
    end_s: float
    best_s: float = Field(description="where the window begins that the score is of")
    score: float = Field(description="cosine with what was searched for, less that of the project's average window")
    audio: str
    url: str = Field(description="the task in Label Studio")


class SearchAnswer(_Wire):
    """The answer to `/search`, best first."""

    matches: list[MatchAnswer]


class Problem(_Wire):
    """The body of every error: a stable name and one sentence."""

    error: str
    detail: str

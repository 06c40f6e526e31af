"""The same backend as a model of label-studio-ml 2.x, for people who run its server instead of `clapboard serve`.

label-studio-ml makes a model for each request and caches every project's model version in each of its processes. With
several processes, one would go on answering the version that another has replaced. So this model remembers nothing:
versions and predictions come from Clapboard's store, through the services of each process.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flask import Flask, Response, has_request_context, request
from werkzeug.exceptions import RequestEntityTooLarge

try:
    from label_studio_ml.response import ModelResponse
except ModuleNotFoundError as error:
    raise ImportError(
        "label-studio-ml 2.x is needed, and PyPI has only 1.0.9: "
        "pip install git+https://github.com/HumanSignal/label-studio-ml-backend.git"
    ) from error
from label_studio_ml import api
from label_studio_ml.exceptions import AnswerException
from label_studio_ml.model import LabelStudioMLBase

from backend.body_limit import BodyBounds, too_large
from backend.problems import UNEXPECTED, problem_of
from backend.services import Services
from backend.webhook import ACTIONS
from backend.wire import Problem
from clapboard.errors import ClapboardError
from clapboard.settings import load_settings
from clapboard.settings.state_folder import keep_private
from clapboard.untrusted import require_few_values


class ClapboardModel(LabelStudioMLBase):  # type: ignore[misc]  # label-studio-ml has no types
    """The suggestions for one request, from the services that answer `clapboard serve`'s requests too."""

    TRAIN_EVENTS = tuple(sorted(ACTIONS.union(api.TRAIN_EVENTS)))

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        """Doesn't call the base class's `__init__`, which parses and caches the label config at every request."""
        self.project_id = (
            "" if project_id in (None, "None") else str(project_id)
        )  # the text «None»: the request named no project
        self._label_config = label_config or ""
        self._label_studio_client = None
        self.setup()

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **_: Any
    ) -> ModelResponse:
        """One entry per task: its prediction, or `[]` where it isn't ready and will be pushed."""
        with _answering_errors():
            answer = _services().predictions.predict(tasks, self._label_config, self.project_id)
        return ModelResponse(model_version=answer.model_version, predictions=answer.results)

    def fit(self, event: str, data: Mapping[str, Any], **_: Any) -> dict[str, int | str | None]:
        """Store a webhook event in the inbox; its number, the job that it started, and what «Start Training» shows.

        A worker trains, not this method: Label Studio waits for its answer.
        """
        receipt = _services().webhooks.receive({"action": event, **data})
        return {"event": receipt.event, "job": receipt.job, "message": receipt.message}

    def get(self, key: str) -> Any:
        """A value kept for the project. `/setup` asks for `model_version`, which its predictions carry too."""
        if key == "model_version":
            with _answering_errors():
                return _introduce(self.project_id, self._label_config)
        return self._label_config if key == "label_config" else super().get(key)

    def set_extra_params(self, extra_params: Any) -> None:
        """Ignored: Clapboard has settings of its own."""


_making_services = threading.Lock()


def _services() -> Services:
    """This process's services, made at its first request, because gunicorn imports this module before it forks."""
    with _making_services:
        return _services_of(os.getpid())


@functools.lru_cache(maxsize=1)
def _services_of(process: int) -> Services:
    settings = load_settings()
    keep_private(settings.model_dir)
    services = Services.open(settings)
    services.webhooks.look_for_lost_events()
    return services


def _introduce(project: str, label_config: str) -> str:
    """The model version that serves the project. The store keeps both with the label config."""
    services = _services()
    services.versions.refresh(at_once=True)
    body = request.get_json() if has_request_context() else {}
    version = services.setups.setup(project, label_config, str(body.get("hostname") or ""))
    services.setups.store_introductions()
    return version


@contextlib.contextmanager
def _answering_errors() -> Iterator[None]:
    """Turn our errors into those that label-studio-ml answers with a status of their own."""
    try:
        yield
    except ClapboardError as error:
        status, problem = problem_of(error)
        raise AnswerException(status, problem.detail, {"error": problem.error, "traceback": ""}) from None


@functools.cache
def _bounds() -> BodyBounds:
    return BodyBounds.of(load_settings())


def _add_to(server: Flask) -> None:
    """Pass all of Label Studio's events to `fit`, and answer errors as Clapboard does: one sentence, no traceback.

    Bodies have the same bounds. gunicorn bounds how long one may take and how many connections there are.
    """
    api.TRAIN_EVENTS = ClapboardModel.TRAIN_EVENTS

    @server.before_request
    def within_bounds() -> None:
        bound = _bounds().of_path(request.path)
        server.config["MAX_CONTENT_LENGTH"] = bound + 1  # a body in chunks is cut there, without an error
        try:
            content = request.get_data(cache=True)
        except RequestEntityTooLarge:
            raise too_large(request.path, bound) from None
        if len(content) > bound:
            raise too_large(request.path, bound)
        require_few_values(content)

    @server.errorhandler(ClapboardError)
    def refused(error: ClapboardError) -> Response:
        status, problem = problem_of(error)
        return Response(json.dumps(problem.model_dump()), status, mimetype="application/json")

    @server.after_request
    def without_traceback(response: Response) -> Response:
        body = response.get_json(silent=True) if response.status_code >= 400 else None
        match body:
            case {"detail": detail, "result": {"traceback": _, "error": error}}:
                response.set_data(json.dumps(Problem(error=error, detail=detail).model_dump()))
            case {"result": {"traceback": _}}:
                response.set_data(json.dumps(UNEXPECTED.model_dump()))
        return response


_add_to(api._server)  # the one Flask application that `init_app` returns

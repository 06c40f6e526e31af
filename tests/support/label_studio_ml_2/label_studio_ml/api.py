"""The server of the stand-in: the routes that label-studio-ml 2.x documents, for one model class."""

from __future__ import annotations

import functools
import logging
import os
import traceback
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, jsonify, request

from label_studio_ml.exceptions import AnswerException
from label_studio_ml.model import LabelStudioMLBase
from label_studio_ml.response import ModelResponse

TRAIN_EVENTS = LabelStudioMLBase.TRAIN_EVENTS
_server = Flask("label_studio_ml")
_chosen: dict[str, Any] = {}


def init_app(model_class: type[LabelStudioMLBase], **_: Any) -> Flask:
    """The application, which makes a model of this class for each request."""
    _chosen["model"] = model_class
    return _server


def _answers_errors(route: Callable[[], Response]) -> Callable[[], Response | tuple[Response, int]]:
    """What fails is answered with its traceback in the body, unless the model put something there itself."""

    @functools.wraps(route)
    def answer() -> Response | tuple[Response, int]:
        try:
            return route()
        except Exception as error:
            logging.exception("a request failed")
            result = {"traceback": traceback.format_exc()}
            status, detail = 500, f"{type(error).__name__}: {error}"
            if isinstance(error, AnswerException):
                status, detail, result = error.status, error.msg, result | error.result
            return jsonify({"status": status, "detail": detail, "request": {}, "result": result}), status

    return answer


def _model(project: Any, label_config: str) -> LabelStudioMLBase:
    return _chosen["model"](project_id=str(project).partition(".")[0], label_config=label_config)


@_server.get("/health")
def health() -> Response:
    return jsonify({"status": "UP", "model_class": _chosen["model"].__name__})


@_server.post("/setup")
@_answers_errors
def setup() -> Response:
    body = request.get_json()
    model = _model(body["project"], body["schema"])
    if body.get("extra_params"):
        model.set_extra_params(body["extra_params"])
    return jsonify({"model_version": model.get("model_version")})


@_server.post("/predict")
@_answers_errors
def predict() -> Response:
    body = request.get_json()
    parameters = body.get("params", {})
    model = _model(body.get("project"), body["label_config"])
    found = model.predict(body["tasks"], context=parameters.pop("context", {}), **parameters)
    if isinstance(found, ModelResponse):
        found.complete()
        found = found.model_dump()["predictions"]
    return jsonify({"results": found})


@_server.post("/webhook")
def webhook() -> tuple[Response, int]:
    body = request.get_json()
    event = body.pop("action")
    if event not in TRAIN_EVENTS:
        return jsonify({"status": "Unknown event"}), 200
    model = _model(body["project"]["id"], body["project"]["label_config"])
    return jsonify({"result": model.fit(event, body), "status": "ok"}), 201


@_server.before_request
def check_password() -> Response | None:
    user, given = os.environ.get("BASIC_AUTH_USER"), request.authorization
    if not user or (given and (given.username, given.password) == (user, os.environ.get("BASIC_AUTH_PASS"))):
        return None
    return Response("Unauthorized", 401)

"""What the OpenAPI description says beyond the routes' types: the password, the errors, and the body of events."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from backend.access import Access
from backend.wire import PROJECT_NUMBER, PROJECT_TEXT, Problem

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        401: "The user and password are missing or wrong",
        403: "The host name isn't the backend's, or the request comes from a web page of another origin",
        408: "The body takes too long to arrive",
        413: "The body is too large",
        415: "The body isn't marked as JSON",
        422: "The request can't be used as it is",
        500: "An unexpected error",
        503: "No worker has loaded the model yet, or the store can't be reached",
    }.items()
}
"""The errors that every route may answer, by status. The body is always a `Problem`."""

OPEN: dict[str, Any] = {"security": []}
"""Marks a route that needs no password."""

_PASSWORD = {"type": "http", "scheme": "basic"}

# Without types, because an event is kept whatever its `project` is; only an impossible number is refused.
_PROJECT: dict[str, Any] = {"pattern": PROJECT_TEXT, **PROJECT_NUMBER, "multipleOf": 1}
BODY_OF_EVENTS = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "title": "Event",
                    "description": "An event of Label Studio's webhooks, kept as it was sent, without credentials.",
                    "required": ["action"],
                    "properties": {
                        "action": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,100}$"},
                        "project": {**_PROJECT, "properties": {"id": _PROJECT}},
                    },
                }
            }
        },
    }
}


def describe(app: FastAPI, access: Access) -> None:
    """Have the application's description say that routes need a password, from the moment that they do."""
    describe_routes = app.openapi

    def described() -> dict[str, Any]:
        if not access.asks_for_password:
            return describe_routes()
        components = describe_routes()["components"] | {"securitySchemes": {"password": _PASSWORD}}
        return describe_routes() | {"components": components, "security": [{"password": []}]}

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's own way to extend it

"""Connects a Label Studio project to the backend, and keeps both on one model version.

Every step looks at what is there first, so that it can be interrupted anywhere and run again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clapboard.errors import LabelStudioError
from clapboard.label_studio.checks import Connection, auth_headers, check_address, our_backend, webhook_url
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.failures import public_url
from clapboard.label_studio.records import Backend, Project
from clapboard.settings import Settings


@dataclass(frozen=True, slots=True)
class ConnectReport:
    """What `connect` found and did. Each warning is a sentence about what does not work yet, with its remedy."""

    project: Project
    model_version: str
    changes: tuple[str, ...]
    warnings: tuple[str, ...]


def connect(
    client: LabelStudioClient, settings: Settings, project_id: int, model_version_for: Callable[[str], str]
) -> ConnectReport:
    """What had to change so that the project asks our backend for predictions and sends it every event.

    `model_version_for` gives the model version for a label config. The backend must be running: Label Studio asks it.
    Raises `LabelStudioError` where Label Studio does not take the backend. The project's sampling stays as it is.
    """
    model_version = model_version_for(client.project(project_id).label_config)
    changes = _settle_backend(client, settings, project_id, model_version)
    if align(client, settings, project_id, model_version):
        changes.append(f"the project shows the predictions of {model_version}")
    address = check_address(client, "webhook", webhook_url(settings))
    if address.ok and client.ensure_webhook(project_id, webhook_url(settings), auth_headers(settings)):
        changes.append(f"every event goes to {public_url(webhook_url(settings))}")
    connection = Connection.look(client, settings, project_id)
    checks = [address, *connection.checks(model_version)]
    warnings = tuple(check.message for check in checks if not check.ok and (address.ok or check.name != "webhook"))
    return ConnectReport(connection.project, model_version, tuple(changes), warnings)


def align(client: LabelStudioClient, settings: Settings, project_id: int, model_version: str) -> bool:
    """Whether the backend's title or the project's version had to change to become `model_version`.

    The backend must answer that version at `/setup` already: Label Studio asks it during this call. Raises
    `LabelStudioError` where the project has no backend with our address.
    """
    backend = our_backend(settings, client.backends(project_id))
    if backend is None:
        url = public_url(settings.backend_url)
        raise LabelStudioError(
            f"Project {project_id} has no backend at {url}: run `clapboard connect --project {project_id}`."
        )
    # The title first: Label Studio takes no version for the project that nothing there bears, and may follow by itself.
    # Either is left alone where it is right already, because each change of a project comes back as an event.
    is_named_anew = backend.title != model_version
    if is_named_anew:
        _update(client, settings, project_id, backend, model_version)
    is_shown = client.project(project_id).model_version == model_version
    if not is_shown:
        client.set_model_version(project_id, model_version)
    return is_named_anew or not is_shown


def _settle_backend(client: LabelStudioClient, settings: Settings, project_id: int, model_version: str) -> list[str]:
    """What changed so that exactly one backend of the project has our address and credentials."""
    url = settings.backend_url
    backends = client.backends(project_id)
    ours = [backend for backend in backends if backend.url.rstrip("/") == url]
    if ours:
        for double in ours[1:]:
            client.remove_backend(double.id)
        _update(client, settings, project_id, ours[0], model_version)
        return [f"{len(ours) - 1} superfluous backends at {public_url(url)} removed"] if ours[1:] else []
    moved = next((backend for backend in backends if backend.title == model_version), None)
    if moved is not None:
        _update(client, settings, project_id, moved, model_version)
        for webhook in client.webhooks(project_id):
            if webhook.url == f"{moved.url.rstrip('/')}/webhook":
                client.remove_webhook(webhook.id)
        return [f"the backend at {public_url(moved.url)} is now the one at {public_url(url)}"]
    _add(client, settings, project_id, model_version)
    return [f"the backend at {public_url(url)} was added"]


def _add(client: LabelStudioClient, settings: Settings, project_id: int, model_version: str) -> None:
    try:
        client.add_backend(project_id, title=model_version, **_address(settings))
    except LabelStudioError as error:
        # Where Label Studio may not send webhooks into our network, it refuses, yet keeps the backend without one.
        if not any(backend.url == settings.backend_url for backend in client.backends(project_id)):
            raise _with_advice(client, settings, error) from None


def _update(
    client: LabelStudioClient, settings: Settings, project_id: int, backend: Backend, model_version: str
) -> None:
    try:
        client.update_backend(backend.id, project_id, title=model_version, **_address(settings))
    except LabelStudioError as error:
        raise _with_advice(client, settings, error) from None


def _with_advice(client: LabelStudioClient, settings: Settings, error: LabelStudioError) -> LabelStudioError:
    """The refusal of the backend, said so that it names the likeliest remedy."""
    address = check_address(client, "backend", settings.backend_url)
    if not address.ok:
        return LabelStudioError(address.message)
    url = public_url(settings.backend_url)
    if "401" in str(error):
        return LabelStudioError(
            f"The backend at {url} refuses the user name and password that Label Studio was given for it: "
            "BASIC_AUTH_USER and BASIC_AUTH_PASS must be the same here as where the backend runs."
        )
    if "health check failed" in str(error):
        return LabelStudioError(
            f"Label Studio can't reach the backend at {url}: is it running, and is CLAPBOARD_URL the address at which "
            "Label Studio reaches it?"
        )
    return error


def _address(settings: Settings) -> dict[str, str]:
    return {
        "url": settings.backend_url,
        "user": settings.basic_auth_user,
        "password": settings.basic_auth_pass.get_secret_value(),
    }

"""Connecting a Label Studio project to the backend, and keeping both on one model version.

Every step first reads what is there, so that it can be interrupted anywhere and run again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from clapboard.errors import BackendUnreached, LabelStudioError, LabelStudioLacks, LabelStudioUnreachable
from clapboard.label_studio.checks import (
    PAUSE_S,
    STORED_TITLE,
    TRIES,
    Connection,
    auth_headers,
    check_address,
    our_backend,
    refusal_sentence,
    webhook_url,
)
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.failures import public_url
from clapboard.label_studio.records import Backend, Project
from clapboard.plurals import counted
from clapboard.settings import Settings

_STATUS = re.compile(r"Reason: (\d{3}) ")
"""How Label Studio tells the status that the backend answered it. Ports are numbers, too."""


@dataclass(frozen=True, slots=True)
class ConnectReport:
    """The changes that `connect` made. Each warning says what doesn't work yet, and the remedy."""

    project: Project
    model_version: str
    changes: tuple[str, ...]
    warnings: tuple[str, ...]

    def with_more(self, changes: Iterable[str] = (), warnings: Iterable[str] = ()) -> ConnectReport:
        """The report with further changes and warnings."""
        return replace(self, changes=(*self.changes, *changes), warnings=(*self.warnings, *warnings))


def connect(
    client: LabelStudioClient, settings: Settings, project_id: int, model_version_for: Callable[[str], str]
) -> ConnectReport:
    """Make the project ask our backend for predictions and send it every event. Returns what was changed.

    `model_version_for` gives the model version for a label config. The backend must be running, because Label Studio
    calls it. Raises `LabelStudioError` if Label Studio refuses the backend. The project's sampling stays as it is.
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


def give_password(client: LabelStudioClient, settings: Settings, projects: Iterable[int]) -> list[str]:
    """Make Label Studio use the settings' password for these projects. Returns a warning for each that still lacks it.

    Projects that are deleted, or have no backend at our address, are left alone.
    """
    warnings = []
    for project_id in projects:
        try:
            _give_password(client, settings, project_id)
        except LabelStudioLacks:  # deleted since it was connected
            continue
        except LabelStudioError as error:
            warnings.append(
                f"Project {project_id} lacks the backend's password ({str(error).rstrip('.')}): "
                f"run `clapboard connect --project {project_id}`."
            )
    return warnings


def align(
    client: LabelStudioClient,
    settings: Settings,
    project_id: int,
    model_version: str,
    *,
    is_live: bool | None = None,
) -> bool:
    """Set the project's model version and the backend's title. Returns whether either had to change.

    If the project `is_live`, the title is that version, too, so that Label Studio asks the backend for each task that
    is opened. Else it is `STORED_TITLE`, so that Label Studio shows stored predictions. None leaves that as it is. A
    project without stored predictions of the version is live in any case.

    The backend's `/setup` must already answer that version, because Label Studio calls it. Raises `LabelStudioError`
    if the project has no backend with our address.
    """
    backend = our_backend(settings, client.backends(project_id))
    if backend is None:
        url = public_url(settings.backend_url)
        raise LabelStudioError(
            f"Project {project_id} has no backend at {url}: run `clapboard connect --project {project_id}`."
        )
    if is_live is None:
        is_live = backend.title != STORED_TITLE
    title = model_version if is_live or not client.model_versions(project_id).get(model_version) else STORED_TITLE
    # What is right already is left alone, because each change of a project comes back as an event.
    changed = False
    if (
        title == STORED_TITLE
    ):  # stored predictions have the version, so Label Studio accepts it before the title changes
        changed |= _show(client, project_id, model_version)
    if backend.title != title:
        _update(client, settings, project_id, backend, title)
        changed = True
    # By now Label Studio accepts the version; and a change of the title may have changed it.
    return _show(client, project_id, model_version) or changed


def _show(client: LabelStudioClient, project_id: int, model_version: str) -> bool:
    """Set the project's model version. Returns whether it had to change."""
    if client.project(project_id).model_version == model_version:
        return False
    client.set_model_version(project_id, model_version)
    return True


def _give_password(client: LabelStudioClient, settings: Settings, project_id: int) -> None:
    backend, url = our_backend(settings, client.backends(project_id)), webhook_url(settings)
    if backend is None:
        return
    webhook = next((webhook for webhook in client.webhooks(project_id) if webhook.url == url), None)
    if webhook is not None and not webhook.has(auth_headers(settings)):
        client.ensure_webhook(project_id, url, auth_headers(settings))
    elif backend.has_password and backend.auth_user == settings.basic_auth_user:
        return
    _update(client, settings, project_id, backend, backend.title)


def _settle_backend(client: LabelStudioClient, settings: Settings, project_id: int, model_version: str) -> list[str]:
    """Make exactly one backend of the project have our address and credentials. Returns what was changed."""
    url = settings.backend_url
    backends = client.backends(project_id)
    ours = [backend for backend in backends if backend.url.rstrip("/") == url]
    if ours:
        for duplicate in ours[1:]:
            client.remove_backend(duplicate.id)
        is_current = ours[0].title in (model_version, STORED_TITLE)
        _update(client, settings, project_id, ours[0], ours[0].title if is_current else model_version)
        return [f"{counted(len(ours) - 1, 'superfluous backend')} at {public_url(url)} removed"] if ours[1:] else []
    moved = next((backend for backend in backends if backend.title in (model_version, STORED_TITLE)), None)
    if moved is not None:
        _update(client, settings, project_id, moved, moved.title)
        for webhook in client.webhooks(project_id):
            if webhook.url == f"{moved.url.rstrip('/')}/webhook":
                client.remove_webhook(webhook.id)
        return [f"the backend at {public_url(moved.url)} is now the one at {public_url(url)}"]
    _add(client, settings, project_id, model_version)
    return [f"the backend at {public_url(url)} was added"]


def _add(client: LabelStudioClient, settings: Settings, project_id: int, model_version: str) -> None:
    def add() -> None:
        try:
            client.add_backend(project_id, title=model_version, **_address(settings))
        except LabelStudioError as error:
            # If Label Studio may not send webhooks into our network, it answers an error, but keeps the backend.
            if not any(backend.url == settings.backend_url for backend in client.backends(project_id)):
                raise _with_advice(client, settings, error) from None

    _with_retries(add)


def _update(client: LabelStudioClient, settings: Settings, project_id: int, backend: Backend, title: str) -> None:
    """Set the backend's fields, and verify that Label Studio keeps them.

    Whenever Label Studio reads a backend, for example because a person opens a task, it checks whether the backend is
    up and then writes back the whole row that it read before (`MLBackend.update_state`). This undoes changes that were
    made in between.
    """

    def update() -> None:
        try:
            client.update_backend(backend.id, project_id, title=title, **_address(settings))
        except LabelStudioError as error:
            raise _with_advice(client, settings, error) from None

    expected = (settings.backend_url, title, settings.basic_auth_user)
    for _ in range(TRIES):
        _with_retries(update)
        kept = next((current for current in client.backends(project_id) if current.id == backend.id), None)
        if kept is None or (kept.url.rstrip("/"), kept.title, kept.auth_user) == expected:
            return
    raise LabelStudioUnreachable(
        f"Label Studio doesn't keep the settings of the backend at {public_url(settings.backend_url)} in project "
        f"{project_id}, because they are being changed elsewhere: try again later."
    )


def _with_retries(call: Callable[[], None]) -> None:
    """Make the call, again if the backend didn't answer Label Studio in time."""
    for _ in range(TRIES - 1):
        try:
            return call()
        except BackendUnreached:
            time.sleep(PAUSE_S)
    return call()


def _with_advice(client: LabelStudioClient, settings: Settings, error: LabelStudioError) -> LabelStudioError:
    """Label Studio's refusal of the backend as an error that names the likeliest remedy."""
    if isinstance(error, LabelStudioUnreachable):
        return error
    try:
        refusal = client.why_refused("backend", settings.backend_url)
    except LabelStudioError as another:
        return another
    if refusal:
        return LabelStudioError(refusal_sentence("backend", settings.backend_url, refusal))
    url, match = public_url(settings.backend_url), _STATUS.search(str(error))
    status = match[1] if match else ""
    if status == "401":
        return LabelStudioError(
            f"The backend at {url} refuses the user name and password that Label Studio was given for it: "
            "BASIC_AUTH_USER and BASIC_AUTH_PASS must be the same here as where the backend runs."
        )
    if status == "403":
        return LabelStudioError(
            f"The backend at {url} doesn't answer to that host name: add it to CLAPBOARD_HOST_NAMES where it runs."
        )
    if "health check failed" in str(error):
        return BackendUnreached(
            f"Label Studio can't reach the backend at {url}: is it running, and is CLAPBOARD_URL the address at which "
            "Label Studio reaches it?"
        )
    if status == "503" or "timed out" in str(error):
        return BackendUnreached(
            f"The backend at {url} didn't answer Label Studio with its model version in time: is a worker running? "
            "Run `clapboard doctor`."
        )
    return error


def _address(settings: Settings) -> dict[str, str]:
    return {
        "url": settings.backend_url,
        "user": settings.basic_auth_user,
        "password": settings.basic_auth_pass.get_secret_value(),
    }

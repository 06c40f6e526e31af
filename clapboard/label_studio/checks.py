"""Checks of the connection between Label Studio and the backend, each with a remedy. They change nothing."""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self
from urllib.parse import urlsplit

from clapboard.errors import LabelStudioError
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.failures import ALLOW_PRIVATE, public_url
from clapboard.label_studio.records import Backend, Project, Webhook
from clapboard.settings import Settings

STORED_TITLE = "Clapboard"
"""The backend's title with which Label Studio shows stored predictions; `clapboard.project.display` says why."""

TRIES = 3
PAUSE_S = 1.0
"""The pause between attempts. Label Studio gives the backend only a second to answer, too little on a busy machine."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `clapboard doctor`: what was checked, whether it is right, and what to do if not."""

    name: str
    ok: bool
    message: str


@dataclass(frozen=True, slots=True)
class Connection:
    """A project's backends and webhooks, as Label Studio has them at one moment."""

    project: Project
    backends: tuple[Backend, ...]
    webhooks: tuple[Webhook, ...]
    settings: Settings

    @classmethod
    def look(cls, client: LabelStudioClient, settings: Settings, project_id: int) -> Self:
        """Read the connection from Label Studio, which calls every backend of the project for that.

        Ours is called again if it doesn't answer in time.
        """
        backends = tuple(client.backends(project_id))
        for _ in range(TRIES - 1):
            ours = our_backend(settings, backends)
            if ours is None or ours.is_connected:
                break
            time.sleep(PAUSE_S)
            backends = tuple(client.backends(project_id))
        return cls(client.project(project_id), backends, tuple(client.webhooks(project_id)), settings)

    @property
    def backend(self) -> Backend | None:
        """The backend with our address."""
        return our_backend(self.settings, self.backends)

    @property
    def webhook(self) -> Webhook | None:
        """The webhook with our address."""
        return next((w for w in self.webhooks if w.url == webhook_url(self.settings)), None)

    def checks(self, model_version: str) -> list[Check]:
        """The checks that need no further call: shown predictions, backend, webhook, versions."""
        return [self._shown(), self._backend(), self._webhook(), self.versions(model_version)]

    def _shown(self) -> Check:
        name, shown = "predictions shown", self.project.shows_predictions
        remedy = "hides predictions: switch on «Use predictions to prelabel tasks» in its settings"
        return Check(name, shown, f"Project {self.project.id} {'shows predictions' if shown else remedy}.")

    def _backend(self) -> Check:
        url, backend = public_url(self.settings.backend_url), self.backend
        if backend is None:
            return Check("backend", False, f"Project {self.project.id} has no backend at {url}: {self._remedy}.")
        if not backend.is_connected:
            because = f" ({backend.error})" if backend.error else ""
            advice = "is it running, and is CLAPBOARD_URL the address at which Label Studio reaches it?"
            return Check("backend", False, f"Label Studio can't use the backend at {url}{because}: {advice}")
        if self.backends[0].id != backend.id:
            first = public_url(self.backends[0].url)
            return Check(
                "backend",
                False,
                f"Project {self.project.id} has another backend, {first}, before ours, and Label Studio asks only "
                "the first one: remove it in the project's settings.",
            )
        return Check("backend", True, f"Label Studio asks {url} for predictions")

    def _webhook(self) -> Check:
        url, webhook = public_url(webhook_url(self.settings)), self.webhook
        if webhook is None:
            fault = "does not exist"
        elif not webhook.sends_everything:
            fault = "is switched off, or does not send every event with its content"
        elif not webhook.has(auth_headers(self.settings)):
            fault = "lacks the password that the backend requires"
        else:
            return Check("webhook", True, f"every event goes to {url}")
        return Check("webhook", False, f"The webhook {url} {fault}, so corrections do not arrive: {self._remedy}.")

    def versions(self, model_version: str) -> Check:
        """Whether the project and the backend's answer have the version, and its title that or `STORED_TITLE`."""
        backend = self.backend
        bears = {"the project shows": self.project.model_version}
        if backend is not None:
            title = model_version if backend.title == STORED_TITLE else backend.title
            bears |= {"the backend's title is": title, "the backend answers": _answered(backend, model_version)}
        wrong = [f"{who} {f'«{has}»' if has else 'none'}" for who, has in bears.items() if has != model_version]
        if not wrong:
            return Check("model version", True, f"all say {model_version}")
        remedy = self._remedy
        if backend is not None and backend.model_version != model_version:
            remedy = f"start the backend with the settings of this command, then {remedy}"
        faults = ", ".join(wrong)
        return Check("model version", False, f"The model version is «{model_version}», but {faults}: {remedy}.")

    @property
    def _remedy(self) -> str:
        return f"run `clapboard connect --project {self.project.id}`"


def inspect_connection(
    client: LabelStudioClient, settings: Settings, project_id: int, model_version: str
) -> list[Check]:
    """All checks, in the order in which to mend things. Ends early if the token or the project fails."""
    checks = [check_token(client)]
    if not checks[0].ok:
        return checks
    try:
        connection = Connection.look(client, settings, project_id)
    except LabelStudioError as error:
        return [*checks, Check("project", False, str(error))]
    return [
        *checks,
        Check("project", True, f"project {project_id} is «{connection.project.title}»"),
        check_address(client, "backend", settings.backend_url),
        check_address(client, "webhook", webhook_url(settings)),
        *connection.checks(model_version),
    ]


def _answered(backend: Backend, model_version: str) -> str:
    """What the backend answers: the version, if the two names differ only in that one of them has the head.

    So it does while Label Studio is to ask for tasks whose predictions it has (`clapboard.store.displays`), or
    before an earlier release's names are changed.
    """
    for exact, shared in itertools.permutations((backend.model_version, model_version)):
        encoder, _, space = ("", "", *exact.rsplit(".", 2))[-3:]
        if encoder and shared == f"{encoder}.{space}":
            return model_version
    return backend.model_version


def check_token(client: LabelStudioClient) -> Check:
    """Whether Label Studio answers and accepts the token."""
    try:
        user = client.check_token()
        return Check("token", True, f"Label Studio {client.version()} accepts the {client.token_kind} token of {user}")
    except LabelStudioError as error:
        return Check("token", False, str(error))


def check_address(client: LabelStudioClient, kind: Literal["backend", "webhook"], url: str) -> Check:
    """Whether Label Studio's address rules allow the URL: its network and its host name."""
    name = f"{kind} address"
    try:
        refusal = client.why_refused(kind, url)
    except LabelStudioError as error:
        return Check(name, False, str(error))
    if not refusal:
        return Check(name, True, f"Label Studio's address rules allow {public_url(url)}")
    return Check(name, False, refusal_sentence(kind, url, refusal))


def refusal_sentence(kind: Literal["backend", "webhook"], url: str, refusal: str) -> str:
    """What Label Studio's address rules have against the URL, with the remedy."""
    host = urlsplit(url).hostname or ""
    if "reserved network" in refusal:
        advice = ALLOW_PRIVATE
    elif kind == "webhook" and "." not in host:
        advice = (
            f"it accepts no host name without a dot, such as «{host}»: give the backend a name such as "
            "backend.clapboard, or use its IP address, in CLAPBOARD_URL"
        )
    else:
        advice = "set CLAPBOARD_URL to the address at which Label Studio reaches the backend"
    return f"Label Studio refuses {public_url(url)} for a {kind} ({refusal}): {advice}."


def our_backend(settings: Settings, backends: Iterable[Backend]) -> Backend | None:
    """The project's backend with our address, if there is one."""
    return next((backend for backend in backends if backend.url.rstrip("/") == settings.backend_url), None)


def webhook_url(settings: Settings) -> str:
    """The URL to which Label Studio sends a project's events; it derives the same from the backend's URL."""
    return f"{settings.backend_url}/webhook"


def auth_headers(settings: Settings) -> dict[str, str]:
    """The headers that the backend requires; Label Studio doesn't set them on the webhook by itself."""
    if not settings.basic_auth_user:
        return {}
    credentials = f"{settings.basic_auth_user}:{settings.basic_auth_pass.get_secret_value()}"
    return {"Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}

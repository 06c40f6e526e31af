"""The routes keep to their OpenAPI description: schemathesis sends each a few seeded requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema
from schemathesis.schemas import BaseSchema

from backend.app import create_app
from clapboard.settings import Settings
from clapboard.store import Store
from tests.backend.conftest import ENCODER, PASSWORD
from tests.support.fake_label_studio import CHOICES

EXAMPLES = 5
SEED = 1
ROUTES = {
    *("GET /", "GET /health", "GET /ledger", "GET /metrics", "GET /versions"),
    *("POST /predict", "POST /search", "POST /setup", "POST /train", "POST /versions", "POST /webhook"),
}

# The description says of a text what it is; how to make one is for the test to say.
schemathesis.openapi.format("label-config", st.just(CHOICES))
schemathesis.openapi.format(
    "audio-address", st.sampled_from(["https://host.example/a.wav", "data:audio/wav;base64,AA"])
)


@pytest.fixture(params=["with a password", "without"])
def described(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseSchema]:
    """The description of a backend in this process."""
    folder = tmp_path_factory.mktemp("installation")
    chosen = {"CLAPBOARD_MODEL": "mini", "MODEL_DIR": folder, "CLAPBOARD_PREDICT_WAIT_S": 0}
    config = SchemathesisConfig(seed=SEED)
    project = config.projects.default
    if request.param == "with a password":
        chosen |= {"BASIC_AUTH_USER": "ls", "BASIC_AUTH_PASS": PASSWORD}
        project.update(basic_auth=("ls", PASSWORD))
    project.update(continue_on_failure=True)
    project.generation.update(max_examples=EXAMPLES, deterministic=True)
    app_settings = Settings(**chosen)
    store = Store.open(app_settings)
    store.catalog.announce_encoder(ENCODER)
    auth = ("ls", PASSWORD) if request.param == "with a password" else None
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(app_settings), config=config, auth=auth)
    yield schema
    store.close()


def test_every_route_keeps_to_its_description(described: BaseSchema) -> None:
    faults, tried, num_requests = set(), set(), 0
    for event in from_schema(described).execute():
        assert not isinstance(event, events.FatalError | events.NonFatalError), event
        if not isinstance(event, events.ScenarioFinished):
            continue
        tried.add(event.label)
        num_requests += len(event.recorder.interactions)
        for number, checks in event.recorder.checks.items():
            if ends_too_soon(event.recorder.cases[number].value.body):
                checks = [check for check in checks if check.name != "positive_data_acceptance"]
            if is_without_worker(event.recorder.interactions.get(number)):
                checks = [check for check in checks if check.name != "not_a_server_error"]
            for check in checks:
                if check.status is Status.FAILURE and check.failure_info:
                    faults.add(f"{event.label}: {check.failure_info.failure}: {check.failure_info.code_sample}")
    assert sorted(faults) == []
    assert tried >= ROUTES
    assert num_requests > 10 * len(ROUTES)


def is_without_worker(interaction: Any) -> bool:
    """Whether the answer was that no worker serves searches, as none does here."""
    response = interaction.response if interaction else None
    return response is not None and response.status_code == 503 and response.json()["error"] == "no_worker"


def ends_too_soon(body: Any) -> bool:
    """Whether a piece of a sound in a search ends before it begins, which JSON schema can't rule out."""
    named = [body.get("like"), body.get("not_like")] if isinstance(body, dict) else []
    sounds = [sound for listed in named if isinstance(listed, list) for sound in listed]
    pieces = [(sound.get("start_s"), sound.get("end_s")) for sound in sounds if isinstance(sound, dict)]
    return any(
        end_s <= start_s
        for start_s, end_s in pieces
        if isinstance(start_s, int | float) and isinstance(end_s, int | float)
    )

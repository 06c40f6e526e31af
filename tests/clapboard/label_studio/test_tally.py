"""Requests to Label Studio, counted where they leave."""

from __future__ import annotations

import threading

import httpx
import pytest

from clapboard.errors import LabelStudioUnreachable
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.tally import NO_ANSWER, RequestTally, TalliedClient, route_of
from tests.support.fixtures_label_studio import Loopback, settings_for
from tests.support.programs import free_port

TOKEN = "5ecre7" * 6
JSON = "application/json"


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/api/tasks/", "/api/tasks"),
        ("/api/tasks/17", "/api/tasks/{id}"),
        ("/api/projects/3/import/predictions", "/api/projects/{id}/import/predictions"),
        ("/api/projects/3/model-versions/", "/api/projects/{id}/model-versions"),
        ("/studio/api/version", "/api/version"),
        ("/api/users/5ecre7", "/api/users/{}"),
        ("/api/users/a@b.example/", "/api/users/{}"),
        ("/api/users/１", "/api/users/{}"),
        ("/login/5ecre7", "other"),
        ("", "other"),
    ],
)
def test_a_route_names_no_subject(path: str, route: str) -> None:
    assert route_of(path) == route


def test_each_request_is_counted_by_method_route_and_code() -> None:
    tally = RequestTally()
    with (
        Loopback(lambda _: (404, JSON, {"detail": "no"})) as server,
        LabelStudioClient(settings_for(server.url, TOKEN), tally=tally) as client,
    ):
        for number in (1, 2, 3):
            assert client.annotation(number) is None
    assert tally.counts() == {("GET", "/api/annotations/{id}", "404"): 3}


def test_what_the_sdk_tries_again_counts_each_time() -> None:
    tally = RequestTally()
    with (
        Loopback(lambda _: (503, JSON, {"detail": "later"})) as server,
        LabelStudioClient(settings_for(server.url, TOKEN), max_retries=1, tally=tally) as client,
        pytest.raises(LabelStudioUnreachable),
    ):
        client.version()
    assert tally.counts() == {("GET", "/api/version", "503"): 2}


def test_no_answer_is_a_code_of_its_own() -> None:
    tally = RequestTally()
    with (
        LabelStudioClient(settings_for(f"http://127.0.0.1:{free_port()}", TOKEN), max_retries=0, tally=tally) as client,
        pytest.raises(LabelStudioUnreachable),
    ):
        client.version()
    assert tally.counts() == {("GET", "/api/version", NO_ANSWER): 1}


def test_queries_and_tokens_are_no_part_of_it() -> None:
    tally = RequestTally()
    with (
        Loopback(lambda _: (200, JSON, {"tasks": [], "total": 0})) as server,
        LabelStudioClient(settings_for(server.url, TOKEN), tally=tally) as client,
    ):
        assert list(client.annotated_tasks(7)) == []
    assert tally.counts() == {("GET", "/api/tasks", "200"): 1}


def test_threads_share_a_tally() -> None:
    tally = RequestTally()
    with Loopback(lambda _: (200, JSON, {})) as server, TalliedClient(tally, trust_env=False) as client:

        def ask() -> None:
            for number in range(20):
                client.get(f"{server.url}/api/tasks/{number}", timeout=httpx.Timeout(10))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert tally.counts() == {("GET", "/api/tasks/{id}", "200"): 80}

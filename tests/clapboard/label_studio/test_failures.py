"""What the client says where Label Studio, or what stands at its address, misbehaves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from clapboard.errors import LabelStudioError, LabelStudioUnreachable
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.failures import public_url, reason_in
from clapboard.label_studio.validation import PredictionsDropped, is_cheaper_one_by_one
from tests.support.fixtures_label_studio import CHOICES, Loopback, Request, prediction, settings_for
from tests.support.programs import free_port

TOKEN = "5ecre7" * 6
JSON = "application/json"
PAGE = "<!doctype html><html><body>Welcome</body></html>"

Call = Callable[[LabelStudioClient], Any]
CALLS: dict[str, Call] = {
    "check_token": lambda client: client.check_token(),
    "version": lambda client: client.version(),
    "project": lambda client: client.project(1),
    "create_project": lambda client: client.create_project("Title", CHOICES),
    "import_tasks": lambda client: client.import_tasks(1, [{"audio": "/a.wav"}]),
    "tasks": lambda client: list(client.tasks(1)),
    "predictions": lambda client: list(client.predictions(1, [1])),
    "push_predictions": lambda client: client.push_predictions(1, [prediction(1)]),
    "delete_predictions": lambda client: client.delete_predictions([1]),
    "delete_model_version": lambda client: client.delete_model_version(1, "v1"),
    "set_model_version": lambda client: client.set_model_version(1, "v1"),
    "backends": lambda client: client.backends(1),
    "add_backend": lambda client: client.add_backend(1, url="http://a.example", title="v1"),
    "webhooks": lambda client: client.webhooks(1),
    "why_refused": lambda client: client.why_refused("backend", "http://a.example"),
}


def failure(url: str, call: Call, timeout_s: float = 10.0) -> LabelStudioError:
    """What the call raises, after a look at what no message may hold."""
    with (
        LabelStudioClient(settings_for(url, TOKEN), timeout_s=timeout_s, max_retries=0) as client,
        pytest.raises(LabelStudioError) as error,
    ):
        call(client)
    message = str(error.value)
    assert TOKEN not in message
    assert "<" not in message
    assert message.endswith((".", "?"))
    return error.value


def failure_at(status: int, content_type: str, body: Any, call: Call) -> LabelStudioError:
    with Loopback(lambda _: (status, content_type, body)) as server:
        return failure(server.url, call)


def calls_but(*names: str) -> pytest.MarkDecorator:
    """A test of every call but those."""
    chosen = {name: call for name, call in CALLS.items() if name not in names}
    return pytest.mark.parametrize("call", chosen.values(), ids=chosen)


class TestEveryCall:
    @calls_but("delete_predictions")  # a deletion has no answer
    def test_a_web_page_is_no_label_studio(self, call: Call) -> None:
        assert "LABEL_STUDIO_URL must be the address" in str(failure_at(200, "text/html", PAGE, call))

    @calls_but()
    def test_a_page_that_is_missing_is_no_label_studio(self, call: Call) -> None:
        assert "LABEL_STUDIO_URL must be the address" in str(failure_at(404, "text/html", PAGE, call))

    @calls_but("delete_predictions", "set_model_version", "why_refused", "version")  # nothing in the answer is needed
    def test_json_of_another_service_is_no_label_studio(self, call: Call) -> None:
        error = failure_at(200, JSON, ["what", "is", "this"], call)
        assert not isinstance(error, LabelStudioUnreachable)

    @calls_but()
    def test_a_refused_token_is_said_to_be_one(self, call: Call) -> None:
        error = failure_at(401, JSON, {"detail": "Invalid token."}, call)
        assert "refuses the token in LABEL_STUDIO_API_KEY: Invalid token" in str(error)

    @calls_but("why_refused")  # there, 500 is the answer to a host name that has no address
    def test_a_crash_there_may_be_over_later(self, call: Call) -> None:
        error = failure_at(500, JSON, {"detail": "database is locked"}, call)
        assert isinstance(error, LabelStudioUnreachable)
        assert "database is locked" in str(error)

    @calls_but()
    def test_nothing_that_listens_is_unreachable(self, call: Call) -> None:
        error = failure(f"http://127.0.0.1:{free_port()}", call)
        assert isinstance(error, LabelStudioUnreachable)
        assert "is Label Studio running" in str(error)


class TestPatience:
    def test_a_server_that_hangs_is_unreachable_in_time(self) -> None:
        def hang(_: Request) -> tuple[int, str, Any]:
            time.sleep(1.5)
            return 200, JSON, {}

        with Loopback(hang) as server:
            start_s = time.monotonic()
            error = failure(server.url, CALLS["check_token"], timeout_s=0.3)
            assert time.monotonic() - start_s < 1.2
        assert isinstance(error, LabelStudioUnreachable)
        assert "did not answer in time" in str(error)

    def test_reading_is_tried_again_but_nothing_is_created_twice(self) -> None:
        with (
            Loopback(lambda _: (503, "text/html", PAGE)) as server,
            LabelStudioClient(settings_for(server.url, TOKEN), max_retries=1) as client,
        ):
            with pytest.raises(LabelStudioUnreachable):
                client.check_token()
            with pytest.raises(LabelStudioUnreachable):
                client.create_project("Title", CHOICES)
            with pytest.raises(LabelStudioUnreachable):
                client.import_tasks(1, [{"audio": "/a.wav"}])
            assert len(server.received("/api/current-user/whoami")) == 2
            assert len(server.received("/api/projects/")) == len(server.received("/api/projects/1/import")) == 1

    def test_a_redirect_is_named_but_not_followed_with_the_token(self) -> None:
        with Loopback(lambda _: (200, JSON, {"email": "thief@example.com"})) as thief:
            with Loopback(lambda _: (301, JSON, f"{thief.url}/api?signature=1")) as server:
                error = failure(server.url, CALLS["check_token"])
            assert f"redirects to {thief.url}: set LABEL_STUDIO_URL" in str(error)
            assert thief.requests == []


class TestPushing:
    def fake(self, created: int) -> Loopback:
        """A Label Studio with tasks 1 and 2 of which an import stores `created`, whatever comes."""
        project = {"id": 1, "title": "P", "label_config": CHOICES, "task_number": 2, "show_collab_predictions": True}
        stored: list[dict[str, Any]] = []

        def answer(request: Request) -> tuple[int, str, Any]:
            if request.path.endswith("/import/predictions"):
                stored.extend({"id": 10 + item["task"], **item} for item in request.body[:created])
                return 201, JSON, {"created": created}
            if request.path == "/api/tasks/":
                tasks = [{"id": i, "predictions": [p for p in stored if p["task"] == i]} for i in (1, 2)]
                return 200, JSON, {"tasks": tasks, "total": 2, "total_annotations": 0, "total_predictions": 0}
            return 200, JSON, project

        return Loopback(answer)

    def test_what_label_studio_drops_without_a_word_is_noticed_and_named(self) -> None:
        with (
            self.fake(created=1) as server,
            LabelStudioClient(settings_for(server.url, TOKEN)) as client,
            pytest.raises(PredictionsDropped) as error,
        ):
            client.push_predictions(1, [prediction(1), prediction(2)])
        assert error.value.num_created == 1
        assert error.value.dropped == {2: "Label Studio dropped it without giving a reason"}

    def test_only_what_is_missing_is_sent(self) -> None:
        with self.fake(created=1) as server, LabelStudioClient(settings_for(server.url, TOKEN)) as client:
            assert client.push_predictions(1, [prediction(1)]) == 1
            assert client.push_predictions(1, [prediction(1)]) == 0
            (sent,) = server.received("/api/projects/1/import/predictions")
            assert sent.body == [prediction(1)]

    def test_storage_uris_are_asked_for_as_they_were_imported(self) -> None:
        with self.fake(created=0) as server, LabelStudioClient(settings_for(server.url, TOKEN)) as client:
            assert [task.id for task in client.tasks(1)] == [1, 2]
            (request,) = server.received("/api/tasks/")
            assert request.query["resolve_uri"] == "false"

    def test_many_dropped_tasks_make_a_short_message(self) -> None:
        error = PredictionsDropped(7, 0, dict.fromkeys(range(1000), "no"))
        assert "1,000 predictions for project 7" in str(error)
        assert "and 995 more" in str(error)

    def test_an_import_is_dearer_than_single_posts_in_large_projects_alone(self) -> None:
        assert is_cheaper_one_by_one(1, num_tasks=100_000)
        assert not is_cheaper_one_by_one(1000, num_tasks=100_000)
        assert not is_cheaper_one_by_one(1, num_tasks=40)


class TestTokens:
    @pytest.mark.parametrize("token", ["", "  ", "a b", "schlüssel"])
    def test_what_can_be_no_token_is_refused_before_anything_is_sent(self, token: str) -> None:
        with pytest.raises(LabelStudioError, match="LABEL_STUDIO_API_KEY") as error:
            LabelStudioClient(settings_for("http://127.0.0.1:9", token))
        assert not token.strip() or token not in str(error.value)

    def test_an_expired_personal_token_is_said_to_be_expired(self) -> None:
        token = jwt.encode({"token_type": "refresh", "exp": 1}, "k" * 32, algorithm="HS256")
        with pytest.raises(LabelStudioError, match="has expired"):
            LabelStudioClient(settings_for("http://127.0.0.1:9", token))

    def test_a_personal_token_that_is_refused_is_said_to_be(self) -> None:
        token = jwt.encode({"token_type": "refresh", "exp": 4102444800}, "k" * 32, algorithm="HS256")
        refusal = {"detail": "Token is blacklisted", "code": "token_not_valid"}
        with (
            Loopback(lambda _: (401, JSON, refusal)) as server,
            LabelStudioClient(settings_for(f"{server.url}/prefix", token)) as client,
        ):
            with pytest.raises(LabelStudioError, match="Token is blacklisted"):
                client.check_token()
            assert [request.path for request in server.requests] == ["/prefix/api/token/refresh/"]


class TestSentences:
    def test_addresses_are_shown_without_credentials_and_query(self) -> None:
        assert public_url("http://jane:secret@ls.example:8080/prefix/?token=1#x") == "http://ls.example:8080/prefix"

    def test_reasons_are_one_short_line_without_markup(self) -> None:
        body = {"detail": "Validation error", "validation_errors": {"url": ["No <a href='x'>way</a>.\nNever."]}}
        assert reason_in(body) == "url: No way. Never"
        assert reason_in(PAGE) == ""
        assert len(reason_in({"detail": "x" * 5000})) == 301

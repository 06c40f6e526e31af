from __future__ import annotations

import base64
import json
from collections.abc import Callable

import httpx
import pytest

from clapboard.errors import LabelStudioError, LabelStudioUnreachable
from clapboard.label_studio.auth import LabelStudioAuth, is_personal_access_token

LEGACY = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = ".".join(
    base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
    for part in ({"alg": "HS256", "typ": "JWT"}, {"token_type": "refresh"}, "signature")
)


class LabelStudio:
    """Answers like Label Studio does: access tokens are access-1, access-2, …; only those in `valid` are taken."""

    def __init__(self) -> None:
        self.num_exchanges = 0
        self.valid: set[str] = set()
        self.headers: list[str | None] = []
        self.exchange_status = 200

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/api/token/refresh/"):
            assert json.loads(request.content) == {"refresh": PERSONAL}
            assert "Authorization" not in request.headers
            self.num_exchanges += 1
            access = f"access-{self.num_exchanges}"
            self.valid.add(access)
            return httpx.Response(self.exchange_status, json={"access": access})
        self.headers.append(request.headers.get("Authorization"))
        scheme, _, token = (self.headers[-1] or "").partition(" ")
        known = (scheme == "Token" and token == LEGACY) or (scheme == "Bearer" and token in self.valid)
        return httpx.Response(200 if known else 401, content=b"x" * 10)


@pytest.fixture
def label_studio() -> LabelStudio:
    return LabelStudio()


@pytest.fixture
def client_with(label_studio: LabelStudio) -> Callable[..., httpx.Client]:
    def make(token: str, url: str = "http://ls.example:8080", **options: object) -> httpx.Client:
        auth = LabelStudioAuth(url, token, **options)  # type: ignore[arg-type]
        return httpx.Client(transport=httpx.MockTransport(label_studio), auth=auth)

    return make


def test_a_legacy_token_goes_as_it_is(label_studio: LabelStudio, client_with: Callable[..., httpx.Client]) -> None:
    assert client_with(LEGACY).get("http://ls.example:8080/api/projects").status_code == 200
    assert label_studio.headers == [f"Token {LEGACY}"]
    assert label_studio.num_exchanges == 0


def test_a_personal_token_is_exchanged_once_and_goes_as_bearer(
    label_studio: LabelStudio, client_with: Callable[..., httpx.Client]
) -> None:
    client = client_with(PERSONAL)
    assert [client.get("http://ls.example:8080/x").status_code for _ in range(3)] == [200, 200, 200]
    assert label_studio.headers == ["Bearer access-1"] * 3
    assert label_studio.num_exchanges == 1


def test_an_access_token_is_renewed_before_its_end(
    label_studio: LabelStudio, client_with: Callable[..., httpx.Client]
) -> None:
    now_s = [1000.0]
    client = client_with(PERSONAL, clock=lambda: now_s[0])
    client.get("http://ls.example:8080/x")
    now_s[0] += 200
    client.get("http://ls.example:8080/x")
    now_s[0] += 90
    client.get("http://ls.example:8080/x")
    assert label_studio.headers == ["Bearer access-1", "Bearer access-1", "Bearer access-2"]


def test_a_refused_access_token_is_renewed_once(
    label_studio: LabelStudio, client_with: Callable[..., httpx.Client]
) -> None:
    client = client_with(PERSONAL)
    client.get("http://ls.example:8080/x")
    label_studio.valid.clear()
    assert client.get("http://ls.example:8080/x").status_code == 200
    assert label_studio.headers[1:] == ["Bearer access-1", "Bearer access-2"]


def test_a_second_401_is_handed_on(label_studio: LabelStudio, client_with: Callable[..., httpx.Client]) -> None:
    label_studio.valid = type("Nothing", (set,), {"__contains__": lambda *_: False})()
    assert client_with(PERSONAL).get("http://ls.example:8080/x").status_code == 401
    assert label_studio.num_exchanges == 2


@pytest.mark.parametrize(
    "url",
    [
        "https://ls.example:8080/x",
        "http://ls.example/x",
        "http://ls.example:8081/x",
        "http://other.example:8080/x",
        "http://ls.example.:8080/x",
        "http://ls.example:8080@evil.example/x",
    ],
)
@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
def test_no_other_origin_sees_the_token(
    label_studio: LabelStudio, client_with: Callable[..., httpx.Client], url: str, token: str
) -> None:
    client_with(token).get(url)
    assert label_studio.headers == [None]
    assert label_studio.num_exchanges == 0


def test_the_default_port_and_the_host_s_case_do_not_matter(
    label_studio: LabelStudio, client_with: Callable[..., httpx.Client]
) -> None:
    assert client_with(LEGACY, url="https://LS.example").get("https://ls.EXAMPLE:443/x").status_code == 200


def test_the_exchange_respects_a_base_path(label_studio: LabelStudio, client_with: Callable[..., httpx.Client]) -> None:
    client = client_with(PERSONAL, url="http://ls.example/studio/")
    assert client.get("http://ls.example/studio/x").status_code == 200
    assert label_studio.num_exchanges == 1


def test_without_a_token_nothing_is_added(label_studio: LabelStudio, client_with: Callable[..., httpx.Client]) -> None:
    client_with("").get("http://ls.example:8080/x")
    assert label_studio.headers == [None]


def test_a_personal_token_that_is_refused_names_the_setting_and_not_the_token(
    label_studio: LabelStudio, client_with: Callable[..., httpx.Client]
) -> None:
    label_studio.exchange_status = 401
    with pytest.raises(LabelStudioError, match="LABEL_STUDIO_API_KEY") as caught:
        client_with(PERSONAL).get("http://ls.example:8080/x")
    assert PERSONAL not in str(caught.value)
    assert not caught.value.retryable


def test_an_exchange_that_fails_for_now_is_retryable(
    label_studio: LabelStudio, client_with: Callable[..., httpx.Client]
) -> None:
    label_studio.exchange_status = 503
    with pytest.raises(LabelStudioUnreachable, match="503"):
        client_with(PERSONAL).get("http://ls.example:8080/x")


@pytest.mark.parametrize(
    ("token", "personal"), [(PERSONAL, True), (LEGACY, False), ("", False), ("a.b.c", False), ("e30.e30.x", False)]
)
def test_personal_tokens_are_told_from_legacy_ones(token: str, personal: bool) -> None:
    assert is_personal_access_token(token) is personal

"""Admission to a real `clapboard serve`: host names, origins, content types, and the password that `connect` makes."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from backend.access import Access
from clapboard.errors import SettingsError
from clapboard.settings import Settings
from clapboard.store import Store
from tests.backend.test_app import problem
from tests.support.processes import Backend, Installation
from tests.support.programs import free_port
from tests.support.waiting import WAIT_S, wait_for

PROXY = "clap.example.org"
CONNECTED = "clapboard.lab.example"


@pytest.fixture(scope="module")
def open_installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A state folder without a password in its settings."""
    with Installation(tmp_path_factory.mktemp("open"), "mini") as installation:
        yield installation


@pytest.fixture(scope="module")
def unguarded(open_installation: Installation) -> Backend:
    """A backend without a password, behind a reverse proxy with that host name."""
    port = free_port()
    return open_installation.serve(port=port, url=f"http://backend.clapboard.test:{port}", host_names=PROXY)


def asked(backend: Backend, method: str = "GET", path: str = "/versions", **headers: str) -> httpx.Response:
    """The answer to a request with these headers, whose names are written with `_`; `Host` among them."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return backend.client.request(method, path, headers=named, content=b"{}" if method == "POST" else None)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:1234",
        "127.0.0.1:9090",
        "[::1]:9090",
        "192.168.7.8",
        "backend:9090",
        "host.docker.internal:9090",
        "backend.clapboard.test",
        "BACKEND.clapboard.test.:80",
        PROXY,
        f"{PROXY}:443",
    ],
)
def test_the_backend_answers_to_its_own_names(unguarded: Backend, host: str) -> None:
    assert asked(unguarded, Host=host).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9090", f"{PROXY}.evil.example", "127.0.0.1.evil.example", "x@localhost"]
)
def test_a_foreign_host_name_is_refused(unguarded: Backend, host: str) -> None:
    answer = asked(unguarded, Host=host)
    assert answer.status_code == 403
    assert "CLAPBOARD_HOST_NAMES" in problem(answer)
    assert asked(unguarded, path="/health", Host=host).status_code == 200


def test_a_host_name_that_connect_gave_to_label_studio_is_admitted_at_once(
    unguarded: Backend, open_installation: Installation
) -> None:
    assert asked(unguarded, Host=CONNECTED).status_code == 403
    open_installation.store.access.add_url(f"http://{CONNECTED}:9090")
    assert asked(unguarded, Host=CONNECTED).status_code == 200


def test_an_http_1_0_request_needs_no_host(unguarded: Backend) -> None:
    address = unguarded.client.base_url
    connection = http.client.HTTPConnection(address.host, address.port, timeout=WAIT_S)
    connection._http_vsn_str = "HTTP/1.0"  # type: ignore[attr-defined]
    connection.putrequest("GET", "/versions", skip_host=True)
    connection.endheaders()
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize("path", ["/webhook", "/train", "/predict", "/setup", "/search", "/versions"])
@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"]
)
def test_a_body_of_another_type_than_json_is_refused(unguarded: Backend, path: str, content_type: str) -> None:
    answer = asked(unguarded, "POST", path, Content_Type=content_type)
    assert answer.status_code == 415
    assert "application/json" in problem(answer)


def test_a_body_without_a_type_is_refused(unguarded: Backend, open_installation: Installation) -> None:
    event = {"action": "START_TRAINING", "project": 5}
    assert unguarded.client.post("/webhook", content=json.dumps(event)).status_code == 415
    chunks = iter([json.dumps(event).encode()])
    assert unguarded.client.post("/webhook", content=chunks).status_code == 415
    assert unguarded.client.post("/versions").status_code == 200  # nothing is no body
    assert open_installation.store.inbox.events() == []


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/ld+json"])
def test_every_spelling_of_the_json_type_is_admitted(unguarded: Backend, content_type: str) -> None:
    assert asked(unguarded, "POST", Content_Type=content_type).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8080"},  # Label Studio's page, with what people wrote into it
        {"Origin": "file://"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "cors"},
    ],
)
def test_web_pages_of_other_origins_are_refused(unguarded: Backend, headers: dict[str, str]) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        answer = asked(unguarded, method, Content_Type="application/json", **headers)
        assert answer.status_code == 403
        assert "origins" in problem(answer)
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_its_own_pages_and_links_to_it_are_admitted(unguarded: Backend) -> None:
    own = f"localhost:{unguarded.client.base_url.port}"
    assert asked(unguarded, "POST", Host=own, Origin=f"http://{own}", Content_Type="application/json").is_success
    behind = {"Host": PROXY, "Origin": f"https://{PROXY}", "Sec_Fetch_Site": "same-origin"}
    assert asked(unguarded, "POST", Content_Type="application/json", **behind).is_success
    url = f"http://backend.clapboard.test:{unguarded.client.base_url.port}"  # CLAPBOARD_URL, whatever the proxy calls
    assert asked(unguarded, "POST", Host="localhost", Origin=url, Content_Type="application/json").is_success
    assert asked(unguarded, path="/docs", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").is_success


def test_a_method_that_a_path_lacks_is_answered_with_those_that_it_has(unguarded: Backend) -> None:
    for path, allowed in (("/versions", "GET, POST"), ("/webhook", "POST"), ("/ledger", "GET"), ("/search", "POST")):
        answer = unguarded.client.put(path, json={})
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_the_password_of_connect_is_needed_once_it_is_in_force(
    unguarded: Backend, open_installation: Installation
) -> None:
    made = open_installation.store.access.make()
    assert open_installation.store.access.make() == made
    assert asked(unguarded).status_code == 200
    assert open_installation.store.access.enforce()
    assert not open_installation.store.access.enforce()
    wait_for(lambda: httpx.get(unguarded.client.base_url.join("/versions"), trust_env=False).status_code == 401, "open")
    refusal = httpx.get(unguarded.client.base_url.join("/versions"), trust_env=False)
    assert "clapboard config --password" in problem(refusal)
    assert httpx.get(unguarded.client.base_url.join("/health"), trust_env=False).status_code == 200
    for auth, status in (((made.user, made.password), 200), ((made.user, "x"), 401), ((made.password, ""), 401)):
        address = unguarded.client.base_url.join("/versions")
        assert httpx.get(address, auth=auth, trust_env=False).status_code == status
    shown = open_installation.run("config", "--password")
    assert shown.stdout == f"{made.user}:{made.password}\n"
    assert made.password not in unguarded.process.log


def test_the_operators_password_takes_precedence(open_installation: Installation) -> None:
    made = open_installation.store.access.make()
    open_installation.store.access.enforce()
    backend = open_installation.serve(basic_auth_user="ls", basic_auth_pass="größer")
    address = backend.client.base_url.join("/versions")
    assert httpx.get(address, auth=(made.user, made.password), trust_env=False).status_code == 401
    for encoding in ("utf-8", "latin-1"):  # Label Studio's requests sends the latter
        sent = base64.b64encode("ls:größer".encode(encoding)).decode()
        assert httpx.get(address, headers={"Authorization": f"Basic {sent}"}, trust_env=False).status_code == 200
    assert (
        open_installation.run("config", "--password", basic_auth_user="ls", basic_auth_pass="größer").stdout
        == "ls:größer\n"
    )


@pytest.mark.parametrize("names", ["http://clap.example.org", "clap.example.org:443", "a b"])
def test_a_malformed_host_name_is_refused(names: str) -> None:
    store = Store("sqlite://")
    with pytest.raises(SettingsError, match="CLAPBOARD_HOST_NAMES: «"):
        Access(Settings(CLAPBOARD_HOST_NAMES=names), store)
    store.close()


@pytest.mark.parametrize(
    "half",
    [{"BASIC_AUTH_USER": "ls"}, {"BASIC_AUTH_PASS": "s3cret"}, {"BASIC_AUTH_USER": "a:b", "BASIC_AUTH_PASS": "x"}],
)
def test_a_user_without_a_password_is_refused_and_vice_versa(
    half: dict[str, Any], open_installation: Installation
) -> None:
    fields = {"BASIC_AUTH_USER": "basic_auth_user", "BASIC_AUTH_PASS": "basic_auth_pass"}
    done = open_installation.run("serve", **{fields[name]: value for name, value in half.items()})
    assert done.returncode == 2
    assert "BASIC_AUTH_" in done.stderr
    assert "Traceback" not in done.stderr

from __future__ import annotations

import base64
import gc
import hashlib
import json
import logging
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clapboard.errors import SourceError, SourceRefused, SourceTooLarge, SourceUnavailable
from clapboard.settings import Settings, env_name
from clapboard.sources import AudioSources, SourceFile
from clapboard.sources.uris import read_uri

AUDIO = b"RIFF" + bytes(range(256)) * 40
LEGACY = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.c2lnbmF0dXJl"
MIB = 1024 * 1024

Answer = Callable[["Handler"], None]


@dataclass(frozen=True)
class Request:
    path: str
    headers: Message
    body: bytes


class Handler(BaseHTTPRequestHandler):
    """Answers from the site's table of paths and notes what it was asked."""

    server: Site
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(Request(self.path, self.headers, body))
        self.server.answers.get(self.path.partition("?")[0], status(404))(self)

    do_POST = do_GET  # noqa: N815

    def send(self, content: bytes, code: int = 200, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Site(ThreadingHTTPServer):
    """A real HTTP server on loopback."""

    daemon_threads = True

    def __init__(self, address: str = "127.0.0.1") -> None:
        super().__init__((address, 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.requests: list[Request] = []
        self.url = f"http://{address}:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests."""

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def authorizations(self) -> list[str | None]:
        return [request.headers.get("Authorization") for request in self.requests]


def audio(content: bytes = AUDIO) -> Answer:
    return lambda handler: handler.send(content, Content_Type="audio/x-wav")


def status(code: int, body: bytes = b"no") -> Answer:
    return lambda handler: handler.send(body, code)


def redirect(location: str, code: int = 302) -> Answer:
    return lambda handler: handler.send(b"", code, Location=location)


def drip(seconds_between: float) -> Answer:
    """Sends a byte at a time, each before any time-out on one read would strike."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b"x")
            time.sleep(seconds_between)

    return answer


def cut_short(handler: Handler) -> None:
    handler.send(AUDIO[:100], Content_Length=str(len(AUDIO)))
    handler.close_connection = True


@pytest.fixture
def label_studio() -> Iterator[Site]:
    with Site() as site:
        yield site
        site.shutdown()


@pytest.fixture
def cdn() -> Iterator[Site]:
    with Site("127.0.0.2") as site:
        yield site
        site.shutdown()


@pytest.fixture
def make_sources(tmp_path: Path, label_studio: Site) -> Callable[..., AudioSources]:
    """Sources for that Label Studio; keywords are settings, but for `resolve_host` and `ssl_context`."""

    def make(**changes: Any) -> AudioSources:
        arguments = {
            name: changes.pop(name) for name in ("resolve_host", "ssl_context", "public_address") if name in changes
        }
        fields = {"label_studio_url": label_studio.url, "label_studio_api_key": LEGACY, "fetch_timeout_s": 5.0}
        fields |= {"model_dir": tmp_path / "state", "cache_mb": 100.0, "max_audio_mb": 50.0} | changes
        return AudioSources(Settings(**{env_name(field): value for field, value in fields.items()}), **arguments)

    return make


def content(source: SourceFile) -> bytes:
    found = source.path.read_bytes()
    assert hashlib.sha256(found).hexdigest() == source.sha256
    return found


# Label Studio's own files and its tokens


@pytest.mark.parametrize("uri", ["/data/upload/1/ab-dog.wav", "/data/local-files/?d=sounds%2Fdog.wav"])
def test_label_studio_s_own_files_come_with_the_legacy_token(
    label_studio: Site, make_sources: Callable[..., AudioSources], uri: str
) -> None:
    label_studio.answers[uri.partition("?")[0]] = audio()
    assert content(make_sources().fetch(uri)) == AUDIO
    assert label_studio.paths() == [uri]
    assert label_studio.authorizations() == [f"Token {LEGACY}"]


def test_an_absolute_url_of_label_studio_is_the_same_file_as_the_path(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    label_studio.answers["/data/upload/1/a.wav"] = audio()
    sources = make_sources()
    first = sources.fetch(f"{label_studio.url}/data/upload/1/a.wav")
    assert sources.fetch("/data/upload/1/a.wav") == first
    assert sources.key("/data/upload/1/a.wav") == sources.key(f"{label_studio.url}/data/upload/1/a.wav#t=1")
    assert label_studio.authorizations() == [f"Token {LEGACY}"]


def test_a_personal_token_is_exchanged_and_goes_as_bearer(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    label_studio.answers["/api/token/refresh/"] = lambda handler: handler.send(json.dumps({"access": "fresh"}).encode())
    label_studio.answers["/data/upload/1/a.wav"] = audio()
    label_studio.answers["/data/upload/1/b.wav"] = audio()
    sources = make_sources(label_studio_api_key=PERSONAL)
    sources.fetch("/data/upload/1/a.wav")
    sources.fetch("/data/upload/1/b.wav")
    assert json.loads(label_studio.requests[0].body) == {"refresh": PERSONAL}
    assert label_studio.authorizations() == [None, "Bearer fresh", "Bearer fresh"]


def test_a_personal_token_that_is_refused_is_a_source_error(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    label_studio.answers["/api/token/refresh/"] = status(401)
    with pytest.raises(SourceError, match="LABEL_STUDIO_API_KEY") as caught:
        make_sources(label_studio_api_key=PERSONAL).fetch("/data/upload/1/a.wav")
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "answer",
    [
        status(401),
        redirect("/user/login/?next=/data/upload/1/a.wav"),
        lambda handler: handler.send(b"<!doctype html><title>Label Studio", Content_Type="text/html; charset=utf-8"),
    ],
    ids=["401", "redirect to the login", "login page"],
)
def test_a_missing_or_wrong_token_is_said_so(
    label_studio: Site, make_sources: Callable[..., AudioSources], answer: Answer
) -> None:
    label_studio.answers["/data/upload/1/a.wav"] = answer
    with pytest.raises(SourceError, match="LABEL_STUDIO_API_KEY") as caught:
        make_sources().fetch("/data/upload/1/a.wav")
    assert LEGACY not in str(caught.value)
    assert len(label_studio.requests) == 1


def test_label_studio_that_moved_to_another_scheme_or_port_is_said_so(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    label_studio.answers["/data/upload/1/a.wav"] = redirect("https://127.0.0.1/data/upload/1/a.wav?x=1")
    with pytest.raises(SourceError, match=r"set LABEL_STUDIO_URL") as caught:
        make_sources().fetch("/data/upload/1/a.wav")
    assert "https://127.0.0.1:" in str(caught.value)


PAGES = [
    "/api/projects/1/export?exportType=JSON",
    "/api/current-user/token",
    "/projects/1/data",
    "/data/export/all.json",
    "/data/upload/../../api/projects/1/export",
    "/data/upload/%2e%2e/%2e%2e/api/projects/1/export",
    "/data/upload/%252e%252e/%252e%252e/api/projects/1/export",
    "/data/upload/..%2f..%2fapi/projects/1/export",
    "/data/upload/..;/..;/api/projects/1/export",
    "/data/upload/.%5c../api/projects/1/export",
    "/data/upload//1/a.wav",
    "//data/upload/1/a.wav",
    "/DATA/upload/1/a.wav",
    "/tasks/7/resolve/7/?fileuri=x",
    "/tasks/x/resolve/?fileuri=x",
    "/tasks/7/resolve/../../../api/projects/1/export",
    "/api/data/upload/1/a.wav",
    "/storage-data/uploaded/../../api/users",
]
MEDIA = [
    "/data/upload/1/ab-dog.wav",
    "/data/upload/1/b%C3%BC%20cher.wav",
    "/data/upload/1/a..b.wav",
    "/data/local-files/?d=../sounds/dog.wav",
    "/data/local-files?d=sounds/dog.wav",
    "/storage-data/uploaded/?filepath=upload%2F1%2Fdog.wav",
    "/tasks/7/resolve/?fileuri=czM6",
    "/projects/7/resolve/?fileuri=czM6",
    "/tasks/7/presign/?fileuri=czM6",
    "/d%61ta/upload/1/a.wav",
]


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("way", ["a task's address", "a redirect of Label Studio", "a redirect of another host"])
def test_the_token_never_goes_to_another_page_of_label_studio(
    label_studio: Site, cdn: Site, make_sources: Callable[..., AudioSources], path: str, way: str
) -> None:
    first = {"a task's address": f"{label_studio.url}{path}", "a redirect of Label Studio": "/data/upload/1/way.wav"}
    label_studio.answers["/data/upload/1/way.wav"] = redirect(f"{label_studio.url}{path}")
    cdn.answers["/way.wav"] = redirect(f"{label_studio.url}{path}")
    for answered in {path.partition("?")[0], "/api/projects/1/export", "/api/users"}:
        label_studio.answers[answered] = status(401)
    sources = make_sources(allow_private_urls=True, label_studio_api_key=LEGACY)
    with pytest.raises(SourceError):
        sources.fetch(first.get(way, f"{cdn.url}/way.wav"))
    told = {request.path: request.headers.get("Authorization") for request in label_studio.requests}
    told.pop("/data/upload/1/way.wav", None)
    assert set(told.values()) <= {None}


@pytest.mark.parametrize("path", MEDIA)
def test_the_token_goes_to_whatever_label_studio_serves_as_media(
    label_studio: Site, make_sources: Callable[..., AudioSources], path: str
) -> None:
    label_studio.answers[path.partition("?")[0]] = audio()
    assert content(make_sources().fetch(f"{label_studio.url}{path}")) == AUDIO
    assert label_studio.authorizations() == [f"Token {LEGACY}"]


def test_another_page_is_as_private_as_its_host_and_said_to_be_no_audio(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    label_studio.answers["/api/projects/1/export"] = status(401)
    uri = f"{label_studio.url}/api/projects/1/export"
    with pytest.raises(SourceRefused, match="loopback"):
        make_sources().fetch(uri)
    assert label_studio.requests == []
    with pytest.raises(SourceError, match=r"a page of Label Studio that requires a login, not one of its audio files"):
        make_sources(allow_private_urls=True).fetch(uri)


def test_a_connection_for_media_is_not_used_for_another_page(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    label_studio.answers["/data/upload/1/a.wav"] = redirect("/trigger500")
    with pytest.raises(SourceRefused, match="loopback"):
        make_sources().fetch("/data/upload/1/a.wav")
    assert label_studio.paths() == ["/data/upload/1/a.wav"]


# Label Studio under two addresses


@pytest.mark.parametrize("given", ["setting", "told"])
@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/ls/data/upload/1/a.wav", "/data/upload/1/a.wav"),
        ("/data/upload/1/a.wav", "/data/upload/1/a.wav"),
        ("http://public.example/ls/data/local-files/?d=clips/x.wav", "/data/local-files/?d=clips/x.wav"),
        ("https://public.example/ls/data/upload/1/a.wav", "/data/upload/1/a.wav"),
        ("HTTPS://PUBLIC.example:443/ls/tasks/7/resolve/?fileuri=czM6", "/tasks/7/resolve/?fileuri=czM6"),
    ],
)
def test_media_at_the_public_address_come_from_where_label_studio_is_reached(
    label_studio: Site, make_sources: Callable[..., AudioSources], given: str, uri: str, path: str
) -> None:
    label_studio.answers[path.partition("?")[0]] = audio()
    public = "http://public.example/ls"
    sources = make_sources(
        **{"label_studio_host": public} if given == "setting" else {"public_address": lambda: public}
    )
    assert content(sources.fetch(uri)) == AUDIO
    assert label_studio.paths() == [path]
    assert label_studio.authorizations() == [f"Token {LEGACY}"]
    assert sources.key(uri) == sources.key(path)


@pytest.mark.parametrize(
    "uri",
    [
        "http://public.example/data/upload/1/a.wav",
        "http://public.example/ls/api/projects/1/export",
        "http://public.example/ls/data/upload/..%2f..%2fapi",
        "http://public.example:8080/ls/data/upload/1/a.wav",
        "http://public.example.evil/ls/data/upload/1/a.wav",
    ],
)
def test_nothing_else_at_the_public_address_is_label_studio(
    label_studio: Site, make_sources: Callable[..., AudioSources], uri: str
) -> None:
    sources = make_sources(label_studio_host="http://public.example/ls", resolve_host=lambda host, port: ["127.0.0.3"])
    with pytest.raises(SourceRefused, match="loopback"):
        sources.fetch(uri)
    assert label_studio.requests == []


def test_the_public_address_may_become_known_later(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    label_studio.answers["/data/upload/1/a.wav"] = audio()
    told = [""]
    sources = make_sources(public_address=lambda: told[0], resolve_host=lambda host, port: [])
    uri = "https://public.example/ls/data/upload/1/a.wav"
    with pytest.raises(SourceError, match=r"If https://public\.example is Label Studio, set LABEL_STUDIO_HOST"):
        sources.fetch(uri)
    told[0] = "https://public.example/ls"
    assert content(sources.fetch(uri)) == AUDIO


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_every_name_of_this_machine_is_the_label_studio_on_it(
    label_studio: Site, make_sources: Callable[..., AudioSources], host: str
) -> None:
    label_studio.answers["/data/upload/1/a.wav"] = audio()
    assert content(make_sources().fetch(f"http://{host}:{label_studio.server_port}/data/upload/1/a.wav")) == AUDIO
    assert label_studio.requests[0].headers["Host"] == f"127.0.0.1:{label_studio.server_port}"


# other hosts and redirects


def test_another_host_never_sees_the_token(
    label_studio: Site, cdn: Site, make_sources: Callable[..., AudioSources]
) -> None:
    cdn.answers["/a.wav"] = audio()
    label_studio.answers["/data/upload/1/b.wav"] = redirect(f"{cdn.url}/a.wav?signature=1")
    sources = make_sources(allowed_hosts=("127.0.0.2",))
    assert content(sources.fetch(f"{cdn.url}/a.wav")) == AUDIO
    assert content(sources.fetch("/data/upload/1/b.wav")) == AUDIO
    assert cdn.authorizations() == [None, None]
    assert cdn.paths() == ["/a.wav", "/a.wav?signature=1"]


def test_another_port_of_label_studio_s_host_is_another_origin(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    with Site() as neighbour:
        neighbour.answers["/a.wav"] = audio()
        with pytest.raises(SourceRefused, match="loopback"):
            make_sources().fetch(f"{neighbour.url}/a.wav")
        assert content(make_sources(allow_private_urls=True).fetch(f"{neighbour.url}/a.wav")) == AUDIO
        assert neighbour.authorizations() == [None]
        neighbour.shutdown()


def test_relative_redirects_are_followed_a_few_times(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    for i in range(5):
        label_studio.answers[f"/data/upload/{i}"] = redirect(f"/data/upload/{i + 1}", 307)
    label_studio.answers["/data/upload/5"] = audio()
    assert content(make_sources().fetch("/data/upload/0")) == AUDIO
    assert label_studio.authorizations() == [f"Token {LEGACY}"] * 6


def test_endless_redirects_end(label_studio: Site, make_sources: Callable[..., AudioSources]) -> None:
    label_studio.answers["/data/upload/round"] = redirect("/data/upload/round")
    with pytest.raises(SourceError, match="more than 5 times"):
        make_sources().fetch("/data/upload/round")
    assert len(label_studio.requests) == 6


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2:1/a",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://2130706434/",
        "http://user@127.0.0.2/",
        "file:///etc/passwd",
        "http://[",
        "//127.0.0.2/x",
    ],
)
def test_a_redirect_to_a_forbidden_place_is_refused(
    cdn: Site, make_sources: Callable[..., AudioSources], location: str
) -> None:
    cdn.answers["/a.wav"] = redirect(location)
    sources = make_sources(
        allowed_hosts=("cdn.example",), resolve_host=lambda host, port: {"cdn.example": ["127.0.0.2"]}[host]
    )
    with pytest.raises(SourceRefused):
        sources.fetch(f"http://cdn.example:{cdn.server_port}/a.wav")
    assert len(cdn.requests) == 1


# addresses


@pytest.mark.parametrize(
    "host", ["127.0.0.2", "2130706434", "0x7f.2", "0177.2", "127.0.0.2.", "[::ffff:127.0.0.2]", "[64:ff9b::7f00:2]"]
)
def test_loopback_is_refused_in_every_spelling(cdn: Site, make_sources: Callable[..., AudioSources], host: str) -> None:
    cdn.answers["/a.wav"] = audio()
    with pytest.raises(SourceRefused, match="loopback"):
        make_sources().fetch(f"http://{host}:{cdn.server_port}/a.wav")
    assert cdn.requests == []


def test_a_name_that_resolves_to_a_private_address_is_refused(
    cdn: Site, make_sources: Callable[..., AudioSources]
) -> None:
    cdn.answers["/a.wav"] = audio()
    sources = make_sources(resolve_host=lambda host, port: ["93.184.216.34", "127.0.0.2"])
    with pytest.raises(SourceRefused, match=r"audio\.example, which is a loopback address"):
        sources.fetch(f"http://audio.example:{cdn.server_port}/a.wav?secret=1")
    assert cdn.requests == []


def test_the_connection_goes_to_the_very_address_that_was_checked(
    cdn: Site, make_sources: Callable[..., AudioSources]
) -> None:
    cdn.answers["/a.wav"] = audio()
    answers = [["127.0.0.2"], ["127.0.0.3"]]
    sources = make_sources(allowed_hosts=("127.0.0.2",), resolve_host=lambda host, port: answers.pop(0))
    assert content(sources.fetch(f"http://audio.example:{cdn.server_port}/a.wav")) == AUDIO
    assert answers == [["127.0.0.3"]]
    assert cdn.requests[0].headers["Host"] == f"audio.example:{cdn.server_port}"


def test_a_second_address_is_tried_where_the_first_doesn_t_answer(
    cdn: Site, make_sources: Callable[..., AudioSources]
) -> None:
    cdn.answers["/a.wav"] = audio()
    sources = make_sources(allowed_hosts=("audio.example",), resolve_host=lambda host, port: ["127.0.0.3", "127.0.0.2"])
    assert content(sources.fetch(f"http://audio.example:{cdn.server_port}/a.wav")) == AUDIO


def test_label_studio_itself_may_be_on_a_private_address(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    label_studio.answers["/data/upload/1/a.wav"] = audio()
    sources = make_sources(
        label_studio_url=f"http://studio.example:{label_studio.server_port}",
        resolve_host=lambda host, port: ["127.0.0.1"],
    )
    assert content(sources.fetch("/data/upload/1/a.wav")) == AUDIO
    with pytest.raises(SourceRefused, match="LABEL_STUDIO_URL"):
        sources.fetch(f"{label_studio.url}/data/upload/1/a.wav")


def test_proxies_of_the_environment_are_not_used(
    label_studio: Site, make_sources: Callable[..., AudioSources], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    label_studio.answers["/data/upload/1/a.wav"] = audio()
    assert content(make_sources().fetch("/data/upload/1/a.wav")) == AUDIO


def test_a_name_that_doesn_t_resolve_is_retryable(make_sources: Callable[..., AudioSources]) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(SourceUnavailable, match=r"nowhere\.example can't be resolved"):
        make_sources(resolve_host=unknown).fetch("http://nowhere.example/a.wav")


@pytest.mark.parametrize("answer", [["not an address"], [""], ["127.0.0.1.5"], ["10.0.0.1", "fe80::1%eth0", "x"]])
def test_an_odd_answer_of_the_name_server_is_told_once(
    make_sources: Callable[..., AudioSources], answer: list[str]
) -> None:
    asked = []
    sources = make_sources(
        allowed_hosts=("10.0.0.0/8", "fe80::/10"), resolve_host=lambda host, port: asked.append(host) or answer
    )
    with pytest.raises(SourceError, match=r"for audio\.example, which isn't an address: check") as caught:
        sources.fetch("http://audio.example/a.wav")
    assert not caught.value.retryable
    assert asked == ["audio.example"]


@pytest.mark.parametrize("failure", [ValueError("x"), OverflowError("x"), UnicodeError("label too long"), OSError("x")])
def test_whatever_the_name_server_fails_with_is_foreseen(
    make_sources: Callable[..., AudioSources], failure: Exception
) -> None:
    def fail(host: str, port: int) -> list[str]:
        raise failure

    with pytest.raises(SourceUnavailable, match=r"audio\.example can't be resolved"):
        make_sources(resolve_host=fail).fetch("http://audio.example/a.wav")


def test_a_name_server_that_hangs_counts_against_the_time(make_sources: Callable[..., AudioSources]) -> None:
    sources = make_sources(fetch_timeout_s=0.3, resolve_host=lambda host, port: time.sleep(3.0))
    started_s = time.monotonic()
    with pytest.raises(SourceUnavailable, match=r"slow\.example was not resolved"):
        sources.fetch("http://slow.example/a.wav")
    assert time.monotonic() - started_s < 1.0


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of audio.example, with its key."""
    path = tmp_path_factory.mktemp("tls") / "audio.example.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=audio.example"
    command = ["openssl", *options.split(), "-addext", "subjectAltName=DNS:audio.example"]
    subprocess.run([*command, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def tls_site(certificate: Path) -> Iterator[Site]:
    with Site("127.0.0.2") as site:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        site.socket = context.wrap_socket(site.socket, server_side=True)
        site.answers["/a.wav"] = audio()
        yield site
        site.shutdown()


def test_the_certificate_is_checked_against_the_name_and_not_the_address(
    tls_site: Site, certificate: Path, make_sources: Callable[..., AudioSources]
) -> None:
    sources = make_sources(
        allowed_hosts=("127.0.0.2",),
        resolve_host=lambda host, port: ["127.0.0.2"],
        ssl_context=ssl.create_default_context(cafile=str(certificate)),
    )
    assert content(sources.fetch(f"https://audio.example:{tls_site.server_port}/a.wav")) == AUDIO
    with pytest.raises(SourceError, match="certificate") as caught:
        sources.fetch(f"https://other.example:{tls_site.server_port}/a.wav")
    assert not caught.value.retryable


def test_an_unknown_authority_is_refused(tls_site: Site, make_sources: Callable[..., AudioSources]) -> None:
    sources = make_sources(allowed_hosts=("127.0.0.2",), resolve_host=lambda host, port: ["127.0.0.2"])
    with pytest.raises(SourceError, match=r"certificate of audio\.example can't be verified \(self.signed certificate"):
        sources.fetch(f"https://audio.example:{tls_site.server_port}/a.wav")
    assert tls_site.requests == []


def test_an_authority_of_the_operator_s_own_is_trusted(
    tls_site: Site, certificate: Path, make_sources: Callable[..., AudioSources]
) -> None:
    sources = make_sources(
        allowed_hosts=("127.0.0.2",), resolve_host=lambda host, port: ["127.0.0.2"], certificates=str(certificate)
    )
    assert content(sources.fetch(f"https://audio.example:{tls_site.server_port}/a.wav")) == AUDIO


# cloud storage


BIG = b"".join(i.to_bytes(4, "big") for i in range(20 * MIB // 4)) + b"end"


def proxy(content: bytes, *, stops_after: int | None = None) -> Answer:
    """Label Studio's storage proxy: ranges of 8 MiB at most, each answer ended after `stops_after` bytes."""

    def answer(handler: Handler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
        start, last = (int(asked[1]), int(asked[2])) if asked else (0, len(content) - 1)
        last = min(last, start + 8 * MIB, len(content) - 1)
        piece = content[start : last + 1]
        headers = {"Content_Range": f"bytes {start}-{last}/{len(content)}", "Content_Length": str(len(piece))}
        handler.send(piece[:stops_after], 206 if asked else 200, **headers)
        handler.close_connection = stops_after is not None

    return answer


@pytest.mark.parametrize("uri", ["s3://bucket/dir/ü.wav", "gs://bucket/a.wav", "azure-blob://box/a.wav"])
def test_cloud_files_are_resolved_through_their_task(
    label_studio: Site, make_sources: Callable[..., AudioSources], uri: str
) -> None:
    label_studio.answers["/tasks/7/resolve/"] = proxy(AUDIO)
    assert content(make_sources().fetch(uri, task_id=7)) == AUDIO
    file_uri = label_studio.paths()[0].partition("fileuri=")[2].replace("%3D", "=")
    assert base64.urlsafe_b64decode(file_uri).decode() == uri
    assert label_studio.authorizations() == [f"Token {LEGACY}"]


def test_a_large_proxied_file_is_read_in_ranges(label_studio: Site, make_sources: Callable[..., AudioSources]) -> None:
    label_studio.answers["/tasks/7/resolve/"] = proxy(BIG)
    assert content(make_sources().fetch("s3://bucket/big.wav", task_id=7)) == BIG
    assert [request.headers["Range"] for request in label_studio.requests] == [
        "bytes=0-8388607",
        "bytes=8388608-16777215",
        "bytes=16777216-25165823",
    ]


def test_a_proxy_that_stops_half_way_is_asked_for_the_rest(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    label_studio.answers["/tasks/7/resolve/"] = proxy(BIG, stops_after=5 * MIB)
    assert content(make_sources().fetch("s3://bucket/big.wav", task_id=7)) == BIG
    assert len(label_studio.requests) == 5


def test_a_proxy_that_never_gets_on_is_an_error(label_studio: Site, make_sources: Callable[..., AudioSources]) -> None:
    label_studio.answers["/tasks/7/resolve/"] = proxy(AUDIO, stops_after=0)
    with pytest.raises(SourceUnavailable, match=r"s3://bucket/a\.wav"):
        make_sources().fetch("s3://bucket/a.wav", task_id=7)
    assert len(label_studio.requests) == 3


def test_a_proxied_file_that_changes_under_way_is_not_patched_together(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    versions = [BIG, BIG[:-MIB], BIG[:-MIB], BIG[:-MIB], BIG[:-MIB]]
    label_studio.answers["/tasks/7/resolve/"] = lambda handler: proxy(versions.pop(0))(handler)
    assert content(make_sources().fetch("s3://bucket/big.wav", task_id=7)) == BIG[:-MIB]


def test_a_presigned_url_is_followed_without_token(
    label_studio: Site, cdn: Site, make_sources: Callable[..., AudioSources]
) -> None:
    cdn.answers["/bucket/a.wav"] = audio(BIG)
    label_studio.answers["/tasks/7/resolve/"] = redirect(f"{cdn.url}/bucket/a.wav?X-Amz-Signature=secret", 303)
    sources = make_sources(allowed_hosts=("127.0.0.0/8",))
    first = sources.fetch("s3://bucket/a.wav", task_id=7)
    assert content(first) == BIG
    assert cdn.authorizations() == [None]
    assert sources.fetch("s3://bucket/a.wav", task_id=8) == first
    assert len(label_studio.requests) == 1


def test_a_presigned_url_to_a_private_address_is_refused(
    label_studio: Site, cdn: Site, make_sources: Callable[..., AudioSources]
) -> None:
    label_studio.answers["/tasks/7/resolve/"] = redirect(f"{cdn.url}/bucket/a.wav?X-Amz-Signature=secret", 303)
    with pytest.raises(SourceRefused, match="CLAPBOARD_ALLOWED_HOSTS") as caught:
        make_sources().fetch("s3://bucket/a.wav", task_id=7)
    assert "secret" not in str(caught.value)
    assert cdn.requests == []


def test_a_storage_on_another_port_of_label_studio_s_host_is_followed_by_the_rules_of_any_address(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    with Site() as storage:
        storage.answers["/bucket/a.wav"] = audio()
        label_studio.answers["/tasks/7/resolve/"] = redirect(f"{storage.url}/bucket/a.wav?X-Amz-Signature=secret", 303)
        with pytest.raises(SourceRefused, match="CLAPBOARD_ALLOWED_HOSTS"):
            make_sources().fetch("s3://bucket/a.wav", task_id=7)
        assert storage.requests == []
        sources = make_sources(allowed_hosts=("127.0.0.1",))
        assert content(sources.fetch("s3://bucket/a.wav", task_id=7)) == AUDIO
        assert storage.authorizations() == [None]
        storage.shutdown()


def test_a_storage_that_label_studio_doesn_t_know_is_named(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    with pytest.raises(SourceError, match=r"s3://bucket/a\.wav doesn't exist"):
        make_sources().fetch("s3://bucket/a.wav", task_id=7)


# data: URIs


def test_data_uris_are_their_own_source(label_studio: Site, make_sources: Callable[..., AudioSources]) -> None:
    uri = "data:audio/wav;base64," + base64.b64encode(AUDIO).decode()
    assert content(make_sources().fetch(uri)) == AUDIO
    assert label_studio.requests == []


def test_a_data_uri_over_the_cap_is_refused(make_sources: Callable[..., AudioSources]) -> None:
    uri = "data:audio/wav;base64," + base64.b64encode(bytes(2000)).decode()
    with pytest.raises(SourceTooLarge):
        make_sources(max_audio_mb=0.001).fetch(uri)


# size, time and broken connections


def test_a_file_over_the_cap_is_refused_by_its_length_alone(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    label_studio.answers["/data/upload/1/a"] = lambda handler: handler.send(b"x", Content_Length="1000000001")
    started_s = time.monotonic()
    with pytest.raises(SourceTooLarge, match="1 MB"):
        make_sources(max_audio_mb=1.0).fetch("/data/upload/1/a")
    assert time.monotonic() - started_s < 2.0
    assert len(label_studio.requests) == 1


def test_a_file_of_unknown_length_is_cut_off_at_the_cap(
    label_studio: Site, make_sources: Callable[..., AudioSources], tmp_path: Path
) -> None:
    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(bytes(100_000))

    label_studio.answers["/data/upload/1/a"] = endless
    with pytest.raises(SourceTooLarge):
        make_sources(max_audio_mb=1.0).fetch("/data/upload/1/a")
    assert list((tmp_path / "state" / "audio").glob("??/*")) == []


@pytest.mark.parametrize("where", ["body", "headers", "silence"])
def test_a_slow_server_ends_with_the_total_time(
    label_studio: Site, make_sources: Callable[..., AudioSources], where: str
) -> None:
    def drip_headers(handler: Handler) -> None:
        for _ in range(100):
            handler.wfile.write(b"H")
            time.sleep(0.05)

    answers: dict[str, Answer] = {
        "body": drip(0.05),
        "headers": drip_headers,
        "silence": lambda handler: time.sleep(2.0),
    }
    label_studio.answers["/data/upload/1/a"] = answers[where]
    started_s = time.monotonic()
    with pytest.raises(SourceUnavailable, match=r"within 0\.5 s"):
        make_sources(fetch_timeout_s=0.5).fetch("/data/upload/1/a")
    assert time.monotonic() - started_s < 1.5


def test_a_short_read_is_no_file(label_studio: Site, make_sources: Callable[..., AudioSources], tmp_path: Path) -> None:
    label_studio.answers["/data/upload/1/a"] = cut_short
    with pytest.raises(SourceUnavailable, match="broke off"):
        make_sources().fetch("/data/upload/1/a")
    assert len(label_studio.requests) == 3
    assert list((tmp_path / "state" / "audio").glob("??/*")) == []


def test_a_short_read_is_tried_again_from_the_start(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    answers = [cut_short, status(503), audio()]
    label_studio.answers["/data/upload/1/a"] = lambda handler: answers.pop(0)(handler)
    assert content(make_sources().fetch("/data/upload/1/a")) == AUDIO


@pytest.mark.parametrize(("code", "num_requests"), [(500, 3), (503, 3), (429, 3), (424, 3)])
def test_answers_that_may_change_are_tried_a_few_times_and_retryable(
    label_studio: Site, make_sources: Callable[..., AudioSources], code: int, num_requests: int
) -> None:
    label_studio.answers["/data/upload/1/a"] = status(code)
    with pytest.raises(SourceUnavailable, match=f"HTTP {code}"):
        make_sources().fetch("/data/upload/1/a")
    assert len(label_studio.requests) == num_requests


@pytest.mark.parametrize(("code", "words"), [(404, "doesn't exist"), (410, "doesn't exist"), (403, "may not read")])
def test_answers_that_stay_are_not_tried_again(
    label_studio: Site, make_sources: Callable[..., AudioSources], code: int, words: str
) -> None:
    label_studio.answers["/data/upload/1/gone.wav"] = status(code)
    with pytest.raises(SourceError, match=words) as caught:
        make_sources().fetch("/data/upload/1/gone.wav?secret=1")
    assert not caught.value.retryable
    assert "/data/upload/1/gone.wav" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(label_studio.requests) == 1


@pytest.mark.parametrize("code", [204, 206, 304, 418])
def test_an_answer_without_a_whole_file_is_an_error(
    label_studio: Site, make_sources: Callable[..., AudioSources], code: int
) -> None:
    label_studio.answers["/data/upload/1/a"] = status(code, b"")
    with pytest.raises(SourceError, match=f"HTTP {code}"):
        make_sources().fetch("/data/upload/1/a")


def test_a_server_that_is_down_is_retryable(make_sources: Callable[..., AudioSources]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(SourceUnavailable, match=f"127.0.0.1:{port}/data/upload/1/a"):
        make_sources(label_studio_url=f"http://127.0.0.1:{port}").fetch("/data/upload/1/a")


def test_what_isn_t_http_is_retryable_and_no_traceback(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    label_studio.answers["/data/upload/1/a"] = lambda handler: (
        handler.wfile.write(b"220 mail.example ESMTP\r\n\r\n") and None
    )
    with pytest.raises(SourceUnavailable):
        make_sources().fetch("/data/upload/1/a")


# what is remembered of addresses


class Address(str):
    """One of which it can be told whether somebody still holds it."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("num_chars", [0, 700, 5_000])
def test_an_address_is_read_once_and_not_kept_itself(
    make_sources: Callable[..., AudioSources], monkeypatch: pytest.MonkeyPatch, num_chars: int
) -> None:
    read: list[str] = []

    def read_and_note(uri: str, media: Any) -> Any:
        read.append(str.__str__(uri)[:5])
        return read_uri(uri, media)

    monkeypatch.setattr("clapboard.sources.audio_sources.read_uri", read_and_note)
    sources = make_sources()
    address = Address(f"https://sounds.example/a.wav?signature={num_chars * 's'}")
    found = weakref.ref(address)
    assert [sources.key(address), sources.place(address)] == [sources.key(address), "https://sounds.example"]
    assert len(read) == 1
    del address
    gc.collect()
    assert found() is None


def test_addresses_that_lie_in_one_place_share_its_name(make_sources: Callable[..., AudioSources]) -> None:
    sources = make_sources()
    names = {id(sources.place(f"https://sounds.example/{number}.wav")) for number in range(20)}
    assert len(names) == 1


def test_a_bucket_of_any_length_has_a_short_place(make_sources: Callable[..., AudioSources]) -> None:
    assert len(make_sources().place(f"s3://{100_000 * 'b'}/a.wav")) == 300


# cache and concurrency


def test_threads_that_want_the_same_file_make_one_request(
    label_studio: Site, make_sources: Callable[..., AudioSources]
) -> None:
    def slow(handler: Handler) -> None:
        time.sleep(0.2)
        audio()(handler)

    label_studio.answers["/data/upload/1/a"] = slow
    sources = make_sources()
    fetched: list[SourceFile] = []
    threads = [threading.Thread(target=lambda: fetched.append(sources.fetch("/data/upload/1/a"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 8
    assert {content(source) for source in fetched} == {AUDIO}
    assert len(label_studio.requests) == 1


def test_processes_that_want_the_same_file_make_one_request(
    label_studio: Site, make_sources: Callable[..., AudioSources], tmp_path: Path
) -> None:
    def slow(handler: Handler) -> None:
        time.sleep(1.0)
        audio()(handler)

    label_studio.answers["/data/upload/1/a"] = slow
    script = (
        "import sys, pathlib\n"
        "from clapboard.settings import Settings\n"
        "from clapboard.sources import AudioSources\n"
        "settings = Settings(LABEL_STUDIO_URL=sys.argv[1], MODEL_DIR=pathlib.Path(sys.argv[2]))\n"
        "print(AudioSources(settings).fetch('/data/upload/1/a').sha256)\n"
    )
    command = [sys.executable, "-c", script, label_studio.url, str(tmp_path / "state")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert {process.communicate(timeout=60)[0].strip() for process in processes} == {hashlib.sha256(AUDIO).hexdigest()}
    assert len(label_studio.requests) == 1


def test_the_cache_is_bounded_by_the_setting(
    label_studio: Site, make_sources: Callable[..., AudioSources], tmp_path: Path
) -> None:
    sources = make_sources(cache_mb=0.5)
    for i in range(10):
        label_studio.answers[f"/data/upload/{i}"] = audio(bytes([i]) * 100_000)
        sources.fetch(f"/data/upload/{i}")
        files = list((tmp_path / "state" / "audio").glob("??/*"))
        assert sum(path.stat().st_size for path in files) <= 500_000
    sources.fetch("/data/upload/9")
    assert len(label_studio.requests) == 10


def test_logs_hold_neither_tokens_nor_queries(
    label_studio: Site, cdn: Site, make_sources: Callable[..., AudioSources], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    cdn.answers["/a.wav"] = audio()
    label_studio.answers["/data/upload/1/a"] = redirect(f"{cdn.url}/a.wav?signature=secret")
    make_sources(allowed_hosts=("127.0.0.2",)).fetch("/data/upload/1/a")
    assert "secret" not in caplog.text
    assert LEGACY not in caplog.text

"""A task's URI → a local audio file.

Whoever writes tasks decides what is fetched, so each connection is checked (`guarded_http`), time and size are
bounded, the token goes to Label Studio's own origin alone, and no message holds a token or the query of a URL.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial

import certifi
import httpx
import tenacity

from clapboard.errors import (
    LabelStudioError,
    LabelStudioUnreachable,
    SourceError,
    SourceRefused,
    SourceUnavailable,
)
from clapboard.label_studio.auth import LabelStudioAuth, origin
from clapboard.settings import Settings
from clapboard.sources.addresses import AddressRule, system_addresses
from clapboard.sources.cache import AudioCache, Sink, SourceFile
from clapboard.sources.guarded_http import Deadline, GuardedTransport, ResolveHost
from clapboard.sources.uris import SourceUri, data_content, describe_url, parse_url, read_uri, resolve_url

__all__ = ["AudioSources", "SourceFile"]

_MB = 1_000_000
_MAX_REDIRECTS = 5
_ATTEMPTS = 3
_KEYS_REMEMBERED = 100_000
_SHORT_URI_CHARS = 2_048
# Label Studio's proxy hands out no more at once, and ends each answer after 20 s.
_PIECE_BYTES = 8 * 1024 * 1024
_RESOLVE_PATH = re.compile(r"/(tasks|projects)/[0-9]+/(resolve|presign)/?$")
_LOGIN_PATH = "/user/login"
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-[0-9]+/([0-9]+)")
_RETRYABLE_STATUSES = {408, 424, 425, 429}


@dataclass(frozen=True)
class _Download:
    """One file to fetch: from where, and what to call it in messages."""

    url: httpx.URL
    name: str
    deadline: Deadline


class AudioSources:
    """Fetches audio, each file once, into the cache in `settings.audio_cache_dir`. For any number of threads."""

    def __init__(
        self,
        settings: Settings,
        *,
        resolve_host: ResolveHost = system_addresses,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`resolve_host` gives a host name's addresses; `ssl_context` is by default the system's and certifi's
        authorities together. Raises `SettingsError` for an allowed host that is none.
        """
        for name in ("httpx", "httpcore"):  # their log lines hold whole URLs, signatures included
            logging.getLogger(name).setLevel(logging.WARNING)
        self._label_studio = httpx.URL(settings.label_studio_url)
        self._auth = LabelStudioAuth(settings.label_studio_url, settings.label_studio_api_key.get_secret_value())
        self._rule = AddressRule(allow_private=settings.allow_private_urls, allowed_hosts=settings.allowed_hosts)
        self._resolve_host = resolve_host
        self._ssl_context = ssl_context or _default_ssl_context()
        self._timeout_s = settings.fetch_timeout_s
        # Reading a URL takes 0.1 ms, which a project's thousands of tasks cost at every retrieval.
        self._short_keys = lru_cache(maxsize=_KEYS_REMEMBERED)(self._key_of)
        self._cache = AudioCache(
            settings.audio_cache_dir,
            max_bytes=int(settings.cache_mb * _MB),
            max_file_bytes=int(settings.max_audio_mb * _MB),
        )

    def fetch(self, uri: str, *, task_id: int | None = None, timeout_s: float = math.inf) -> SourceFile:
        """The file that the URI names; keep the object for as long as the file is read.

        Cloud storage URIs need the `task_id`. What a URI gave once is taken as its content while it's in the cache.
        It takes no longer than `timeout_s`, nor than CLAPBOARD_FETCH_TIMEOUT_S.
        Raises `SourceRefused`, `SourceTooLarge`, `SourceUnavailable` (worth another try later), else `SourceError`.
        """
        source = read_uri(uri, self._label_studio)
        timeout_s = min(timeout_s, self._timeout_s)
        fill = partial(self._fill, source, task_id, Deadline(timeout_s))
        return self._cache.get(self._key(source), fill, timeout_s)

    def key(self, uri: str) -> str:
        """What the URI's file is cached under: a sha256 in hexadecimal. Raises `SourceRefused`."""
        return self._short_keys(uri) if len(uri) <= _SHORT_URI_CHARS else self._key_of(uri)

    def _key_of(self, uri: str) -> str:
        return self._key(read_uri(uri, self._label_studio))

    def _key(self, source: SourceUri) -> str:
        scope = f"{self._label_studio} " if source.form == "cloud" else ""
        return hashlib.sha256(f"{scope}{source.canonical}".encode()).hexdigest()

    def _fill(self, source: SourceUri, task_id: int | None, deadline: Deadline, sink: Sink) -> None:
        if source.form == "data":
            sink.write(data_content(source.canonical))
            return
        if source.form == "cloud":
            url = resolve_url(source, self._label_studio, task_id)
        else:
            url = parse_url(source.canonical)
        tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(SourceUnavailable),
            stop=tenacity.stop_after_attempt(_ATTEMPTS) | tenacity.stop_before_delay(deadline.remaining_s()),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=1.0),
            reraise=True,
        )(self._attempt, _Download(url, source.name, deadline), sink)

    def _attempt(self, download: _Download, sink: Sink) -> None:
        sink.restart()
        trusted = origin(self._label_studio)[1:]
        transport = GuardedTransport(
            self._rule, self._resolve_host, download.deadline, self._ssl_context, trusted=trusted
        )
        headers = {"Accept-Encoding": "identity", "User-Agent": "clapboard"}
        with (
            _as_source_errors(download),
            httpx.Client(transport=transport, auth=self._auth, headers=headers, trust_env=False) as client,
        ):
            if self._is_label_studio(download.url) and _RESOLVE_PATH.search(download.url.path):
                self._copy_pieces(client, download, sink)
                return
            with self._answer(client, download) as response:
                sink.require(int(response.headers.get("Content-Length", 0)))
                _copy(response.iter_bytes(), sink)

    def _copy_pieces(self, client: httpx.Client, download: _Download, sink: Sink) -> None:
        """Copies what Label Studio proxies, piece by piece, going on where a piece ended too early."""
        total: int | None = None
        while total is None or sink.num_bytes < total:
            start = sink.num_bytes
            with self._answer(client, download, start=start) as response:
                proxied = self._is_label_studio(response.request.url)
                piece_start, num_file_bytes = _extent(response)
                if piece_start != start or total not in (None, num_file_bytes) or (proxied and num_file_bytes is None):
                    raise SourceUnavailable(
                        f"{download.name} can't be read in pieces: its length is unknown or changes."
                    )
                total = num_file_bytes
                sink.require(total or 0)
                try:
                    _copy(response.iter_raw(), sink)
                except httpx.ReadError:
                    if sink.num_bytes == start or not proxied:
                        raise
            if total is None:
                return
            if sink.num_bytes == start < total:
                raise SourceUnavailable(f"{download.name} stopped after {start} of {total} bytes.")

    @contextmanager
    def _answer(self, client: httpx.Client, download: _Download, start: int | None = None) -> Iterator[httpx.Response]:
        """The answer that holds audio, redirects followed; a piece from byte `start` where Label Studio has it."""
        url = download.url
        for _ in range(1 + _MAX_REDIRECTS):
            headers = {}
            if start is not None and self._is_label_studio(url):
                headers["Range"] = f"bytes={start}-{start + _PIECE_BYTES - 1}"
            with client.stream("GET", url, headers=headers) as response:
                if not response.has_redirect_location:
                    self._require_audio(response, download)
                    yield response
                    return
                url = self._next_url(response, download)
        raise SourceError(f"{download.name} redirects more than {_MAX_REDIRECTS} times: give the file's own address.")

    def _next_url(self, response: httpx.Response, download: _Download) -> httpx.URL:
        """Where the response redirects to. Raises `SourceError` where no audio can come of it."""
        here = response.request.url
        try:
            url = parse_url(str(here.join(response.headers["Location"])))
        except (httpx.InvalidURL, SourceRefused):
            raise SourceRefused(f"{download.name} redirects to an address that can't be fetched.") from None
        if self._is_label_studio(here):
            if _LOGIN_PATH in url.path:
                raise SourceError(_token_message(download))
            if url.host == here.host and not self._is_label_studio(url):
                site = describe_url(url.copy_with(path="/")).rstrip("/")
                raise SourceError(f"Label Studio redirects to {site}: set LABEL_STUDIO_URL to that address.")
        return url

    def _require_audio(self, response: httpx.Response, download: _Download) -> None:
        """Raises the error that the response stands for, if it holds no file."""
        name, status = download.name, response.status_code
        ours = self._is_label_studio(response.request.url)
        if status == 200 or (status == 206 and "Range" in response.request.headers):
            if ours and response.headers.get("Content-Type", "").startswith("text/html"):
                raise SourceError(_token_message(download))
            return
        if status == 401:
            raise SourceError(_token_message(download) if ours else f"{name} asks for a login (HTTP 401).")
        if status == 403:
            why = "the account of LABEL_STUDIO_API_KEY may not read it" if ours else "its server doesn't give it to us"
            raise SourceError(f"{name} is forbidden (HTTP 403): {why}.")
        if status in (404, 410):
            raise SourceError(f"{name} doesn't exist (HTTP {status}): it was removed, or the address is wrong.")
        if status in _RETRYABLE_STATUSES or status >= 500:
            hint = " (as Label Studio does for an upload that was deleted, too)" if ours and status == 500 else ""
            raise SourceUnavailable(f"{name} can't be had now: its server answered HTTP {status}{hint}.")
        raise SourceError(f"{name} can't be fetched: its server answered HTTP {status}.")

    def _is_label_studio(self, url: httpx.URL) -> bool:
        return origin(url) == origin(self._label_studio)


def _copy(chunks: Iterator[bytes], sink: Sink) -> None:
    for chunk in chunks:
        sink.write(chunk)


def _extent(response: httpx.Response) -> tuple[int, int | None]:
    """Where the response's body starts in the file, and how long the file is, in bytes."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length")
        return 0, int(length) if length else None
    found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    return (int(found[1]), int(found[2])) if found else (-1, None)


def _token_message(download: _Download) -> str:
    return (
        f"Label Studio asks for a login at {download.name}: LABEL_STUDIO_API_KEY is missing, wrong or expired,"
        " or of a kind that the organisation has switched off."
    )


def _default_ssl_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


@contextmanager
def _as_source_errors(download: _Download) -> Iterator[None]:
    name, deadline = download.name, download.deadline
    try:
        yield
    except httpx.HTTPError as error:
        if deadline.remaining_s() <= 0:
            limit = f"{deadline.seconds:g} s (CLAPBOARD_FETCH_TIMEOUT_S)"
            raise SourceUnavailable(f"{name} did not come within {limit}.") from None
        what = "broke off before the end" if isinstance(error, httpx.ReadError) else "could not be made"
        raise SourceUnavailable(f"The connection for {name} {what}.") from None
    except LabelStudioUnreachable as error:
        raise SourceUnavailable(str(error)) from error
    except LabelStudioError as error:
        raise SourceError(str(error)) from error

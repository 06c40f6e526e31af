"""Downloads of one file over HTTP: redirects, pieces from Label Studio's proxy, and what each answer means."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from clapboard.errors import (
    LabelStudioError,
    LabelStudioUnreachable,
    SourceError,
    SourceRefused,
    SourceUnavailable,
    SourceUnreachable,
)
from clapboard.label_studio.auth import LabelStudioAuth
from clapboard.settings import Settings
from clapboard.sources.addresses import AddressRule
from clapboard.sources.cache import Sink
from clapboard.sources.guarded_http import Deadline, GuardedTransport, ResolveHost
from clapboard.sources.media import LabelStudioMedia, looks_like_media
from clapboard.sources.unpacking import Unpacker
from clapboard.sources.uris import describe_url, parse_url

_MAX_REDIRECTS = 5
_PIECE_BYTES = 8 * 1024 * 1024  # what Label Studio's proxy sends at most; it also ends each answer after 20 s
_LOGIN_PATH = "/user/login"
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-[0-9]+/([0-9]+)")
_RETRYABLE_STATUSES = {408, 424, 425, 429}


@dataclass(frozen=True)
class Download:
    """A file to download: its address, and its name in messages."""

    url: httpx.URL
    name: str
    deadline: Deadline


class Downloader:
    """Downloads files into sinks. Threads may share it."""

    def __init__(
        self,
        settings: Settings,
        media: Callable[[], LabelStudioMedia],
        resolve_host: ResolveHost,
        ssl_context: ssl.SSLContext,
    ) -> None:
        """`media` gives Label Studio's media, whose public address may change. Raises `SettingsError`."""
        self._current_media = media
        self._auth = _MediaAuth(settings, lambda url: self._media.serves(url))
        self._rule = AddressRule(allow_private=settings.allow_private_urls, allowed_hosts=settings.allowed_hosts)
        self._resolve_host = resolve_host
        self._ssl_context = ssl_context

    def run(self, download: Download, sink: Sink) -> None:
        """Download the file once, from its beginning. Raises `SourceError` and its kinds."""
        sink.restart()
        transport = GuardedTransport(
            self._rule, self._resolve_host, download.deadline, self._ssl_context, is_trusted=self._is_trusted
        )
        headers = {"Accept-Encoding": "identity", "User-Agent": "clapboard"}
        with (
            _source_errors(download),
            httpx.Client(transport=transport, auth=self._auth, headers=headers, trust_env=False) as client,
        ):
            unpacker = Unpacker(sink, download.name)
            if self._media.proxies(download.url):
                self._copy_pieces(client, download, sink, unpacker)
            else:
                with self._answer(client, download) as response:
                    sink.require(int(response.headers.get("Content-Length", 0)))
                    # A server's Content-Encoding may be wrong, so the unpacker looks at the content itself.
                    declares_gzip = "gzip" in response.headers.get("Content-Encoding", "")
                    _copy(response.iter_raw() if declares_gzip else response.iter_bytes(), unpacker)
            unpacker.finish()

    @property
    def _media(self) -> LabelStudioMedia:
        return self._current_media()

    def _is_trusted(self, request: httpx.Request) -> bool:
        """Whether the request is for Label Studio's media, or exchanges our token; no task causes a POST."""
        is_exchange = request.method == "POST" and self._media.is_label_studio(request.url)
        return is_exchange or self._media.serves(request.url)

    def _copy_pieces(self, client: httpx.Client, download: Download, sink: Sink, unpacker: Unpacker) -> None:
        """Copy a file that Label Studio proxies piece by piece, continuing where a piece ended early."""
        total: int | None = None
        while total is None or unpacker.num_bytes < total:
            start = unpacker.num_bytes
            with self._answer(client, download, start=start) as response:
                proxied = self._media.serves(response.request.url)
                piece_start, num_file_bytes = _extent(response)
                if piece_start != start or total not in (None, num_file_bytes) or (proxied and num_file_bytes is None):
                    raise SourceUnavailable(
                        f"{download.name} can't be read in pieces: its length is unknown or changes."
                    )
                total = num_file_bytes
                sink.require(total or 0)
                try:
                    _copy(response.iter_raw(), unpacker)
                except httpx.ReadError:
                    if unpacker.num_bytes == start or not proxied:
                        raise
            if total is None:
                return
            if unpacker.num_bytes == start < total:
                raise SourceUnavailable(f"{download.name} stopped after {start} of {total} bytes.")

    @contextmanager
    def _answer(self, client: httpx.Client, download: Download, start: int | None = None) -> Iterator[httpx.Response]:
        """The answer with the audio, after redirects; from Label Studio, only a piece from byte `start` on."""
        url = download.url
        for _ in range(1 + _MAX_REDIRECTS):
            headers = {}
            if start is not None and self._media.serves(url):
                headers["Range"] = f"bytes={start}-{start + _PIECE_BYTES - 1}"
            with client.stream("GET", url, headers=headers) as response:
                if not response.has_redirect_location:
                    self._require_audio(response, download)
                    yield response
                    return
                url = self._next_url(response, download)
        raise SourceError(f"{download.name} redirects more than {_MAX_REDIRECTS} times: give the file's own address.")

    def _next_url(self, response: httpx.Response, download: Download) -> httpx.URL:
        """The address that the response redirects to. Raises `SourceError` if that can't be audio."""
        here = response.request.url
        try:
            url = parse_url(str(here.join(response.headers["Location"])))
        except (httpx.InvalidURL, SourceRefused):
            raise SourceRefused(f"{download.name} redirects to an address that can't be fetched.") from None
        if self._media.is_label_studio(here):
            if _LOGIN_PATH in url.path:
                raise SourceError(self._token_message(here, download))
            # The same path at another site is Label Studio again; any other path is a storage's.
            if looks_like_media(url) and url.path.endswith(here.path) and not self._media.is_label_studio(url):
                site = describe_url(url.copy_with(path="/")).rstrip("/")
                raise SourceError(f"Label Studio redirects to {site}: set LABEL_STUDIO_URL to that address.")
        return url

    def _require_audio(self, response: httpx.Response, download: Download) -> None:
        """Raise the error that the response means, unless it has a file."""
        name, status = download.name, response.status_code
        here = response.request.url
        ours = self._media.is_label_studio(here)
        if status == 200 or (status == 206 and "Range" in response.request.headers):
            if ours and response.headers.get("Content-Type", "").startswith("text/html"):
                raise SourceError(self._token_message(here, download))
            return
        if status == 401:
            raise SourceError(self._token_message(here, download) if ours else f"{name} requires a login (HTTP 401).")
        if status == 403:
            why = "the account of LABEL_STUDIO_API_KEY may not read it" if ours else "its server refuses it"
            raise SourceError(f"{name} is forbidden (HTTP 403): {why}.")
        if status in (404, 410):
            raise SourceError(f"{name} doesn't exist (HTTP {status}): it was removed, or the address is wrong.")
        if status in _RETRYABLE_STATUSES or status >= 500:
            hint = " (Label Studio also does that for a deleted upload)" if ours and status == 500 else ""
            raise SourceUnavailable(f"{name} can't be fetched now: its server answered HTTP {status}{hint}.")
        raise SourceError(f"{name} can't be fetched: its server answered HTTP {status}.")

    def _token_message(self, url: httpx.URL, download: Download) -> str:
        if not self._media.serves(url):
            return (
                f"{download.name} is a page of Label Studio that requires a login, not one of its audio files: give "
                "an upload (/data/upload/…), a local file (/data/local-files/?d=…) or a storage's address (s3://…)."
            )
        return (
            f"Label Studio requires a login at {download.name}: LABEL_STUDIO_API_KEY is missing, wrong or expired,"
            " or of a kind that the organisation has switched off."
        )


class _MediaAuth(LabelStudioAuth):
    """Adds the token to requests for Label Studio's media only."""

    def __init__(self, settings: Settings, is_medium: Callable[[httpx.URL], bool]) -> None:
        super().__init__(settings.label_studio_url, settings.label_studio_api_key.get_secret_value())
        self._is_medium = is_medium

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._is_medium(request.url):
            yield from super().auth_flow(request)
        else:
            yield request


def _copy(chunks: Iterator[bytes], unpacker: Unpacker) -> None:
    for chunk in chunks:
        unpacker.write(chunk)


def _extent(response: httpx.Response) -> tuple[int, int | None]:
    """The position of the response's body in the file, and the length of the file, in bytes."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length")
        return 0, int(length) if length else None
    match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    return (int(match[1]), int(match[2])) if match else (-1, None)


@contextmanager
def _source_errors(download: Download) -> Iterator[None]:
    name, deadline = download.name, download.deadline
    try:
        yield
    except httpx.HTTPError as error:
        if deadline.remaining_s() <= 0:
            limit = f"{deadline.seconds:g} s (CLAPBOARD_FETCH_TIMEOUT_S)"
            raise SourceUnavailable(f"{name} wasn't received within {limit}.") from None
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            raise SourceUnreachable(f"The connection for {name} could not be made.") from None
        what = "broke off before the end" if isinstance(error, httpx.ReadError) else "could not be made"
        raise SourceUnavailable(f"The connection for {name} {what}.") from None
    except LabelStudioUnreachable as error:
        raise SourceUnreachable(str(error)) from error
    except LabelStudioError as error:
        raise SourceError(str(error)) from error

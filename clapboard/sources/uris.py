"""Parsing of a task's audio URI, which has one of these forms:

/data/upload/…  /data/local-files/?d=…    on Label Studio
http://…  https://…                       anywhere
s3://…  gs://…  azure-blob://…            in a storage for which Label Studio has the keys
data:…                                    the audio itself
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import httpx
import numpy as np
import numpy.typing as npt

from clapboard.errors import SourceError, SourceRefused, SourceTooLarge
from clapboard.settings.hosts import canonical_host
from clapboard.sources.media import LabelStudioMedia
from clapboard.untrusted import is_storable

_CLOUD = re.compile(r"(s3|gs|azure-blob)://[^/]+/.", re.IGNORECASE)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_LOCAL_FILES_PATH = "/data/local-files/"
_DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URI_CHARS = 16_000_000
"""How long an address may be: one of 12 MB of audio in base64."""

_MAX_NAME_LENGTH = 200
_ESCAPE = re.compile("%[0-9a-fA-F]{2}")
_DECODED_AT_ONCE = 1_000_000
_HEX_DIGITS = np.full(256, 255, np.uint8)  # the value of each hexadecimal digit, by its character
_HEX_DIGITS[list(b"0123456789abcdefABCDEF")] = [*range(16), *range(10, 16)]


@dataclass(frozen=True)
class SourceUri:
    """A parsed URI.

    `canonical` is the same for all spellings of the same file; `name` is for messages, without secrets.
    """

    form: Literal["http", "cloud", "data"]
    canonical: str
    name: str


def read_uri(uri: str, label_studio: LabelStudioMedia) -> SourceUri:
    """Parse the URI. The canonical text of an `http` one is its full address, as it is reached from here.

    Raises `SourceRefused` for local paths, other schemes and malformed URLs, `SourceTooLarge` for very long ones.
    """
    require_short(uri)
    uri = uri.strip()
    if not is_storable(uri):  # JSON strings can have NUL and lone surrogates, which no address has
        raise SourceRefused("The task's audio has an address that is no valid URL.")
    if uri[:5].lower() == "data:":
        return SourceUri("data", uri, "data: URI")
    if _CLOUD.match(uri):
        return SourceUri("cloud", uri, _shortened(uri.partition("?")[0]))
    url = _http_url(uri, label_studio)
    # A local file's path is in the query, and isn't secret.
    local_file = f"?d={url.params['d']}" if url.path.endswith(_LOCAL_FILES_PATH) and "d" in url.params else ""
    return SourceUri("http", str(url), _shortened(f"{describe_url(url)}{local_file}"))


def require_short(uri: str) -> None:
    """Raise `SourceTooLarge` for a URI that holds more than tasks, jobs and events can carry along."""
    if len(uri) > MAX_URI_CHARS:
        raise SourceTooLarge(
            f"The task's audio has an address of {len(uri)} characters, more than {MAX_URI_CHARS}: upload the file to "
            "Label Studio or put it into a storage, instead of a data: URI."
        )


def parse_url(address: str) -> httpx.URL:
    """Parse an http(s) URL, without its fragment and default port.

    Raises `SourceRefused` if it has another scheme or a password, or is malformed.
    """
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        raise SourceRefused("The task's audio has an address that is no valid URL.") from None
    if url.scheme not in _DEFAULT_PORTS:
        raise SourceRefused(
            f"The task's audio has an address of the kind «{url.scheme[:20]}», which can't be fetched: use http, https,"
            " s3, gs, azure-blob, data, or a file in Label Studio."
        )
    if url.userinfo:
        raise SourceRefused(
            f"{describe_url(url)} has a user name or password in it: use a link without them, or a signed one."
        )
    if canonical_host(url.raw_host.decode("ascii")) is None or not 0 < (url.port or 80) < 65536:
        raise SourceRefused("The task's audio has a URL with no valid host and port in it.")
    url = url.copy_with(fragment=None)
    return url.copy_with(port=None) if url.port == _DEFAULT_PORTS[url.scheme] else url


def resolve_url(source: SourceUri, label_studio: httpx.URL, task_id: int | None) -> httpx.URL:
    """The address at which Label Studio serves a cloud storage's file. Raises `SourceError` without a task."""
    if task_id is None:
        raise SourceError(f"{source.name} is fetched through its task in Label Studio, and no task is given.")
    file_uri = base64.urlsafe_b64encode(source.canonical.encode()).decode()
    path = f"{label_studio.path.rstrip('/')}/tasks/{task_id}/resolve/"
    return label_studio.copy_with(path=path, params={"fileuri": file_uri})


def describe_url(url: httpx.URL) -> str:
    """The URL for messages: without user, query and fragment, which may be secret."""
    return _shortened(str(url.copy_with(userinfo=b"", query=None, fragment=None)))


def data_content(uri: str, require: Callable[[int], None], *, at_once: int = _DECODED_AT_ONCE) -> Iterator[bytes]:
    """The content of a `data:` URI, decoded `at_once` characters at a time, which bounds memory.

    `require` gets the number of bytes that there will be at least, before any is decoded, and raises if they are too
    many. Raises `SourceError` if the URI is malformed.
    """
    comma = uri.find(",")
    if comma < 0:
        raise SourceError("The task's data: URI has no comma, so it has no content.")
    is_base64 = uri[5:comma].strip().lower().endswith(";base64")
    num_chars, num_escaped = len(uri) - comma - 1, uri.count("%", comma)
    num_bytes = max(num_chars - 2 * num_escaped, num_chars // 3)
    require(num_bytes * 3 // 4 if is_base64 and not num_escaped else 0 if is_base64 else num_bytes)
    unquoted = _unquoted(uri, comma + 1, at_once)
    yield from _from_base64(unquoted) if is_base64 else unquoted


def _unquoted(uri: str, start: int, at_once: int) -> Iterator[bytes]:
    """The URI's bytes from there on, its percent signs and their two digits replaced by the bytes that they stand for.

    RFC 3986, section 2.1. A percent sign without two hexadecimal digits stands for itself, as in
    `urllib.parse.unquote`, which needs two hundred times the memory.
    """
    end = len(uri)
    while start < end:
        stop = min(start + at_once, end)
        if escape := _ESCAPE.match(uri, stop - 1) or _ESCAPE.match(uri, max(start, stop - 2)):
            stop = escape.end()  # it isn't cut
        yield _without_escapes(np.frombuffer(uri[start:stop].encode("utf-8"), np.uint8))
        start = stop


def _without_escapes(quoted: npt.NDArray[np.uint8]) -> bytes:
    at = np.flatnonzero(quoted[:-2] == ord("%"))
    high, low = _HEX_DIGITS[quoted[at + 1]], _HEX_DIGITS[quoted[at + 2]]
    is_escape = (high < 16) & (low < 16)
    at = at[is_escape]
    decoded = quoted.copy()
    decoded[at] = 16 * high[is_escape] + low[is_escape]
    stays = np.ones(len(quoted), bool)
    stays[at + 1] = stays[at + 2] = False
    return decoded[stays].tobytes()


def _from_base64(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes that base64 stands for; white space is left out, and padding at the end may be missing."""
    rest, has_ended = b"", False
    try:
        for piece in pieces:
            text = b"".join(piece.split())
            if has_ended and text.strip(b"="):
                raise binascii.Error
            content = rest + text.rstrip(b"=")
            has_ended = has_ended or text.endswith(b"=")
            whole = len(content) - len(content) % 4
            yield base64.b64decode(content[:whole], validate=True)
            rest = content[whole:]
        yield base64.b64decode(rest + b"=" * (-len(rest) % 4), validate=True)
    except binascii.Error:
        raise SourceError("The task's data: URI isn't valid base64.") from None


def _http_url(uri: str, label_studio: LabelStudioMedia) -> httpx.URL:
    """The address of an http(s) URI, or of a path that Label Studio serves."""
    if located := label_studio.located(uri):
        return parse_url(located)
    if _SCHEME.match(uri) is None:
        raise SourceRefused(
            "The task's audio is a path or a bare name, which is never read: give a URL, or serve the file through"
            " Label Studio (an upload, or local storage as /data/local-files/?d=…)."
        )
    return parse_url(uri)


def _shortened(name: str) -> str:
    return name if len(name) <= _MAX_NAME_LENGTH else f"{name[:_MAX_NAME_LENGTH]}…"

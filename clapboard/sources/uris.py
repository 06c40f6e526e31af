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
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote_to_bytes

import httpx

from clapboard.errors import SourceError, SourceRefused
from clapboard.settings.hosts import canonical_host
from clapboard.sources.media import LabelStudioMedia
from clapboard.untrusted import is_storable

_CLOUD = re.compile(r"(s3|gs|azure-blob)://[^/]+/.", re.IGNORECASE)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_LOCAL_FILES_PATH = "/data/local-files/"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_NAME_LENGTH = 200


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

    Raises `SourceRefused` for local paths, other schemes and malformed URLs.
    """
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


def data_content(uri: str) -> bytes:
    """The content of a `data:` URI. Raises `SourceError` if it is malformed."""
    header, comma, payload = uri[5:].partition(",")
    if not comma:
        raise SourceError("The task's data: URI has no comma, so it has no content.")
    content = unquote_to_bytes(payload)
    if not header.strip().lower().endswith(";base64"):
        return content
    content = b"".join(content.split()).rstrip(b"=")
    try:
        return base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)
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

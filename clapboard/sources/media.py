"""The media that Label Studio serves: uploads, local files, and files from cloud storages.

The authors of tasks decide which addresses are fetched. So Label Studio's token, and the trust in its address, apply to
these paths only: a task must not make Clapboard read Label Studio's other pages, such as an export, as the operator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

import httpx

# Label Studio 1.23.2's routes, from data_import.urls and io_storages.urls.
_IN_STORAGE = r"(?:tasks|projects)/[0-9]+/(?:resolve|presign)"
_MEDIA = rf"/(?:data/upload/[^?#]+|(?:data/local-files|storage-data/uploaded|{_IN_STORAGE})/?)"
_MEDIA_PATH = re.compile(_MEDIA)
_BEHIND_A_PREFIX = re.compile(rf"((?:/[^/?#]+)*?)({_MEDIA})(\?[^#]*)?(?:#.*)?")
_STORAGE_PATH = re.compile(rf"/{_IN_STORAGE}/?$")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_MAX_DECODINGS = 4


@dataclass(frozen=True)
class LabelStudioMedia:
    """Tells which addresses are Label Studio's media.

    `url` is the address at which Clapboard reaches it; `public` are its own public addresses (LABEL_STUDIO_HOST), which
    it writes into tasks. A public address can be only a path.
    """

    url: httpx.URL
    public: tuple[httpx.URL, ...] = ()

    def located(self, address: str) -> str | None:
        """The address below `url` of a medium, given by its path or absolute address; None if it isn't a medium.

        The result is always below `url`, whatever host, prefix or scheme the author of the task used for Label Studio.
        """
        prefixes, path = None, address
        if not address.startswith("/"):
            try:
                absolute = httpx.URL(address)
            except httpx.InvalidURL:
                return None
            prefixes, path = self._prefixes(absolute), absolute.raw_path.decode("ascii")
        match = _BEHIND_A_PREFIX.fullmatch(path)
        if (
            match is None
            or not _is_plain(path.partition("?")[0])
            or (prefixes is not None and match[1] not in prefixes)
        ):
            return None
        return f"{str(self.url).rstrip('/')}{match[2]}{match[3] or ''}"

    def serves(self, url: httpx.URL) -> bool:
        """Whether the URL is a medium below `url`, for which the token is sent and private addresses are allowed."""
        path = url.raw_path.decode("ascii").partition("?")[0]
        below = unquote(path).removeprefix(_prefix_of(self.url))
        return (
            _origin(url) == _origin(self.url)
            and unquote(path).startswith(_prefix_of(self.url))
            and _is_plain(path)
            and _MEDIA_PATH.fullmatch(below) is not None
        )

    def proxies(self, url: httpx.URL) -> bool:
        """Whether the URL is a medium from a cloud storage, which Label Studio sends in pieces or redirects to."""
        return self.serves(url) and _STORAGE_PATH.search(url.path) is not None

    def is_label_studio(self, url: httpx.URL) -> bool:
        """Whether the URL has the scheme, host and port of `url`."""
        return _origin(url) == _origin(self.url)

    def _prefixes(self, address: httpx.URL) -> set[str]:
        """Label Studio's path prefixes at the address's host and port; none if it isn't there."""
        prefixes = {_prefix_of(ours) for ours in self.public if _site(ours) == _site(address)}
        if _site(self.url) == _site(address):
            prefixes |= {_prefix_of(ours) for ours in (self.url, *self.public)}
        return set() if address.userinfo else prefixes


def looks_like_media(url: httpx.URL) -> bool:
    """Whether the URL's path is one of Label Studio's media, at any host."""
    return _BEHIND_A_PREFIX.fullmatch(url.raw_path.decode("ascii")) is not None


def _is_plain(path: str) -> bool:
    """Whether the path has no `..` or the like, however often a server decodes it."""
    for _ in range(_MAX_DECODINGS):
        segments = [segment.partition(";")[0] for segment in path.split("/")]
        if "\\" in path or "" in segments[1:-1] or not {".", ".."}.isdisjoint(segments):
            return False
        if (decoded := unquote(path)) == path:
            return True
        path = decoded
    return False


def _prefix_of(url: httpx.URL) -> str:
    return url.path.rstrip("/")


def _origin(url: httpx.URL) -> tuple[str, bytes, int]:
    return url.scheme, url.raw_host, url.port or (443 if url.scheme == "https" else 80)


def _site(url: httpx.URL) -> tuple[str, int | None]:
    """Host and port, but not the scheme: behind a proxy, Label Studio often doesn't know which one is used."""
    host = url.raw_host.decode("ascii").strip("[]")
    port = None if url.port in (80, 443) else url.port
    return "localhost" if host in _LOOPBACK else host, port

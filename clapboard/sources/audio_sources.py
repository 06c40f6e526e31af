"""A task's URI → a local audio file.

The authors of tasks decide what is fetched. So each connection is checked (`guarded_http`), time and size are bounded,
the token is sent only for Label Studio's media (`media`), and no message has a token or the query of a URL.
"""

from __future__ import annotations

import hashlib
import logging
import math
import ssl
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache, partial

import httpx
import tenacity

from clapboard.errors import SourceError, SourceUnavailable
from clapboard.memo import Memory
from clapboard.settings import Settings
from clapboard.settings.certificates import trusted_authorities
from clapboard.sources.addresses import system_addresses
from clapboard.sources.cache import AudioCache, Sink, SourceFile
from clapboard.sources.download import Download, Downloader
from clapboard.sources.guarded_http import Deadline, ResolveHost
from clapboard.sources.media import LabelStudioMedia, looks_like_media
from clapboard.sources.uris import (
    SourceUri,
    data_content,
    describe_url,
    parse_url,
    read_uri,
    require_short,
    resolve_url,
)

__all__ = ["AudioSources", "SourceFile"]

_MB = 1_000_000
_ATTEMPTS = 3
_CACHED_NAMES = 100_000
_MAX_PLACE_CHARS = 300  # scheme, port and the longest possible name of a host or bucket


class AudioSources:
    """Fetches each audio file once, into the cache in `settings.audio_cache_dir`. Threads may share it."""

    def __init__(
        self,
        settings: Settings,
        *,
        public_address: Callable[[], str] = str,
        resolve_host: ResolveHost = system_addresses,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`public_address` gives Label Studio's public address, empty if unknown, and `resolve_host` the addresses of a
        host name. By default `ssl_context` trusts the settings' authorities.

        Raises `SettingsError` if an allowed host isn't a host.
        """
        for name in ("httpx", "httpcore"):  # they log whole URLs with their signatures
            logging.getLogger(name).setLevel(logging.WARNING)
        self._label_studio = httpx.URL(settings.label_studio_url)
        self._public_address = public_address
        self._media_of = lru_cache(maxsize=8)(lambda *public: LabelStudioMedia(self._label_studio, _urls(*public)))
        self._host_setting = settings.label_studio_host
        authorities = ssl_context or trusted_authorities(settings)
        self._downloader = Downloader(settings, lambda: self._media, resolve_host, authorities)
        self._timeout_s = settings.fetch_timeout_s
        # Parsing a URL takes 0.1 ms, too long for the thousands of tasks of a retrieval. The keys are digests, because
        # a signed URL can take kilobytes.
        self._parsed: Memory[tuple[str, bytes], tuple[str, str]] = Memory(_CACHED_NAMES)
        self._cache = AudioCache(
            settings.audio_cache_dir,
            max_bytes=int(settings.cache_mb * _MB),
            max_file_bytes=int(settings.max_audio_mb * _MB),
        )

    def fetch(self, uri: str, *, task_id: int | None = None, timeout_s: float = math.inf) -> SourceFile:
        """The file of the URI; keep the object for as long as the file is read.

        Cloud storage URIs need the `task_id`. A cached file isn't fetched again, whatever the URI now leads to. Takes
        at most `timeout_s` and CLAPBOARD_FETCH_TIMEOUT_S.
        Raises `SourceRefused`, `SourceTooLarge`, `SourceUnavailable` (which may pass), or else `SourceError`.
        """
        source = read_uri(uri, self._media)
        timeout_s = min(timeout_s, self._timeout_s)
        fill = partial(self._fill, source, task_id, Deadline(timeout_s))
        return self._cache.get(self._key(source), fill, timeout_s)

    def key(self, uri: str) -> str:
        """The key of the URI's file in the cache, a sha256 in hexadecimal. Raises `SourceRefused`."""
        return self._names(uri)[0]

    def place(self, uri: str) -> str:
        """The host or bucket of the URI's file, such as `https://host` or `s3://bucket`; empty for a `data:` URI.

        Raises `SourceRefused`.
        """
        return self._names(uri)[1]

    def name(self, uri: str) -> str:
        """The URI's name in messages, without secrets. Raises `SourceRefused`."""
        return read_uri(uri, self._media).name

    def forget(self, keys: Iterable[str]) -> int:
        """Delete the keys' files from the cache. Returns how many there were."""
        return self._cache.forget(keys)

    @property
    def _media(self) -> LabelStudioMedia:
        return self._media_at_public(self._public_address())

    def _media_at_public(self, public: str) -> LabelStudioMedia:
        return self._media_of(self._host_setting, public)

    def _names(self, uri: str) -> tuple[str, str]:
        require_short(uri)
        public = self._public_address()
        digest = hashlib.sha256(uri.encode("utf-8", "surrogatepass")).digest()
        return self._parsed.get((public, digest), lambda: self._names_of(uri, self._media_at_public(public)))

    def _names_of(self, uri: str, media: LabelStudioMedia) -> tuple[str, str]:
        """The URI's key and place."""
        source = read_uri(uri, media)
        if source.form == "data":
            return self._key(source), ""
        scheme, _, rest = source.canonical.partition("://")
        place = f"{scheme}://{rest.partition('/')[0]}"[:_MAX_PLACE_CHARS]
        return self._key(source), sys.intern(place)  # one string for all files there

    def _key(self, source: SourceUri) -> str:
        scope = f"{self._label_studio} " if source.form == "cloud" else ""
        return hashlib.sha256(f"{scope}{source.canonical}".encode()).hexdigest()

    def _fill(self, source: SourceUri, task_id: int | None, deadline: Deadline, sink: Sink) -> None:
        if source.form == "data":
            for piece in data_content(source.canonical, sink.require):
                sink.write(piece)
            return
        if source.form == "cloud":
            url = resolve_url(source, self._label_studio, task_id)
        else:
            url = parse_url(source.canonical)
        try:
            tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(SourceUnavailable),
                stop=tenacity.stop_after_attempt(_ATTEMPTS) | tenacity.stop_before_delay(deadline.remaining_s()),
                wait=tenacity.wait_random_exponential(multiplier=0.2, max=1.0),
                reraise=True,
            )(self._downloader.run, Download(url, source.name, deadline), sink)
        except SourceError as error:
            if self._media.is_label_studio(url) or not looks_like_media(url):
                raise
            site = describe_url(url.copy_with(path="/")).rstrip("/")
            raise type(error)(f"{error} If {site} is Label Studio, set LABEL_STUDIO_HOST to that address.") from error


def _urls(*addresses: str) -> tuple[httpx.URL, ...]:
    return tuple(httpx.URL(address) for address in dict.fromkeys(addresses) if address)

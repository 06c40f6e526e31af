"""HTTP connections that go only where the address rule allows, and end when their time is over.

The rule is applied where a connection is made, to the address that it is made to: what a name resolves to is asked
once, and no redirect, odd spelling or second answer of the name server gets around it. URL, Host header, SNI and
certificate check keep the name.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

from clapboard.errors import SourceError, SourceRefused, SourceUnavailable
from clapboard.sources.addresses import AddressRule, canonical_host, is_literal

ResolveHost = Callable[[str, int], list[str]]
_CONNECT_TIMEOUT_S = 10.0
_SOCKET_OPTIONS = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]


class Deadline:
    """A moment by which everything must be over."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._end = clock() + seconds

    def remaining_s(self) -> float:
        """Seconds that are left, 0 when it's over."""
        return max(0.0, self._end - self._clock())


class GuardedTransport(httpx.BaseTransport):
    """httpx transport for one download: checked addresses, one deadline over everything, no proxies.

    Raises `SourceRefused` for an address that isn't allowed, `SourceUnavailable` for a name that doesn't resolve,
    `SourceError` for a certificate that can't be verified, and httpx's own errors for the rest.
    """

    def __init__(
        self,
        rule: AddressRule,
        resolve_host: ResolveHost,
        deadline: Deadline,
        ssl_context: ssl.SSLContext,
        *,
        trusted: tuple[str, int],
    ) -> None:
        """`trusted` is the one host and port, Label Studio's, that may be anywhere."""
        backend = _GuardedBackend(rule, resolve_host, deadline, trusted)
        self._pool = httpcore.ConnectionPool(ssl_context=ssl_context, network_backend=backend)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The response, its body still to be read."""
        assert isinstance(request.stream, httpx.SyncByteStream)
        raw = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
        )
        with _as_httpx_errors():
            response = self._pool.handle_request(raw)
        assert isinstance(response.stream, Iterable)
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response.stream))

    def close(self) -> None:
        """Closes the connections."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx_errors():
            yield from self._chunks

    def close(self) -> None:
        if hasattr(self._chunks, "close"):
            self._chunks.close()


class _GuardedBackend(httpcore.NetworkBackend):
    """Makes httpcore's connections."""

    def __init__(
        self, rule: AddressRule, resolve_host: ResolveHost, deadline: Deadline, trusted: tuple[str, int]
    ) -> None:
        self._rule = rule
        self._resolve_host = resolve_host
        self._deadline = deadline
        self._trusted = trusted
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError("no address")
        for address in self._checked_addresses(host, port):
            limit_s = min(_CONNECT_TIMEOUT_S, _left(self._deadline, httpcore.ConnectTimeout))
            try:
                stream = self._sockets.connect_tcp(address, port, limit_s, local_address, _SOCKET_OPTIONS)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _DeadlineStream(stream, self._deadline)
        raise failure

    def _checked_addresses(self, host: str, port: int) -> list[str]:
        """The addresses of the host; refused as a whole when one of them is."""
        addresses = self._addresses(host, port)
        if (host, port) == self._trusted:
            return addresses
        for address in addresses:
            kind = self._rule.refusal(host, address)
            if kind is not None:
                raise SourceRefused(
                    f"Refused to fetch audio from {host}, which is {kind}: if it is meant, add it to"
                    " CLAPBOARD_ALLOWED_HOSTS, or set LABEL_STUDIO_URL to it where it is Label Studio."
                )
        return addresses

    def _addresses(self, host: str, port: int) -> list[str]:
        canonical = canonical_host(host)
        if canonical is None:
            raise SourceRefused(f"Refused to fetch audio from {host}: it is no host name.")
        if is_literal(canonical):
            return [canonical]
        return _within(self._deadline, lambda: self._resolve_host(host, port), host)


class _DeadlineStream(httpcore.NetworkStream):
    """A connection none of whose waits outlasts the deadline, however small the drops in which data comes."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        limit_s = _left(self._deadline, httpcore.ConnectTimeout)
        try:
            stream = self._stream.start_tls(ssl_context, server_hostname, limit_s)
        except httpcore.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise SourceError(
                    f"The certificate of {server_hostname} can't be verified, so nothing is fetched."
                ) from error
            raise
        return _DeadlineStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: Deadline, timeout_error: type[Exception]) -> float:
    remaining_s = deadline.remaining_s()
    if remaining_s <= 0:
        raise timeout_error("deadline")
    return remaining_s


def _within(deadline: Deadline, resolve: Callable[[], list[str]], host: str) -> list[str]:
    """What `resolve` gives; in a thread of its own, because the system's resolver knows no time-out."""
    future: Future[list[str]] = Future()

    def ask() -> None:
        try:
            future.set_result(resolve())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=ask, name="resolve-host", daemon=True).start()
    try:
        addresses = future.result(timeout=deadline.remaining_s())
    except TimeoutError:
        raise SourceUnavailable(f"The name {host} was not resolved in {deadline.seconds:g} s.") from None
    except (OSError, UnicodeError):
        addresses = []
    if not addresses:
        raise SourceUnavailable(f"The host name {host} can't be resolved: check the task's URL and the name server.")
    return addresses


@contextmanager
def _as_httpx_errors() -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as error:
        raise httpx.TimeoutException(str(error)) from error
    except httpcore.ConnectError as error:
        raise httpx.ConnectError(str(error)) from error
    except (httpcore.RemoteProtocolError, httpcore.ReadError) as error:
        raise httpx.ReadError(str(error)) from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise httpx.TransportError(str(error)) from error

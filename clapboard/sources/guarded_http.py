"""HTTP connections that go only to allowed addresses, and end by a deadline.

The address rule is applied when a connection is made, to the very address that it is made to. A name is resolved only
once, so that no redirect, odd spelling or second answer of the name server gets around the rule. URL, Host header, SNI
and certificate check keep the name.
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

from clapboard.errors import SourceError, SourceRefused, SourceUnreachable
from clapboard.settings.hosts import canonical_host, is_literal
from clapboard.sources.addresses import AddressRule

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
        """The seconds that are left; 0 after the deadline."""
        return max(0.0, self._end - self._clock())


class GuardedTransport(httpx.BaseTransport):
    """An httpx transport for one download: checked addresses, one deadline for everything, no proxies.

    Raises `SourceRefused` for an address that isn't allowed, `SourceUnreachable` for a name that doesn't resolve,
    `SourceError` for a certificate that can't be verified, and httpx's own errors for the rest.
    """

    def __init__(
        self,
        rule: AddressRule,
        resolve_host: ResolveHost,
        deadline: Deadline,
        ssl_context: ssl.SSLContext,
        *,
        is_trusted: Callable[[httpx.Request], bool],
    ) -> None:
        """Requests that `is_trusted` accepts, those for Label Studio's own media, may go to any address."""
        self._is_trusted = is_trusted
        # Two pools, because a connection that was made for a trusted request must never carry an untrusted one.
        self._pools = {
            trusted: httpcore.ConnectionPool(
                ssl_context=ssl_context,
                network_backend=_GuardedBackend(None if trusted else rule, resolve_host, deadline),
            )
            for trusted in (False, True)
        }

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The response, with its body unread."""
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
            response = self._pools[self._is_trusted(request)].handle_request(raw)
        assert isinstance(response.stream, Iterable)
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response.stream))

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            pool.close()


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
    """Makes httpcore's connections; without a rule, to any address."""

    def __init__(self, rule: AddressRule | None, resolve_host: ResolveHost, deadline: Deadline) -> None:
        self._rule = rule
        self._resolve_host = resolve_host
        self._deadline = deadline
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
        """The addresses of the host. If one of them is refused, so is the host."""
        addresses = self._addresses(host, port)
        for address in addresses:
            if kind := self._refusal(host, address):
                raise SourceRefused(
                    f"Refused to fetch audio from {host}, which is {kind}: if that is intended, add it to"
                    " CLAPBOARD_ALLOWED_HOSTS, or if it is Label Studio, set LABEL_STUDIO_URL to it."
                )
        return addresses

    def _refusal(self, host: str, address: str) -> str | None:
        try:
            return self._rule.refusal(host, address) if self._rule else None
        except ValueError:
            raise SourceError(
                f"The name server gives {address[:60]!a} for {host}, which isn't an address: check the name server."
            ) from None

    def _addresses(self, host: str, port: int) -> list[str]:
        canonical = canonical_host(host)
        if canonical is None:
            raise SourceRefused(f"Refused to fetch audio from {host}: it is no host name.")
        if is_literal(canonical):
            return [canonical]
        return _within(self._deadline, lambda: self._resolve_host(host, port), host)


class _DeadlineStream(httpcore.NetworkStream):
    """A connection that ends by the deadline, however slowly data trickles in."""

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
                why = error.__cause__.verify_message
                raise SourceError(
                    f"The certificate of {server_hostname} can't be verified ({why}), so nothing is fetched:"
                    " if your own authority has issued it, name that one's certificate file in SSL_CERT_FILE."
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
    """The result of `resolve`, run in its own thread because the system's resolver has no time-out."""
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
        raise SourceUnreachable(f"The name {host} was not resolved in {deadline.seconds:g} s.") from None
    except (OSError, ValueError, OverflowError):  # some names can't even be encoded
        addresses = []
    if not addresses:
        raise SourceUnreachable(f"The host name {host} can't be resolved: check the task's URL and the name server.")
    return addresses


@contextmanager
def _as_httpx_errors() -> Iterator[None]:
    try:
        yield
    except httpcore.ConnectTimeout as error:
        raise httpx.ConnectTimeout(str(error)) from error
    except httpcore.TimeoutException as error:
        raise httpx.TimeoutException(str(error)) from error
    except httpcore.ConnectError as error:
        raise httpx.ConnectError(str(error)) from error
    except (httpcore.RemoteProtocolError, httpcore.ReadError) as error:
        raise httpx.ReadError(str(error)) from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise httpx.TransportError(str(error)) from error

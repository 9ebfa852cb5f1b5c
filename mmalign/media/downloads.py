"""Fetching a URL: one deadline for all of it, a limit on size, and no address that the policy does not allow.

The name is looked up once, its addresses are checked, and the connection goes to the address that was checked: a name
that changes its answer in between gains nothing. What a server says is never repeated in an error.
"""

from __future__ import annotations

import base64
import io
import queue
import socket
import threading
import time
import zlib
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit, urlunsplit

from mmalign.errors import DecodeError
from mmalign.media.policy import PRIVATE_VARIABLE, PROXY_VARIABLE, MediaPolicy, check_size

if TYPE_CHECKING:
    import ssl

_USER_AGENT = "mmalign/0.1 (picture indexer)"
_REDIRECTS = 5
# Without a byte for so long, a server is given up before the deadline.
_IDLE_S = 20.0
# So often somebody who waits looks whether the download was given up.
_POLL_S = 0.5
_CHUNK = 1 << 16
_URL_SAFE = "%/:=&?~#+!$,;'@()*[]"

_Info = tuple[int, int, int, str, Any]


class _Watch:
    """How much time is left, and whether the download was given up."""

    def __init__(self, uri: str, seconds: float, stop: Callable[[], bool] | None) -> None:
        self._uri = uri
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._stop = stop

    def wait(self, most: float) -> float:
        """How long to wait for what comes next, at most `most` seconds and above 0.

        Raises:
            DecodeError: There is no time left, or the download was given up.
        """
        if self._stop is not None and self._stop():
            raise DecodeError(self._uri, "interrupted")
        left = self._end - time.monotonic()
        if left <= 0:
            raise DecodeError(self._uri, f"took longer than {self._seconds:g} s")
        return min(left, most)

    def silence(self) -> DecodeError:
        return DecodeError(self._uri, f"no answer within {min(_IDLE_S, self._seconds):g} s")


class _Reader(io.RawIOBase):
    """Reads from a socket for as long as the watch allows, however few bytes come at once."""

    def __init__(self, sock: socket.socket, watch: _Watch) -> None:
        self._sock = sock
        self._watch = watch

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        since = time.monotonic()
        while True:
            self._sock.settimeout(self._watch.wait(_POLL_S))
            try:
                return self._sock.recv_into(buffer)
            except TimeoutError:
                if time.monotonic() - since > _IDLE_S:
                    raise self._watch.silence() from None


class _Socket:
    """What `http.client` needs of a socket."""

    def __init__(self, sock: socket.socket, watch: _Watch) -> None:
        self.inner = sock
        self._watch = watch

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self.inner, self._watch))

    def sendall(self, data: Any) -> None:
        self.inner.settimeout(self._watch.wait(_IDLE_S))
        self.inner.sendall(data)

    def close(self) -> None:
        """Left to `_Connection.hang_up`: `http.client` closes while an answer is still to be read."""


class _Connection(HTTPConnection):
    """A connection to one of some addresses that were checked, whatever the host is called."""

    def __init__(
        self, host: str, port: int, *, peers: list[_Info], watch: _Watch, context: ssl.SSLContext | None
    ) -> None:
        super().__init__(host, port)
        self.default_port = 443 if context is not None else 80
        self._peers = peers
        self._watch = watch
        self._context = context
        self._open: list[socket.socket] = []

    def connect(self) -> None:
        raw = self._dial()
        self.sock: Any = _Socket(raw, self._watch)
        # Set by http.client where there is a proxy.
        name = getattr(self, "_tunnel_host", None)
        if name:
            self._tunnel()  # type: ignore[attr-defined]
        if self._context is not None:
            raw.settimeout(self._watch.wait(_IDLE_S))
            wrapped = self._context.wrap_socket(raw, server_hostname=name or self.host)
            self._open.append(wrapped)
            self.sock = _Socket(wrapped, self._watch)

    def _dial(self) -> socket.socket:
        failure: OSError | None = None
        for family, kind, protocol, _, address in self._peers:
            sock = socket.socket(family, kind, protocol)
            self._open.append(sock)
            try:
                sock.settimeout(self._watch.wait(_IDLE_S))
                sock.connect(address)
            except OSError as error:
                failure = error
            else:
                return sock
        raise failure or OSError("no address")

    def hang_up(self) -> None:
        for sock in reversed(self._open):
            sock.close()


def download(uri: str, policy: MediaPolicy, *, max_bytes: int, stop: Callable[[], bool] | None = None) -> bytes:
    """Fetch a URL whole.

    Args:
        uri: An http(s) URL.
        policy: What may be connected to, and the deadline.
        max_bytes: Refuse anything larger, also once it is unpacked.
        stop: Asked now and then; when it says True, the download is given up.

    Returns:
        The bytes, at least one.

    Raises:
        DecodeError: It cannot be fetched; `reason` says why, and repeats nothing that a server said.
    """
    watch = _Watch(uri, policy.deadline_s, stop)
    address = uri
    try:
        for _ in range(_REDIRECTS + 1):
            found = _ask(uri, _parts(uri, address), policy, watch, max_bytes)
            if isinstance(found, bytes):
                return found
            address = found
    except TimeoutError as error:
        raise watch.silence() from error
    except (OSError, HTTPException) as error:
        raise DecodeError(uri, _failure(error)) from error
    raise DecodeError(uri, f"redirected more than {_REDIRECTS} times")


def _failure(error: Exception) -> str:
    """What went wrong, in the words of this system; those of a server are left out."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate cannot be trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"no secure connection can be made ({error.reason or 'TLS failed'})"
    if isinstance(error, HTTPException):
        return f"the answer is not sound HTTP ({type(error).__name__})"
    known = isinstance(error, OSError) and error.errno is not None and error.strerror
    return f"cannot be fetched ({known or type(error).__name__}); is there a network?"


def _parts(uri: str, address: str) -> SplitResult:
    """Take a URL apart, in ASCII."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
        if host is None or parts.username is not None:
            raise ValueError("no host, or a name for it to log in with")
        host = host if host.isascii() else host.encode("idna").decode("ascii")
    except ValueError:
        # Not the error's own text: it repeats the address, which may be a server's.
        raise DecodeError(
            uri, "not a URL that can be fetched: expected http(s)://host/path, without a name to log in with"
        ) from None
    netloc = f"[{host}]" if ":" in host else host
    netloc += "" if port is None else f":{port}"
    path = quote(parts.path, safe=_URL_SAFE) or "/"
    return SplitResult(parts.scheme.lower(), netloc, path, quote(parts.query, safe=_URL_SAFE), "")


def _ask(uri: str, url: SplitResult, policy: MediaPolicy, watch: _Watch, max_bytes: int) -> bytes | str:
    """Ask one server: the body, or where it sends us."""
    connection = _connect(uri, url, policy, watch)
    target = (
        urlunsplit(url)
        if isinstance(connection, _ByProxy) and url.scheme == "http"
        else url._replace(scheme="", netloc="").geturl()
    )
    try:
        headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", "Connection": "close"}
        if isinstance(connection, _ByProxy) and url.scheme == "http":
            headers |= connection.credentials
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        if response.status in (301, 302, 303, 307, 308):
            return _redirect(uri, url, response)
        if not 200 <= response.status < 300:
            raise DecodeError(uri, f"the server answered HTTP {_status(response.status)}")
        return _body(uri, response, watch, max_bytes)
    finally:
        connection.hang_up()


class _ByProxy(_Connection):
    """A connection to a proxy.

    Attributes:
        credentials: Headers by which it is logged in to.
    """

    credentials: dict[str, str]


def _connect(uri: str, url: SplitResult, policy: MediaPolicy, watch: _Watch) -> _Connection:
    from urllib.request import getproxies, proxy_bypass

    host, port = str(url.hostname), url.port or (443 if url.scheme == "https" else 80)
    context = None
    if url.scheme == "https":
        import ssl

        context = ssl.create_default_context()
    proxy = None if proxy_bypass(host) else getproxies().get(url.scheme)
    if not proxy:
        peers = _lookup(uri, host, port, watch)
        allowed = [peer for peer in peers if policy.allows(str(peer[4][0]))]
        if not allowed:
            raise DecodeError(uri, _PRIVATE)
        return _Connection(host, port, peers=allowed, watch=watch, context=context)
    if not policy.allow_proxy:
        raise DecodeError(uri, _PROXY)
    _check_literal(uri, host, policy)
    gate = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if gate.scheme != "http" or not gate.hostname:
        raise DecodeError(uri, "the environment names a proxy of a kind that is not spoken; expected http://host:port")
    gate_port = gate.port or 80
    peers = _lookup(uri, gate.hostname, gate_port, watch)
    made = _ByProxy(gate.hostname, gate_port, peers=peers, watch=watch, context=context)
    made.credentials = {}
    if gate.username is not None:
        login = f"{unquote(gate.username)}:{unquote(gate.password or '')}".encode()
        made.credentials = {"Proxy-Authorization": "Basic " + base64.b64encode(login).decode("ascii")}
    if context is not None:
        made.set_tunnel(host, port, headers=made.credentials)
    return made


_PRIVATE = (
    "its host is in a private network or on this machine, which may not be read from; allow it with "
    f"--allow-private-network, MediaPolicy(allow_private_networks=True) or {PRIVATE_VARIABLE}=1"
)
_PROXY = (
    "the environment sends it through a proxy, which looks names up by itself, so that it cannot be checked where they "
    f"lead; allow that with MediaPolicy(allow_proxy=True) or {PROXY_VARIABLE}=1"
)


def _check_literal(uri: str, host: str, policy: MediaPolicy) -> None:
    """Refuse what is not allowed where the host is told by its address, in any of the ways to write one."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        local = host.rstrip(".").lower()
        if not policy.allow_private_networks and (local == "localhost" or local.endswith(".localhost")):
            raise DecodeError(uri, _PRIVATE) from None
        return
    if not all(policy.allows(str(peer[4][0])) for peer in found):
        raise DecodeError(uri, _PRIVATE)


def _lookup(uri: str, host: str, port: int, watch: _Watch) -> list[_Info]:
    """The addresses of a host; in a thread of its own, since the system's lookup knows no deadline."""
    answers: queue.SimpleQueue[list[Any] | OSError | UnicodeError] = queue.SimpleQueue()

    def look() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=look, name="mmalign-lookup", daemon=True).start()
    since = time.monotonic()
    while True:
        try:
            found = answers.get(timeout=watch.wait(_POLL_S))
        except queue.Empty:
            if time.monotonic() - since > _IDLE_S:
                raise watch.silence() from None
            continue
        if isinstance(found, OSError):
            raise DecodeError(uri, "its host's name is not known; is there a network?") from found
        if isinstance(found, UnicodeError):
            raise DecodeError(uri, "not a URL that can be fetched: no host can have this name") from found
        return found


def _redirect(uri: str, url: SplitResult, response: HTTPResponse) -> str:
    status = _status(response.status)
    try:
        onward = urljoin(urlunsplit(url), response.getheader("Location", "").strip())
        known = urlsplit(onward).scheme.lower() in ("http", "https") and response.getheader("Location")
    except ValueError:
        known = None
    if not known:
        raise DecodeError(uri, f"the server answered HTTP {status}, but leads to no http(s) URL")
    return onward


def _status(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


def _body(uri: str, response: HTTPResponse, watch: _Watch, max_bytes: int) -> bytes:
    declared = response.getheader("Content-Length", "")
    expected = int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 20 else None
    if expected is not None:
        check_size(uri, expected, max_bytes)
    unpack = _unpacker(uri, response.getheader("Content-Encoding", "identity").strip().lower())
    received, body = 0, bytearray()
    # read1 returns what has arrived; read would wait for a full piece.
    while piece := response.read1(_CHUNK):
        watch.wait(_IDLE_S)
        received += len(piece)
        for part in unpack(piece):
            body += part
            if len(body) > max_bytes:
                raise DecodeError(uri, f"too large: more than the limit of {max_bytes:,} bytes")
    if expected is not None and received < expected:
        raise DecodeError(uri, f"truncated download: {received:,} of {expected:,} bytes")
    check_size(uri, len(body), max_bytes)
    return bytes(body)


def _unpacker(uri: str, coding: str) -> Callable[[bytes], Any]:
    """What turns the pieces of a body into what they hold, in parts of bounded size."""
    if coding in ("", "identity"):
        return lambda piece: (piece,)
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise DecodeError(uri, "the server packed it in a way that was not asked for")
    # 47: zlib's or gzip's header, whichever comes.
    inflate = zlib.decompressobj(47)

    def unpack(piece: bytes) -> Any:
        while piece:
            try:
                part = inflate.decompress(piece, _CHUNK)
            except zlib.error:
                raise DecodeError(uri, "the server packed it, and it cannot be unpacked") from None
            piece = inflate.unconsumed_tail
            if not part and inflate.eof:
                return
            yield part

    return unpack

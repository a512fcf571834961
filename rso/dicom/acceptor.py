"""An acceptor of associations: one thread each, for C-ECHO and C-STORE only.

Negotiation and PDUs are pynetdicom's; the loop over the socket is RSO's own.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog
from msgspec import Struct
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, A_RELEASE_RP
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from rso.core.transport import Sink
from rso.dicom import wire
from rso.dicom.dimse import C_ECHO_RQ, C_STORE_RQ, Command, read_command, write_response
from rso.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from rso.dicom.wire import Wire, WireError

__all__ = ["Acceptor", "Handler", "Limits", "Refusal", "Request", "Service"]

log = structlog.get_logger(__name__)

VERIFICATION = "1.2.840.10008.1.1"
_IN_MEMORY = 12 << 20
_FIRST_BUFFER = 1 << 20
_MOST_COMMAND = 64 << 10


class Limits(Struct, frozen=True, kw_only=True):
    """Bounds on what peers may take."""

    associations: int = 600
    waiting: int = 200
    per_address: int = 600
    artim_seconds: float = 10.0
    idle_seconds: float = 300.0
    handshake_seconds: float = 5.0
    message_bytes: int = 16 << 30


class Request(Struct, frozen=True, kw_only=True):
    """What a peer says of itself in its A-ASSOCIATE-RQ."""

    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    tls: bool = False
    certificate_fingerprint: str = ""


class Refusal(Struct, frozen=True, kw_only=True):
    """A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    result: int = 1
    source: int = 1
    reason: int = 3


class Handler(Protocol):
    """What is done with one association's instances; used by its thread."""

    def store(
        self, command: Command, transfer_syntax_uid: str, dataset: memoryview
    ) -> tuple[int, str]:
        """Keep a dataset; status and comment. The view is gone when this returns."""

    def open(self, command: Command, transfer_syntax_uid: str) -> Sink:
        """Begin a dataset that is too large for memory."""

    def failed(self, exc: Exception) -> tuple[int, str]:
        """Status and comment of an error that a sink raised."""

    def close(self) -> None:
        """The association ended, however."""


class Service(Protocol):
    """Who may associate, for what."""

    def admit(self, request: Request) -> Handler | Refusal:
        """A handler for the peer, or its refusal."""

    def transfer_syntax(self, abstract_syntax: str, offered: Sequence[str]) -> str | None:
        """The Transfer Syntax to accept; empty: none of these; ``None``: not this service."""


class Acceptor:
    """Listens on sockets and runs a thread for each association."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._limits = limits
        self._listeners: list[socket.socket] = []
        self._threads: set[threading.Thread] = set()
        self._wires: set[Wire] = set()
        self._lock = threading.Lock()
        self._waiting = 0
        self._associated = 0
        self._by_address: Counter[str] = Counter()
        self._closing = threading.Event()

    def listen(
        self,
        host: str,
        port: int,
        *,
        reuse_port: bool = False,
        context: Callable[[], ssl.SSLContext] | None = None,
    ) -> int:
        """Listen on an address; returns the port. ``context`` makes it TLS."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        try:
            listener.bind((host, port))
        except OSError:
            listener.close()
            raise
        listener.listen(1024)
        self._listeners.append(listener)
        self._spawn(self._accept, listener, context)
        return int(listener.getsockname()[1])

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        def run() -> None:
            try:
                target(*args)
            except Exception:  # a fault of ours must not take the process down, nor hide
                log.exception("association failed")
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name=target.__name__, daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _accept(
        self, listener: socket.socket, context: Callable[[], ssl.SSLContext] | None
    ) -> None:
        while not self._closing.is_set():
            try:
                sock, address = listener.accept()
            except OSError:
                if self._closing.is_set():
                    return
                time.sleep(0.05)  # out of descriptors: let some close
                continue
            host = str(address[0])
            with self._lock:
                full = (
                    self._waiting >= self._limits.waiting
                    or self._by_address[host] >= self._limits.per_address
                )
                if not full:
                    self._waiting += 1
                    self._by_address[host] += 1
            if full:
                sock.close()
                continue
            self._spawn(self._serve, sock, host, context)

    def _serve(
        self, sock: socket.socket, host: str, context: Callable[[], ssl.SSLContext] | None
    ) -> None:
        state = _State()
        try:
            fingerprint = ""
            if context is not None:
                sock, fingerprint = self._shake_hands(sock, context())
            link = Wire(sock)
            with self._lock:
                self._wires.add(link)
            try:
                self._associate(link, host, context is not None, fingerprint, state)
            except WireError as exc:
                log.info("association ended", peer=host, reason=str(exc))
                self._abort(link)
            except Exception as exc:  # pynetdicom raises what it likes on malformed items
                log.info("association aborted", peer=host, reason=type(exc).__name__)
                self._abort(link)
            finally:
                link.close()
                with self._lock:
                    self._wires.discard(link)
        except (OSError, ssl.SSLError) as exc:
            log.info("connection dropped", peer=host, reason=str(exc))
            sock.close()
        finally:
            with self._lock:
                self._by_address[host] -= 1
                if not self._by_address[host]:
                    del self._by_address[host]
                if state.associated:
                    self._associated -= 1
                else:
                    self._waiting -= 1

    def _shake_hands(
        self, sock: socket.socket, context: ssl.SSLContext
    ) -> tuple[socket.socket, str]:
        from hashlib import sha256  # noqa: PLC0415

        sock.settimeout(self._limits.handshake_seconds)
        try:
            secure = context.wrap_socket(sock, server_side=True)
        except OSError:
            sock.close()
            raise
        certificate = secure.getpeercert(binary_form=True)
        return secure, sha256(certificate).hexdigest() if certificate else ""

    def _abort(self, link: Wire) -> None:
        pdu = A_ABORT_RQ()
        pdu.source, pdu.reason_diagnostic = 2, 0
        with contextlib.suppress(WireError, OSError):
            link.send([pdu.encode()], 2.0)

    def _associate(
        self, link: Wire, host: str, tls: bool, fingerprint: str, state: "_State"
    ) -> None:
        kind, length = link.read_head(self._limits.artim_seconds)
        if kind != wire.REQUEST:
            raise WireError("the first PDU is no A-ASSOCIATE-RQ")
        pdu = A_ASSOCIATE_RQ()
        body = link.read_body(length, self._limits.artim_seconds)
        pdu.decode(b"\x01\x00" + length.to_bytes(4, "big") + body)
        asked = pdu.to_primitive()
        request = Request(
            calling_ae_title=str(asked.calling_ae_title).strip(),
            called_ae_title=str(asked.called_ae_title).strip(),
            peer_address=host,
            tls=tls,
            certificate_fingerprint=fingerprint,
        )
        answer = self._admit(request, state)
        if isinstance(answer, Refusal):
            self._refuse(link, answer)
            return
        try:
            contexts, most = self._negotiate(link, asked)
            _Association(link, answer, contexts, most, self._limits, self._closing).run()
        finally:
            answer.close()

    def _admit(self, request: Request, state: "_State") -> Handler | Refusal:
        answer = self._service.admit(request)
        if isinstance(answer, Refusal):
            return answer
        with self._lock:
            if self._associated < self._limits.associations and not self._closing.is_set():
                self._associated += 1
                self._waiting -= 1
                state.associated = True
                return answer
        answer.close()
        return Refusal(result=2, source=3, reason=2)  # transient: local limit exceeded

    def _refuse(self, link: Wire, refusal: Refusal) -> None:
        pdu = A_ASSOCIATE_RJ()
        pdu.result, pdu.source = refusal.result, refusal.source
        pdu.reason_diagnostic = refusal.reason
        link.send([pdu.encode()], 5.0)
        with contextlib.suppress(WireError):
            link.read_head(2.0)  # the peer closes first, so that it reads the answer

    def _negotiate(self, link: Wire, asked: Any) -> tuple[dict[int, str], int]:
        offered = asked.presentation_context_definition_list
        able = []
        for context in offered:
            chosen = self._service.transfer_syntax(
                str(context.abstract_syntax), [str(t) for t in context.transfer_syntax]
            )
            if chosen is None:
                continue
            one = PresentationContext()
            one.abstract_syntax = context.abstract_syntax
            # Nothing acceptable is answered as such by negotiating against what was not offered.
            one.transfer_syntax = [chosen or "1.2.840.10008.1.2.999"]
            able.append((context, one))
        results: list[Any] = []
        known = {id(context): one for context, one in able}
        for context in offered:
            supported = known.get(id(context))
            answered, _ = negotiate_as_acceptor([context], [supported] if supported else [])
            results += answered
        answer = A_ASSOCIATE()
        answer.application_context_name = "1.2.840.10008.3.1.1.1"
        answer.calling_ae_title = asked.calling_ae_title
        answer.called_ae_title = asked.called_ae_title
        answer.result, answer.result_source = 0, 1
        answer.presentation_context_definition_results_list = results
        maximum = MaximumLengthNotification()
        maximum.maximum_length_received = wire.MOST_RECEIVED
        implementation = ImplementationClassUIDNotification()
        implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        version = ImplementationVersionNameNotification()
        version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        answer.user_information = [maximum, implementation, version]
        pdu = A_ASSOCIATE_AC()
        pdu.from_primitive(answer)
        link.send([pdu.encode()])
        accepted = {c.context_id: str(c.transfer_syntax[0]) for c in results if c.result == 0}
        return accepted, int(asked.maximum_length_received or 0)

    def close(self, seconds: float = 10.0) -> None:
        """Stop accepting; associations finish the message they are in, within a bound."""
        self._closing.set()
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            wires, threads = list(self._wires), list(self._threads)
        for link in wires:
            # Wakes a thread that waits for its peer; one in a message reads on to its end.
            if not link.in_message:
                with contextlib.suppress(OSError):
                    link.sock.shutdown(socket.SHUT_RD)
        until = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0.05))


class _State:
    associated = False


class _Association:
    """An accepted association, until it is released or fails."""

    def __init__(
        self,
        link: Wire,
        handler: Handler,
        contexts: dict[int, str],
        most: int,
        limits: Limits,
        closing: threading.Event,
    ) -> None:
        self._link, self._handler = link, handler
        self._contexts, self._most, self._limits = contexts, most, limits
        self._closing = closing
        self._buffer = bytearray(_FIRST_BUFFER)
        self._used = 0
        self._command = bytearray()
        self._request: Command | None = None
        self._sink: Sink | None = None
        self._fault: tuple[int, str] | None = None

    def run(self) -> None:
        """Serve messages."""
        try:
            while True:
                seconds = self._limits.idle_seconds
                kind, length = self._link.read_head(seconds)
                if kind == wire.DATA:
                    self._link.in_message = True
                    for fragment in self._link.fragments():
                        self._take(fragment)
                    if self._request is None and not self._command:
                        self._link.in_message = False
                        if self._closing.is_set():
                            raise WireError("RSO is shutting down")
                    continue
                self._link.read_body(length)
                if kind == wire.RELEASE_REQUEST:
                    self._link.send([A_RELEASE_RP().encode()])
                    return
                if kind == wire.ABORT:
                    return
                raise WireError("an unexpected PDU")
        finally:
            if self._sink is not None:
                self._sink.abort()

    def _take(self, fragment: wire.Fragment) -> None:
        if fragment.context_id not in self._contexts:
            raise WireError("a presentation context that was not accepted")
        if fragment.is_command:
            if self._request is not None or len(self._command) + fragment.length > _MOST_COMMAND:
                raise WireError("a command set is out of place or too long")
            start = len(self._command)
            self._command += bytes(fragment.length)
            self._link.read_into(memoryview(self._command)[start:])
            if fragment.is_last:
                self._begin(read_command(self._command), fragment.context_id)
            return
        if self._request is None:
            raise WireError("a dataset without a command")
        self._take_data(fragment)
        if fragment.is_last:
            self._finish(fragment.context_id)

    def _begin(self, command: Command, context_id: int) -> None:
        self._command = bytearray()
        if command.field == C_STORE_RQ and command.has_dataset:
            self._request, self._used, self._fault = command, 0, None
            return
        status = 0x0000 if command.field == C_ECHO_RQ else 0x0211  # unrecognised operation
        if command.has_dataset or command.field & 0x8000:
            raise WireError("an operation that is not offered")
        self._answer(command, context_id, status, "")

    def _take_data(self, fragment: wire.Fragment) -> None:
        end = self._used + fragment.length
        if end > len(self._buffer):
            if len(self._buffer) < _IN_MEMORY:
                # One step, untouched pages cost nothing; growing by doubling would copy.
                grown = bytearray(max(_IN_MEMORY, end))
                grown[: self._used] = memoryview(self._buffer)[: self._used]
                self._buffer = grown
            else:
                self._spill(fragment.context_id)
                end = self._used + fragment.length
        self._link.read_into(memoryview(self._buffer)[self._used : end])
        self._used = end

    def _spill(self, context_id: int) -> None:
        """Hand what is in memory to the sink; after a fault the rest is read and dropped."""
        assert self._request is not None
        if self._fault is None:
            try:
                if self._sink is None:
                    self._sink = self._handler.open(self._request, self._contexts[context_id])
                self._sink.write(memoryview(self._buffer)[: self._used])
            except Exception as exc:
                self._fault = self._handler.failed(exc)
                if self._sink is not None:
                    self._sink.abort()
                    self._sink = None
        self._used = 0

    def _finish(self, context_id: int) -> None:
        command, self._request = self._request, None
        assert command is not None
        sink, fault = self._sink, self._fault
        if fault is not None:
            status, comment = fault
        elif sink is not None:
            try:
                sink.write(memoryview(self._buffer)[: self._used])
                sink.commit()
                status, comment = 0x0000, ""
            except Exception as exc:
                sink.abort()
                status, comment = self._handler.failed(exc)
        else:
            view = memoryview(self._buffer)[: self._used]
            status, comment = self._handler.store(command, self._contexts[context_id], view)
            view.release()
        self._sink = None
        self._answer(command, context_id, status, comment)

    def _answer(self, command: Command, context_id: int, status: int, comment: str) -> None:
        data = write_response(command, status, comment)
        self._link.send(wire.data_pdus(context_id, data, self._most, is_command=True))

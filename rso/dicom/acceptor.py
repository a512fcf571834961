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
from hashlib import sha256
from typing import Any, Protocol

import structlog
from msgspec import Struct
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from rso.dicom import wire
from rso.dicom.association import AcceptedAssociation, Handler, Limits
from rso.dicom.offer import excess
from rso.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from rso.dicom.wire import Wire, WireError

__all__ = ["Acceptor", "Handler", "Limits", "Refusal", "Request", "Service"]

log = structlog.get_logger(__name__)

_FIXED = 68  # bytes of an A-ASSOCIATE-RQ behind its head and before its items


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


class Service(Protocol):
    """Who may associate, for what."""

    def admit(self, request: Request) -> Handler | Refusal:
        """A handler for the peer, or its refusal."""

    def transfer_syntax(self, abstract_syntax: str, offered: Sequence[str]) -> str | None:
        """The Transfer Syntax to accept; empty: none of these; ``None``: not this service."""

    def turns_away(self, peer_address: str, certificate_fingerprint: str | None) -> bool:
        """Whether a connection is closed unheard; ``None``: its certificate is not seen yet."""

    def refuse(self, request: Request, reason: str) -> Refusal:
        """Refuse a peer that was admitted, for what else its A-ASSOCIATE-RQ holds."""

    def handshake_failed(self, peer_address: str, reason: str) -> None:
        """A client showed a certificate that is not accepted."""


class Acceptor:
    """Listens on sockets and runs a thread for each association."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._limits = limits
        self._listeners: list[socket.socket] = []
        self._threads: set[threading.Thread] = set()
        self._wires: set[Wire] = set()
        self._lock = threading.Lock()
        self._waiting: dict[_Peer, None] = {}  # oldest first
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
        try:
            thread.start()
        except RuntimeError:
            with self._lock:
                self._threads.discard(thread)
            raise

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
            peer = _Peer(sock, str(address[0]))
            fingerprint = None if context is not None else ""
            if self._turned_away(peer, fingerprint) or not self._welcome(peer):
                sock.close()
                continue
            try:
                self._spawn(self._serve, peer, context)
            except RuntimeError:  # no more threads: others have to end first
                log.error("no thread for a connection", peer=peer.host)
                sock.close()
                self._forget(peer)

    def _turned_away(self, peer: "_Peer", fingerprint: str | None) -> bool:
        try:
            return self._service.turns_away(peer.host, fingerprint)
        except Exception:  # the port stays open; who may associate is asked again
            log.exception("whether an address is turned away is not known")
            return False

    def _welcome(self, peer: "_Peer") -> bool:
        """Let a connection wait for its association; whoever crowds makes room for it."""
        with self._lock:
            if self._by_address[peer.host] >= self._limits.per_address:
                return False
            if len(self._waiting) >= self._limits.waiting:
                self._evict()
            self._waiting[peer] = None
            self._by_address[peer.host] += 1
        return True

    def _evict(self) -> None:
        """End the longest wait of the address with the most: an honest peer waits briefly."""
        crowds = Counter(p.host for p in self._waiting)
        host = crowds.most_common(1)[0][0]
        victim = next(p for p in self._waiting if p.host == host)
        del self._waiting[victim]
        with contextlib.suppress(OSError):
            victim.sock.shutdown(socket.SHUT_RDWR)  # its thread wakes and ends

    def _forget(self, peer: "_Peer") -> None:
        with self._lock:
            self._by_address[peer.host] -= 1
            if not self._by_address[peer.host]:
                del self._by_address[peer.host]
            self._waiting.pop(peer, None)
            if peer.associated:
                self._associated -= 1

    def _serve(self, peer: "_Peer", context: Callable[[], ssl.SSLContext] | None) -> None:
        try:
            fingerprint = ""
            if context is not None:
                fingerprint = self._shake_hands(peer, context())
                if self._turned_away(peer, fingerprint):
                    return
            link = Wire(peer.sock)
            with self._lock:
                self._wires.add(link)
            try:
                self._associate(link, peer, context is not None, fingerprint)
            except WireError as exc:
                log.info("association ended", peer=peer.host, reason=str(exc))
                self._abort(link)
            except Exception as exc:  # pynetdicom raises what it likes on malformed items
                log.info("association aborted", peer=peer.host, reason=type(exc).__name__)
                self._abort(link)
            finally:
                link.close()
                with self._lock:
                    self._wires.discard(link)
        except OSError as exc:  # ssl.SSLError among them
            log.info("connection dropped", peer=peer.host, reason=str(exc))
            if isinstance(exc, ssl.SSLCertVerificationError):
                self._service.handshake_failed(peer.host, exc.verify_message)
        finally:
            peer.sock.close()
            self._forget(peer)

    def _shake_hands(self, peer: "_Peer", context: ssl.SSLContext) -> str:
        """Begin TLS within a bound; the fingerprint of the client's certificate, if any."""
        peer.sock.settimeout(self._limits.handshake_seconds)
        secure = context.wrap_socket(peer.sock, server_side=True, do_handshake_on_connect=False)
        peer.sock = secure
        secure.do_handshake()  # the timeout bounds it as a whole
        certificate = secure.getpeercert(binary_form=True)
        return sha256(certificate).hexdigest() if certificate else ""

    def _abort(self, link: Wire) -> None:
        pdu = A_ABORT_RQ()
        pdu.source, pdu.reason_diagnostic = 2, 0
        with contextlib.suppress(WireError, OSError):
            link.send([pdu.encode()], 2.0)

    def _associate(self, link: Wire, peer: "_Peer", tls: bool, fingerprint: str) -> None:
        kind, length = link.read_head(self._limits.artim_seconds)
        if kind != wire.REQUEST:
            raise WireError("the first PDU is no A-ASSOCIATE-RQ")
        body = link.read_body(length, self._limits.artim_seconds)
        if length < _FIXED:
            raise WireError("an A-ASSOCIATE-RQ is too short")
        pdu = A_ASSOCIATE_RQ()
        pdu.called_ae_title, pdu.calling_ae_title = body[4:20], body[20:36]
        request = Request(
            calling_ae_title=pdu.calling_ae_title.strip(),
            called_ae_title=pdu.called_ae_title.strip(),
            peer_address=peer.host,
            tls=tls,
            certificate_fingerprint=fingerprint,
        )
        # Nothing but the names is read for a stranger: the rest can be made to take long.
        answer = self._admit(request, peer)
        if isinstance(answer, Refusal):
            self._refuse(link, answer)
            return
        try:
            if reason := excess(body[_FIXED:]):
                self._refuse(link, self._service.refuse(request, reason))
                return
            pdu.decode(b"\x01\x00" + length.to_bytes(4, "big") + body)
            contexts, most = self._negotiate(link, pdu.to_primitive())
            AcceptedAssociation(link, answer, contexts, most, self._limits, self._closing).run()
        finally:
            answer.close()

    def _admit(self, request: Request, peer: "_Peer") -> Handler | Refusal:
        answer = self._service.admit(request)
        if isinstance(answer, Refusal):
            return answer
        with self._lock:
            if self._associated < self._limits.associations and not self._closing.is_set():
                self._associated += 1
                self._waiting.pop(peer, None)
                peer.associated = True
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


class _Peer:
    """A connection."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        self.sock = sock
        self.host = host
        self.associated = False

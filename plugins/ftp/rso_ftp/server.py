"""The conversation: pyftpdlib's handlers, with RSO's rules for what a reply means."""

import contextlib
import hashlib
import logging
import socket
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import structlog
from msgspec import Struct
from OpenSSL import SSL
from pyftpdlib.exceptions import FilesystemError
from pyftpdlib.handlers import (
    FTPHandler,
    ThrottledDTPHandler,
    TLS_DTPHandler,
    TLS_FTPHandler,
)
from pyftpdlib.ioloop import IOLoop
from pyftpdlib.servers import ThreadedFTPServer

from rso.core.source import is_expected
from rso.plugins import (
    Batch,
    Connection,
    IntakeError,
    NoSpaceError,
    Provenance,
    ReceiverContext,
    RsoError,
    Source,
)
from rso_ftp.accounts import Accounts
from rso_ftp.config import FtpConfig, passive_range
from rso_ftp.names import Names
from rso_ftp.strangers import Guest, Guests
from rso_ftp.upload import UploadError, Uploads
from rso_ftp.view import View, allowed_name

__all__ = ["Shared", "build_server"]

log = structlog.get_logger(__name__)

# pyftpdlib logs file names, and people put patients' names into those.
logging.getLogger("pyftpdlib").setLevel(logging.CRITICAL)


class Shared(Struct, frozen=True, kw_only=True):
    """What every connection shares."""

    context: ReceiverContext
    names: Names
    uploads: Uploads


_QUICKACK = getattr(socket, "TCP_QUICKACK", 12)


class _Receiving:
    """A data channel that replies only when what it received is kept."""

    _settled = False

    def recv(self: Any, buffer_size: int) -> bytes:
        # A client with Nagle's algorithm on waits with its last segment for our acknowledgement.
        with contextlib.suppress(OSError, AttributeError):
            self.socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        data: bytes = super().recv(buffer_size)  # type: ignore[misc]
        return data

    def handle_close(self: Any) -> None:
        # TLS may report the end twice: once for its own, once for the connection's.
        if self._closed or not self.receive or self.file_obj is None or self._settled:
            super().handle_close()  # type: ignore[misc]
            return
        self._settled = self.transfer_finished = True
        reply = self.file_obj.finish()
        self._resp = reply, _quiet
        if reply.startswith("426"):
            self.cmd_channel.on_incomplete_file_received(self.file_obj.name)
        self.close()

    def handle_error(self: Any) -> None:
        error = sys.exc_info()[1]
        self._error = True
        if error is not None and isinstance(error.__cause__, UploadError):
            self._resp = error.__cause__.reply, _quiet
        else:
            log.error("ftp data connection failed", reason=type(error).__name__)
            self._resp = "426 Internal error; transfer aborted.", _quiet
        self.close()


def _quiet(message: str) -> None:
    """Replies are not logged."""


class _PlainChannel(_Receiving, ThrottledDTPHandler):  # type: ignore[misc]
    ac_in_buffer_size = 1 << 18


class _TlsChannel(TLS_DTPHandler, _PlainChannel):  # type: ignore[misc]
    # TLS stands before, so that the end of its stream comes by here; its own way with errors
    # would say nothing to the client.
    handle_error = _Receiving.handle_error


class _Control:
    """What both control channels share; mixed in before pyftpdlib's class."""

    abstracted_fs = View
    banner = "RSO ready."
    unicode_errors = "replace"
    permit_foreign_addresses = False
    permit_privileged_ports = False
    max_login_attempts = 3
    auth_failed_timeout = 2
    use_sendfile = False
    shared: ClassVar[Shared]

    source: Source | None = None
    account = ""
    _batch: Batch | None = None
    _guest: Guest | None = None

    @property
    def names(self) -> Names:
        """For the view."""
        return self.shared.names

    def on_connect(self: Any) -> None:
        """From now on it counts."""
        context = self.shared.context
        caller = Connection(channel="ftp", identity="", peer_address=self.remote_ip)
        self._guest = Guest(self, self.socket, expected=is_expected(caller, context.sources()))
        self.server.guests.arrived(self._guest)

    @property
    def ended(self) -> bool:
        """It was told to go; what it asked for finds nobody."""
        return self._guest is not None and self._guest.ended

    def flush_account(self: Any) -> None:
        """Who signs out, to be another, has the same time for it as a newcomer."""
        if self._guest is not None:
            self._guest.since = time.monotonic()
        super().flush_account()  # type: ignore[misc]

    def pre_process_command(self: Any, line: str, cmd: str, arg: str) -> None:
        """What was sent behind a QUIT, or before the connection broke, finds nobody any more."""
        if not self._closed:
            super().pre_process_command(line, cmd, arg)  # type: ignore[misc]

    def add_channel(self: Any, *args: Any, **words: Any) -> None:
        """A refused sign-in is answered two seconds later, when the connection may be gone.

        Its descriptor may be another connection's by then.
        """
        if not getattr(self, "_closed", False):
            super().add_channel(*args, **words)  # type: ignore[misc]

    def handle_auth_success(self: Any, home: str, password: str, msg_login: str) -> None:
        """The view is made here, so it must know whose it is."""
        source = self.source
        self.account = hashlib.sha256(f"{source.facility}\0{source.identity}".encode()).hexdigest()
        super().handle_auth_success(home, password, msg_login)  # type: ignore[misc]

    def open_batch(self: Any) -> Batch:
        """The session's batch, from its first file on."""
        if self._batch is None:
            source = self.source
            self._batch = self.shared.context.spool.open_batch(
                Provenance(
                    channel="ftp",
                    facility=source.facility,
                    source=source.identity,
                    kind=source.kind,
                    peer_address=self.remote_ip,
                    opened_at=datetime.now(UTC),
                )
            )
        batch: Batch = self._batch
        return batch

    def ftp_STOR(self: Any, file: str, mode: str = "w") -> str | None:  # noqa: N802
        """Store, append or go on with a file."""
        offset, self._restart_position = self._restart_position, 0
        if self._current_type != "i":
            self.respond("550 Images are binary: send TYPE I first.")
            return None
        try:
            allowed_name(file)
            if not self.fs.isdir(file.rpartition("/")[0] or "/"):
                raise FilesystemError("No such directory")
            upload = self.shared.uploads.begin(
                self.account, file, self.open_batch, offset=None if "a" in mode else offset
            )
        except FilesystemError as exc:
            self.respond(f"{554 if offset else 550} {exc}.")
            return None
        except NoSpaceError as exc:
            self.respond(f"452 {exc}.")
            return None
        except (IntakeError, OSError) as exc:
            log.error("ftp upload cannot begin", reason=type(exc).__name__)
            self.respond("451 The file cannot be taken right now.")
            return None
        command = "APPE" if "a" in mode else "STOR"
        if self.data_channel is not None:
            self.respond("125 Data connection is open.")
            self.data_channel.file_obj = upload
            self.data_channel.enable_receiving("i", command)
        else:
            self.respond("150 Waiting for the data connection.")
            self._in_dtp_queue = (upload, command)
        return file

    def on_incomplete_file_received(self: Any, file: str) -> None:  # noqa: ARG002
        """A cut transfer is parked by its own close; the audit learns of it."""
        try:
            self.shared.context.spool.alert(
                "ftp upload cut off",
                {"account": self.source.identity, "facility": self.source.facility,
                 "peer": self.remote_ip},
            )  # fmt: skip
        except RsoError as exc:
            log.warning("alert could not be kept", reason=str(exc))

    def on_logout(self, username: str) -> None:  # noqa: ARG002
        """Another account's files are another batch."""
        self._end()

    def on_disconnect(self) -> None:
        """The session is over."""
        self._end()

    def _end(self) -> None:
        batch, self._batch = self._batch, None
        if batch is not None:
            try:
                batch.close()
            except RsoError as exc:
                log.warning("batch could not be closed", reason=str(exc))

    def log_exception(self, instance: object) -> None:
        log.exception("ftp connection failed", where=type(instance).__name__)


class _Leaving(FTPHandler):  # type: ignore[misc]
    """Behind TLS, which comes by here when it has said its goodbye, or gives up."""

    def close(self) -> None:
        guest = self._guest
        with guest.closing if guest else contextlib.nullcontext():
            super().close()
        if guest:
            self.server.guests.left(guest)


class _Plain(_Control, _Leaving):
    dtp_handler = _PlainChannel


class _Tls(_Control, TLS_FTPHandler, _Leaving):  # type: ignore[misc]
    dtp_handler = _TlsChannel
    tls_control_required = True
    tls_data_required = True


def build_server(
    config: FtpConfig, context: ReceiverContext, names: Names, parts: Path,
    certificate: tuple[Path, Path] | None,
) -> Any:  # fmt: skip
    """A listening server; ``run`` serves.

    Raises:
        OSError: The port is taken.
        SSL.Error: The certificate cannot be used.
    """
    base: Any = _Plain if certificate is None else _Tls
    uploads = Uploads(names, parts, context, config)
    shared = Shared(context=context, names=names, uploads=uploads)
    values: dict[str, Any] = {
        "shared": shared,
        "authorizer": Accounts(context),
        "timeout": config.idle_seconds,
        "passive_ports": passive_range(config),
        "masquerade_address": config.masquerade_address or None,
        "dtp_handler": type(
            "Channel",
            (base.dtp_handler,),
            {"timeout": config.idle_seconds, "read_limit": config.bytes_per_second},
        ),
        "proto_cmds": {n: c for n, c in base.proto_cmds.items() if n != "STOU"},
    }
    if certificate is not None:
        values["ssl_context"] = _tls_context(*certificate)
    handler = type("Handler", (base,), values)
    guests = Guests(config.connections, config.per_address, config.sign_in_seconds)
    return _Server((config.host, config.port), handler, guests)


class _Server(ThreadedFTPServer):  # type: ignore[misc]
    """One thread a connection: disk and passwords hold up nobody else."""

    # Guests count, and know whom to let in.
    max_cons = max_cons_per_ip = 0

    def __init__(self, address: tuple[str, int], handler: Any, guests: Guests) -> None:
        self.guests = guests
        self._exit = threading.Event()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        super().__init__(address, handler, ioloop=IOLoop())

    def run(self) -> None:
        """Serve until ``stop``; the connections end with it."""
        while not self._stopping.is_set():
            self.serve_forever(timeout=0.5, blocking=False, handle_exit=False)
            self.guests.end_late()
        self.close_all()

    def handle_accepted(self, sock: socket.socket, addr: Any) -> None:
        """Let a newcomer in, or tell it why not; in the thread that accepts."""
        refusal = self.guests.refusal(addr[0])
        if refusal:
            with contextlib.suppress(OSError), sock:
                sock.setblocking(False)
                sock.send(f"421 {refusal}\r\n".encode())
            return
        super().handle_accepted(sock, addr)

    def stop(self) -> None:
        """Make ``run`` return."""
        self._stopping.set()


def _tls_context(certificate: Path, key: Path) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    # TLS 1.3 sends session tickets after the handshake. An uploading client never reads them,
    # so closing its socket resets the connection, and what we had not read yet would be lost.
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_cipher_list(b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM")
    context.use_certificate_chain_file(str(certificate))
    context.use_privatekey_file(str(key))
    context.check_privatekey()
    return context

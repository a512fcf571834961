"""The receiver: declared sources, storage and verification, nothing else."""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import structlog
from msgspec import Meta, Struct, field

from rso.core.source import explain_refusal, facility_concerned, fingerprints, is_expected
from rso.dicom.dimse import VERIFICATION, Command
from rso.dicom.elements import DEFLATED
from rso.plugins import (
    Bans,
    Batch,
    ConfigError,
    Connection,
    Health,
    IdentifierError,
    NoSpaceError,
    NotDicomError,
    Provenance,
    Receiver,
    ReceiverContext,
    RefusedError,
    RsoError,
    Sink,
    Source,
    VolumeError,
    WriteAhead,
    hookimpl,
)
from rso_dicom_scp.tls import Certificates, Tls

if TYPE_CHECKING:
    # Every command loads this module; only a server needs what stands behind it.
    from rso.dicom.acceptor import Acceptor, Refusal, Request

__all__ = [
    "STATUSES",
    "DicomScp",
    "DicomScpConfig",
    "Tls",
    "accepted_syntax",
    "rso_register_receivers",
]

log = structlog.get_logger(__name__)

_JPIP = frozenset(
    {"1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.204",
     "1.2.840.10008.1.2.4.205"}
)  # fmt: skip
_UID = re.compile(r"[0-9.]{1,64}")
STATUSES = (
    (NoSpaceError, 0xA700),
    (IdentifierError, 0xA900),
    (NotDicomError, 0xC000),
    (RefusedError, 0x0122),
    (VolumeError, 0x0110),
)
_REFUSAL_DELAY = 0.2


class DicomScpConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[plugins.dicom_scp]``."""

    host: Annotated[str, Meta(description="address to listen on")] = "0.0.0.0"  # noqa: S104
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on")] = 11112
    ae_title: Annotated[str, Meta(max_length=16, description="RSO's AE title")] = "RSO"
    require_called_ae_title: Annotated[
        bool, Meta(description="refuse peers that call another AE title")
    ] = False
    workers: Annotated[int, Meta(ge=1, le=64, description="processes that share the port")] = 1
    associations: Annotated[int, Meta(ge=1, description="associations at once, a process")] = 600
    per_address: Annotated[int, Meta(ge=1, description="connections at once, an address")] = 600
    idle_seconds: Annotated[float, Meta(gt=0, description="an idle association is ended")] = 300.0
    tls: Annotated[Tls | None, Meta(description="second port with TLS")] = field(default=None)


class DicomScp(Receiver):
    """C-STORE SCP and C-ECHO SCP."""

    name = "dicom_scp"
    config_type = DicomScpConfig
    config: DicomScpConfig

    def __init__(self, config: DicomScpConfig, context: ReceiverContext) -> None:
        super().__init__(config, context)
        self._acceptor: Acceptor | None = None
        self._bans = Bans(context.data_dir / "bans")

    @classmethod
    def processes(cls, config: DicomScpConfig) -> int:
        """As many as the configuration says."""
        return config.workers

    @classmethod
    def certificates(cls, config: DicomScpConfig) -> Sequence[str]:
        """That of the TLS port."""
        return (config.tls.certificate,) if config.tls is not None else ()

    async def start(self) -> Sequence[str]:
        """Listen on the plain port and, if configured, the TLS port."""
        from rso.dicom.acceptor import Acceptor, Limits  # noqa: PLC0415

        config = self.config
        limits = Limits(
            associations=config.associations,
            per_address=config.per_address,
            idle_seconds=config.idle_seconds,
        )
        self._acceptor = Acceptor(self, limits)
        shared = config.workers > 1
        try:
            port = self._acceptor.listen(config.host, config.port, reuse_port=shared)
            addresses = [f"dicom://{config.host}:{port} (AE title {config.ae_title})"]
            if config.tls is not None:
                certificates = Certificates(config.tls, self.context.sources)
                port = self._acceptor.listen(
                    config.host, config.tls.port, reuse_port=shared, context=certificates.context
                )
                addresses.append(f"dicom+tls://{config.host}:{port}")
        except OSError as exc:
            raise ConfigError(
                f"dicom_scp cannot listen on {config.host}:{config.port}: {exc.strerror}"
            ) from exc
        return addresses

    async def health(self) -> Health:
        """Listening or not."""
        return Health(ok=self._acceptor is not None)

    async def close(self) -> None:
        """Stop accepting and let messages under way finish."""
        acceptor, self._acceptor = self._acceptor, None
        if acceptor is not None:
            await asyncio.to_thread(acceptor.close)

    def admit(self, request: "Request") -> "_Handler | Refusal":
        """Recognise the source; every refusal looks the same from outside."""
        from rso.dicom.acceptor import Refusal  # noqa: PLC0415

        connection = self._connection(request)
        shown = connection.certificate_fingerprint
        banned = self._bans.banned(connection.peer_address, connection.identity)
        source = self._identify(connection) if shown or not banned else None
        # Its neighbours earn a name its ban; they cannot show the certificate it is bound to.
        if source is None or (banned and shown not in fingerprints(source)):
            self._refused(connection)
            return Refusal()
        give_back = self.context.associate(source)
        if give_back is None:
            return Refusal(result=2, source=3, reason=2)  # transient: local limit exceeded
        return _Handler(self, source, request, give_back)

    def turns_away(self, peer_address: str, certificate_fingerprint: str | None) -> bool:
        """Whether its whole address is banned and no certificate can speak for it."""
        if not self._bans.banned(peer_address, ""):
            return False
        known = {pin for s in self.context.sources() for pin in fingerprints(s)}
        if certificate_fingerprint is None:
            return not known
        return certificate_fingerprint not in known

    def refuse(self, request: "Request", reason: str) -> "Refusal":
        """Count it like any refusal, and tell why."""
        from rso.dicom.acceptor import Refusal  # noqa: PLC0415

        self._refused(self._connection(request), reason)
        return Refusal()

    def _connection(self, request: "Request") -> Connection:
        return Connection(
            channel=self.name,
            identity=request.calling_ae_title,
            peer_address=request.peer_address,
            called_ae_title=request.called_ae_title,
            tls=request.tls,
            certificate_fingerprint=request.certificate_fingerprint,
        )

    def _identify(self, connection: Connection) -> Source | None:
        config = self.config
        if config.require_called_ae_title and connection.called_ae_title != config.ae_title:
            return None
        try:
            return self.context.identify(connection)
        except Exception:
            log.exception("source could not be identified")
            return None

    def _refused(self, connection: Connection, reason: str = "") -> None:
        sources = self.context.sources()
        stranger = not is_expected(connection, sources)
        if self._bans.failed(connection.peer_address, connection.identity, stranger=stranger):
            self._alert(connection, reason or explain_refusal(connection, sources))
        time.sleep(_REFUSAL_DELAY)

    def _alert(self, connection: Connection, reason: str) -> None:
        log.warning("association refused", peer=connection.peer_address, reason=reason)
        facts = {
            "peer": connection.peer_address,
            "calling": connection.identity,
            "called": connection.called_ae_title,
            "reason": reason,
            "facility": facility_concerned(connection, self.context.sources()),
        }
        try:
            self.context.spool.alert("association refused", facts)
        except RsoError as exc:
            log.warning("alert could not be kept", reason=str(exc))

    def handshake_failed(self, peer_address: str, reason: str) -> None:
        """Tell of a client whose certificate is not accepted."""
        connection = Connection(channel=self.name, identity="", peer_address=peer_address, tls=True)
        # Not counted: behind the address may stand others, whose certificates are in order.
        if self._bans.due(peer_address, "TLS"):
            self._alert(connection, f"TLS: {reason}")

    def transfer_syntax(self, abstract_syntax: str, offered: Sequence[str]) -> str | None:
        """The first offered that RSO keeps as it is; any storage or private SOP Class."""
        return accepted_syntax(abstract_syntax, offered)


def accepted_syntax(abstract_syntax: str, offered: Sequence[str]) -> str | None:
    """What the SCP takes of an offer; empty: none of these; ``None``: not this SOP Class."""
    if abstract_syntax == VERIFICATION:
        return offered[0] if offered else ""
    if not _is_storage(abstract_syntax):
        return None
    return next((t for t in offered if t not in DEFLATED and t not in _JPIP), "")


def _is_storage(uid: str) -> bool:
    if not _UID.fullmatch(uid):
        return False
    if not uid.startswith("1.2.840.10008."):
        return True  # private: kept like any other
    from pynetdicom.sop_class import uid_to_service_class  # noqa: PLC0415

    try:
        return bool(uid_to_service_class(uid).__name__ == "StorageServiceClass")
    except NotImplementedError:
        return uid.startswith("1.2.840.10008.5.1.4.1.1.")
    except Exception:
        return False


class _Handler:
    """One association of a known source."""

    def __init__(
        self, scp: DicomScp, source: Source, request: "Request", give_back: Callable[[], None]
    ) -> None:
        self._scp, self._source, self._request = scp, source, request
        self._give_back = give_back
        self._batch: Batch | None = None
        self._ahead: WriteAhead | None = None

    def _open_batch(self) -> Batch:
        if self._batch is None:
            self._batch = self._scp.context.spool.open_batch(
                Provenance(
                    channel=self._scp.name,
                    facility=self._source.facility,
                    source=self._source.identity,
                    kind=self._source.kind,
                    peer_address=self._request.peer_address,
                    opened_at=datetime.now(UTC),
                    calling_ae_title=self._request.calling_ae_title,
                    called_ae_title=self._request.called_ae_title,
                )
            )
        return self._batch

    def store(
        self, command: Command, transfer_syntax_uid: str, dataset: memoryview
    ) -> tuple[int, str]:
        """Keep a dataset; success only when it is on disk."""
        ahead, self._ahead = self._ahead, None
        try:
            self._open_batch().append(
                [dataset],
                transfer_syntax_uid=transfer_syntax_uid,
                sop_class_uid=command.sop_class_uid,
                sop_instance_uid=command.sop_instance_uid,
                ahead=ahead,
            )
        except Exception as exc:
            return self.failed(exc)
        return 0x0000, ""

    def receiving(self, command: Command, transfer_syntax_uid: str, so_far: memoryview) -> None:
        """Write a dataset while it comes in."""
        if self._ahead is None:
            self._ahead = self._open_batch().ahead(
                transfer_syntax_uid=transfer_syntax_uid,
                sop_class_uid=command.sop_class_uid,
                sop_instance_uid=command.sop_instance_uid,
            )
        self._ahead.write(so_far)

    def _forget(self) -> None:
        if self._ahead is not None:
            self._ahead.forget()
            self._ahead = None

    def open(self, command: Command, transfer_syntax_uid: str) -> Sink:
        """Begin a large dataset."""
        self._forget()
        return self._open_batch().open(
            transfer_syntax_uid=transfer_syntax_uid,
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
        )

    def failed(self, exc: Exception) -> tuple[int, str]:
        """The DIMSE status of an error (PS3.4 B.2.3)."""
        for kind, status in STATUSES:
            if isinstance(exc, kind):
                return status, str(exc)
        log.error("instance could not be kept", reason=type(exc).__name__, exc_info=exc)
        return 0x0110, "processing failure"

    def close(self) -> None:
        """End the batch."""
        self._forget()
        self._give_back()
        if self._batch is not None:
            try:
                self._batch.close()
            except RsoError as exc:
                log.warning("batch could not be closed", reason=str(exc))


@hookimpl
def rso_register_receivers() -> list[type[Receiver]]:
    """The SCP."""
    return [DicomScp]

"""The sender: C-STORE to a radiologist's PACS."""

import ipaddress
import socket
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from rso.dicom.dimse import VERIFICATION
from rso.dicom.elements import IMPLICIT_LITTLE, is_uid
from rso.plugins import (
    Health,
    Outcome,
    Outgoing,
    PermanentTransportError,
    RsoError,
    Sender,
    SenderSession,
    SendResult,
    TransientTransportError,
    classify_dimse,
    hookimpl,
)

if TYPE_CHECKING:
    # Every command loads this module; only one that associates needs what stands behind it.
    from rso.dicom.requestor import Requestor

__all__ = ["DicomScu", "DicomScuConfig", "DicomScuOptions", "rso_register_senders"]


class DicomScuConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[plugins.dicom_scu]``."""

    ae_title: Annotated[str, Meta(max_length=16, description="RSO's calling AE title")] = "RSO"
    associations: Annotated[
        int, Meta(ge=1, le=64, description="parallel associations where a destination says none")
    ] = 1


class DicomScuOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a destination."""

    ae_title: Annotated[str, Meta(max_length=16, description="the PACS' AE title")]
    host: Annotated[str, Meta(description="name or address of the PACS")]
    port: Annotated[int, Meta(ge=1, le=65535, description="its port")]
    associations: Annotated[int, Meta(ge=0, le=64, description="parallel; 0: the default")] = 0
    calling_ae_title: Annotated[str, Meta(max_length=16, description="other than RSO's")] = ""
    tls: Annotated[bool, Meta(description="connect with TLS")] = False
    ca: Annotated[str, Meta(description="PEM file of the CAs to trust")] = ""
    certificate: Annotated[str, Meta(description="PEM file of RSO's client certificate")] = ""
    key: Annotated[str, Meta(description="PEM file of its key")] = ""
    connect_seconds: Annotated[float, Meta(gt=0, description="patience to connect")] = 10.0
    answer_seconds: Annotated[float, Meta(gt=0, description="patience for an answer")] = 60.0


class DicomScu(Sender):
    """C-STORE SCU to one destination."""

    name = "dicom_scu"
    config_type = DicomScuConfig
    options_type = DicomScuOptions
    config: DicomScuConfig
    options: DicomScuOptions

    @property
    def parallel(self) -> int:
        """Associations at once."""
        return self.options.associations or self.config.associations

    @property
    def most_pairs(self) -> int:
        """Presentation contexts of an association (PS3.8 9.3.2.2)."""
        from rso.dicom.requestor import MOST_CONTEXTS  # noqa: PLC0415

        return MOST_CONTEXTS

    def open(self, wanted: Sequence[tuple[str, str]]) -> SenderSession:
        """Associate for these pairs, but those that are no UIDs and cannot be proposed."""
        proposed = [pair for pair in wanted if all(map(is_uid, pair))]
        # Nothing to propose is no association: each instance is stopped without one.
        return _Session(self._connect(proposed) if proposed else None)

    def _connect(self, contexts: Sequence[tuple[str, str]]) -> "Requestor":
        from rso.dicom.requestor import MOST_CONTEXTS, Requestor  # noqa: PLC0415

        options = self.options
        _refuse_metadata(options.host)
        return Requestor(
            options.host,
            options.port,
            called_ae_title=options.ae_title,
            calling_ae_title=options.calling_ae_title or self.config.ae_title,
            contexts=contexts[:MOST_CONTEXTS],
            context=self._tls() if options.tls else None,
            connect_seconds=options.connect_seconds,
            answer_seconds=options.answer_seconds,
        )

    def _tls(self) -> ssl.SSLContext:
        options = self.options
        try:
            context = ssl.create_default_context(cafile=options.ca or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if options.certificate:
                context.load_cert_chain(options.certificate, options.key or None)
        except (OSError, ssl.SSLError) as exc:
            raise PermanentTransportError(f"certificates cannot be read: {exc}") from exc
        return context

    def check(self) -> Health:
        """C-ECHO."""
        try:
            requestor = self._connect([(VERIFICATION, IMPLICIT_LITTLE)])
            try:
                status = requestor.echo().status
            finally:
                requestor.release()
        except RsoError as exc:
            return Health(ok=False, detail=str(exc))
        return Health(ok=status == 0, detail=f"C-ECHO answered {status:04X}")


def _refuse_metadata(host: str) -> None:
    """Link-local addresses are where clouds keep their secrets, never a PACS."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError as exc:
        raise TransientTransportError(f"{host} cannot be resolved") from exc
    if any(ipaddress.ip_address(str(a).partition("%")[0]).is_link_local for a in found):
        raise PermanentTransportError(f"{host} is a link-local address")


class _Session:
    """One association, or none where none of its pairs could be proposed."""

    def __init__(self, requestor: "Requestor | None") -> None:
        self._requestor = requestor

    def send(self, instance: Outgoing) -> SendResult:
        """One C-STORE."""
        pair = instance.sop_class_uid, instance.transfer_syntax_uid
        if self._requestor is None or pair not in self._requestor.contexts:
            return SendResult(
                outcome=Outcome.STOPPED,
                code="context",
                reason=f"the destination does not take SOP Class {pair[0]} in {pair[1]}",
            )
        response = self._requestor.store(*_identity(instance), instance.pieces)
        return SendResult(
            outcome=classify_dimse(response.status),
            code=f"{response.status:04X}",
            reason=response.comment,
        )

    def close(self) -> None:
        """Release."""
        if self._requestor is not None:
            self._requestor.release()


def _identity(instance: Outgoing) -> tuple[str, str, str]:
    return instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax_uid


@hookimpl
def rso_register_senders() -> list[type[Sender]]:
    """The SCU."""
    return [DicomScu]

"""The TLS port's certificates and rules (PS3.15 B.12, BCP 195: RFC 8996 and RFC 9325)."""

import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import structlog
from msgspec import Meta, Struct

from rso.plugins import ConfigError, Source

__all__ = ["CIPHER_SUITES", "Certificates", "Tls"]

log = structlog.get_logger(__name__)

# RFC 9325 4.2, in OpenSSL's names, and ChaCha20 for devices without AES instructions. TLS 1.3
# brings its own three, all of them sound.
CIPHER_SUITES = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)


class Tls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A second port that speaks TLS 1.2 or 1.3."""

    certificate: Annotated[str, Meta(description="PEM file of the certificate chain")]
    key: Annotated[str, Meta(description="PEM file of its key")]
    port: Annotated[int, Meta(ge=0, le=65535, description="TLS port")] = 2762
    ca: Annotated[
        str,
        Meta(description="PEM file of the CAs of client certificates, or of such certificates"),
    ] = ""
    require_client_certificate: Annotated[
        bool, Meta(description="refuse clients without a certificate")
    ] = False


class Certificates:
    """A TLS context for each connection, of the files and the sources' certificates as they are.

    OpenSSL resumes a session by its ID as long as the connection that made it stands, and Python
    cannot forbid that; sessions are of one context, so that no connection shares another's.
    """

    def __init__(self, config: Tls, sources: Callable[[], Sequence[Source]]) -> None:
        self._config = config
        self._sources = sources
        self._stamp: tuple[object, ...] = ()
        self._lock = threading.Lock()
        self.context()

    def context(self) -> ssl.SSLContext:
        """A context of its own; the last that could be made, where the files are wrong now."""
        config = self._config
        files = [f for f in (config.certificate, config.key, config.ca) if f]
        try:
            pinned = tuple(dict.fromkeys(s.certificate for s in self._sources() if s.certificate))
            stamp = (*(Path(f).stat().st_mtime_ns for f in files), pinned)
            made = self._make(pinned, told=stamp == self._stamp)
            with self._lock:
                if self._stamp and stamp != self._stamp:
                    log.info("certificates read again")
                self._made, self._stamp = made, stamp
            return made
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
            if self._stamp:
                log.error("certificates could not be read again", reason=str(exc))
                return self._made
            raise ConfigError(f"dicom_scp.tls: {exc}") from exc

    def _make(self, pinned: Sequence[str], *, told: bool) -> ssl.SSLContext:
        config = self._config
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(":".join(CIPHER_SUITES))
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        # No resumption: each association shows its certificate anew, and a revoked or renewed
        # one counts at once. Associations are long; a handshake more costs nothing.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.load_cert_chain(config.certificate, config.key)
        if config.ca:
            context.load_verify_locations(config.ca)
        for text in pinned:
            try:
                context.load_verify_locations(cadata=text)
            except (ssl.SSLError, ValueError) as exc:
                if not told:
                    log.error("a source's certificate cannot be used", reason=str(exc))
        if config.ca or pinned:
            # A client's own certificate may stand where its CA would: it is trusted as it is.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.verify_mode = ssl.CERT_OPTIONAL
        if config.require_client_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

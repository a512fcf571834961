"""The contracts of transports: what a receiver and a sender must do; ``notifier`` has the third.

A transport does I/O; the core decides. Receivers deposit into the spool, senders are driven by
the delivery loop, notifiers by the outbox, so each gets durability, retry and audit for free.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol

from msgspec import Struct

from rso.core.header import Header
from rso.core.quota import Quota

__all__ = [
    "Batch",
    "Buffer",
    "Connection",
    "Health",
    "Kind",
    "Outcome",
    "Outgoing",
    "Piece",
    "Provenance",
    "Receipt",
    "Receiver",
    "ReceiverContext",
    "SendResult",
    "Sender",
    "SenderSession",
    "Sink",
    "Source",
    "Spool",
    "WriteAhead",
]

_MOST_SHOWN = 64

Buffer = bytes | bytearray | memoryview


class Kind(StrEnum):
    """How far a source's Patient ID can be read: as an exam number, or as its own."""

    TECHNICIAN = "technician"
    INTEGRATION = "integration"


class Source(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A declared sender of one facility on one channel.

    Attributes:
        channel: Name of the receiving plugin (``dicom_scp``).
        identity: Calling AE title, FTP account, or token name.
        networks: CIDR networks it may come from; empty only with a certificate fingerprint.
        certificate_fingerprint: SHA-256 of the client certificate, hex, or empty; several with
            blanks between while one follows another.
        certificate: The client certificate itself as PEM (or several), instead; it is trusted
            without a CA, and its end is known.
        called_ae_title: When not empty the peer must call this AE title.
        password_hash: argon2 hash of the password that ``ftp`` and ``http_upload`` ask for, or
            empty; no other channel is told by it.
        cleartext: True allows unencrypted use from public networks.
        quota: How much it may send.
    """

    facility: str
    channel: str
    identity: str
    kind: Kind
    networks: tuple[str, ...] = ()
    certificate_fingerprint: str = ""
    called_ae_title: str = ""
    password_hash: str = ""
    cleartext: bool = False
    certificate: str = ""
    quota: Quota = Quota()


class Connection(Struct, frozen=True, kw_only=True):
    """A peer that asks to be let in."""

    channel: str
    identity: str
    peer_address: str
    called_ae_title: str = ""
    tls: bool = False
    certificate_fingerprint: str = ""

    @property
    def claimed(self) -> str:
        """The identity for logs and alerts, cut: a stranger chooses how long it is."""
        if len(self.identity) <= _MOST_SHOWN:
            return self.identity
        return f"{self.identity[: _MOST_SHOWN - 1]}…"


class Provenance(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a batch came from; written once, its instances refer to it."""

    channel: str
    facility: str
    source: str
    kind: Kind
    peer_address: str
    opened_at: datetime
    calling_ae_title: str = ""
    called_ae_title: str = ""
    exam_number: str = ""
    user: str = ""


class Receipt(Struct, frozen=True, kw_only=True):
    """Proof that an instance is on disk.

    Attributes:
        record_id: The spool's name for it (32 hex digits); also names it in the archive.
        size: Bytes of the dataset.
    """

    record_id: str
    header: Header
    size: int


class Sink(Protocol):
    """A dataset on its way in, of any size, in constant memory."""

    def write(self, data: Buffer) -> None:
        """Take the next bytes of the dataset (after any file meta)."""

    def commit(self) -> Receipt:
        """Return once the instance is durable; raises IntakeError otherwise."""

    def abort(self) -> None:
        """Forget what was written; nothing becomes visible. Safe to call twice."""


class WriteAhead(Protocol):
    """A dataset that is written while it comes in: saves time at its end, promises nothing."""

    def write(self, so_far: Buffer) -> None:
        """Take all bytes that are there so far; the caller keeps them, unchanged."""

    def forget(self) -> None:
        """The dataset will not be appended; idempotent."""


class Batch(Protocol):
    """One association, upload or session; safe to use from several threads."""

    id: str
    provenance: Provenance

    def append(
        self,
        dataset: Sequence[Buffer],
        *,
        transfer_syntax_uid: str,
        sop_class_uid: str = "",
        sop_instance_uid: str = "",
        ahead: WriteAhead | None = None,
    ) -> Receipt:
        """Keep one dataset (its bytes, in pieces) and return once it is durable.

        Args:
            dataset: The dataset's bytes after group 0002, in order.
            transfer_syntax_uid: How they are encoded.
            sop_class_uid: As announced by the sender; empty when nothing was announced.
            sop_instance_uid: Likewise.
            ahead: What was begun for this dataset, if it was; not used again after this.

        Raises:
            NotDicomError: Not readable; a copy is in quarantine.
            IdentifierError: The dataset's identifiers differ from the announced ones.
            NoSpaceError, VolumeError, RefusedError: Not kept.
        """

    def ahead(
        self, *, transfer_syntax_uid: str, sop_class_uid: str = "", sop_instance_uid: str = ""
    ) -> WriteAhead:
        """Begin a dataset that the caller gathers in one buffer and appends once it is whole."""

    def open(
        self,
        *,
        transfer_syntax_uid: str,
        sop_class_uid: str = "",
        sop_instance_uid: str = "",
    ) -> Sink:
        """Begin a dataset that arrives in parts; small ones stay in memory until committed."""

    def set_aside(self, data: Buffer, reason: str) -> None:
        """Copy bytes that cannot be kept as an instance into the quarantine; never raises."""

    def close(self) -> None:
        """End the batch; idempotent."""


class Spool(Protocol):
    """The one way in."""

    def open_batch(self, provenance: Provenance) -> Batch:
        """Begin a batch; its provenance becomes durable with its first instance."""

    def require_space(self, size: int) -> None:
        """Raise NoSpaceError unless ``size`` more bytes fit above the low-water mark."""

    def alert(self, kind: str, facts: Mapping[str, str]) -> None:
        """Note a security-relevant event for the audit; facts hold no patient data."""


class Health(Struct, frozen=True, kw_only=True):
    """A transport's state in words."""

    ok: bool
    detail: str = ""


def _unlimited(source: Source) -> Callable[[], None]:  # noqa: ARG001
    return lambda: None


def _unmetered(provenance: Provenance, instances: int, size: int) -> None:
    pass


class ReceiverContext(Struct, frozen=True, kw_only=True):
    """What RSO hands to a receiver.

    Attributes:
        identify: The source a connection belongs to, or ``None`` to refuse it; never blocks.
        associate: Takes one of a source's associations and returns what gives it back; ``None``
            when it has none left, or has used up its quota of today.
        require_quota: Raises QuotaError when so many instances, of so many bytes, are more than
            may still come today; counts nothing. For what is kept before it is whole.
        data_dir: A folder of the receiver's own, made for it.
    """

    spool: Spool
    identify: Callable[[Connection], Source | None]
    sources: Callable[[], Sequence[Source]]
    data_dir: Path
    associate: Callable[[Source], Callable[[], None] | None] = _unlimited
    require_quota: Callable[[Provenance, int, int], None] = _unmetered


class Receiver(ABC):
    """Takes instances in on one channel. The constructor gets the plugin's typed config.

    ``config_type`` is the Struct that the section ``[plugins.<name>]`` is decoded into; ``role``
    says which process runs it: ``receive``, or ``web`` for what is served by the web application.
    """

    name: ClassVar[str]
    config_type: ClassVar[type[Struct]]
    role: ClassVar[str] = "receive"

    def __init__(self, config: Any, context: ReceiverContext) -> None:
        self.config = config
        self.context = context

    @classmethod
    def processes(cls, config: Any) -> int:  # noqa: ARG003  (a receiver may read it)
        """How many receive processes share its port; one unless the receiver can do more."""
        return 1

    @classmethod
    def certificates(cls, config: Any) -> Sequence[str]:  # noqa: ARG003  (a receiver may read it)
        """PEM files of the certificates it shows; ``rso check`` warns before they end."""
        return ()

    @abstractmethod
    async def start(self) -> Sequence[str]:
        """Listen; return the addresses in words (``dicom://0.0.0.0:11112 (AE title RSO)``)."""

    @abstractmethod
    async def health(self) -> Health:
        """Say whether it can take instances in right now."""

    @abstractmethod
    async def close(self) -> None:
        """Stop accepting, let what is under way finish within a bound, release the port."""


class Piece(Struct, frozen=True, kw_only=True):
    """Bytes of a file: ``length`` bytes from ``offset``."""

    path: Path
    offset: int
    length: int


class Outgoing(Struct, frozen=True, kw_only=True):
    """One instance to send: its dataset is the concatenation of ``pieces``."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    pieces: tuple[bytes | Piece, ...]


class Outcome(StrEnum):
    """What a destination's answer means for one instance."""

    ACKNOWLEDGED = "acknowledged"
    RETRY = "retry"
    STOPPED = "stopped"


class SendResult(Struct, frozen=True, kw_only=True):
    """A destination's answer.

    Attributes:
        code: In the channel's terms (``A700``, ``507``).
        reason: In words, without patient data.
    """

    outcome: Outcome
    code: str
    reason: str = ""


class SenderSession(Protocol):
    """One connection to a destination; used by one thread."""

    def send(self, instance: Outgoing) -> SendResult:
        """Send one instance and return the answer; blocks.

        Raises:
            TransientTransportError: The connection broke; the instance is sent again later.
            PermanentTransportError: This instance is stopped; the session is closed after it.
        """

    def close(self) -> None:
        """End the connection in good order; never raises."""


class Sender(ABC):
    """Sends to destinations; one object for each destination.

    ``options_type`` is the Struct that a destination's ``options`` are decoded into.
    """

    name: ClassVar[str]
    config_type: ClassVar[type[Struct]]
    options_type: ClassVar[type[Struct]]

    def __init__(self, config: Any, options: Any) -> None:
        self.config = config
        self.options = options

    @property
    def parallel(self) -> int:
        """How many sessions may be open at once."""
        return 1

    @property
    def most_pairs(self) -> int:
        """For how many pairs a session can be opened; what needs others waits for the next one."""
        return 1 << 16

    @abstractmethod
    def open(self, wanted: Sequence[tuple[str, str]]) -> SenderSession:
        """Connect for these (SOP Class UID, Transfer Syntax UID) pairs; blocks.

        A pair that no session can be opened for is not the others' fault: its instances are
        stopped when they are sent.

        Raises:
            TransientTransportError: Not now (down, busy, no more associations).
            PermanentTransportError: Refused in a way that waiting does not mend.
        """

    @abstractmethod
    def check(self) -> Health:
        """Ask the destination whether it is there (C-ECHO); blocks, never raises."""

    def close(self) -> None:
        """Release what the sender itself holds."""

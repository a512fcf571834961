"""site.toml: facilities, radiologists and people, as one typed document."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from rso.core.on_call import OnCall
from rso.core.quota import Quota
from rso.core.routing import Conditions, Hours
from rso.core.transport import Kind

__all__ = [
    "AttachmentEntry",
    "ContactEntry",
    "DestinationEntry",
    "FacilityEntry",
    "RadiologistEntry",
    "SiteDocument",
    "SourceEntry",
    "TurnaroundEntry",
    "UserEntry",
]

Code = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]
Role = Literal["customer", "technician", "coordinator", "auditor", "admin"]


class _Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class SourceEntry(
    _Entry, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A sender of a facility."""

    channel: str
    identity: Annotated[str, Meta(min_length=1, max_length=128)]
    kind: Kind
    networks: list[str] = field(default_factory=list)
    certificate_fingerprint: str = ""
    called_ae_title: str = ""
    password: str = ""
    cleartext: bool = False
    certificate: str = ""
    quota: Quota = Quota()


class AttachmentEntry(
    _Entry, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A radiologist who reads for a facility."""

    code: Code
    modalities: tuple[str, ...] = ()
    priorities: tuple[Literal["stat", "urgent", "routine"], ...] = ()
    hours: tuple[Hours, ...] = ()

    @property
    def conditions(self) -> Conditions:
        """As the core takes them."""
        return Conditions(
            modalities=self.modalities, priorities=tuple(self.priorities), hours=self.hours
        )


class TurnaroundEntry(
    _Entry, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Targets in minutes from the request to the last delivery; ``None``: the site's own."""

    stat_minutes: Annotated[int, Meta(ge=1, le=525_600)] | None = None
    urgent_minutes: Annotated[int, Meta(ge=1, le=525_600)] | None = None
    routine_minutes: Annotated[int, Meta(ge=1, le=525_600)] | None = None


class FacilityEntry(
    _Entry, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A facility, complete: sources and attachments not named here end."""

    code: Code
    name: str = ""
    issuer_of_patient_id: Annotated[str, Meta(max_length=64)] = ""
    settle_seconds: Annotated[float, Meta(gt=0)] | None = None
    allow_empty_demographics: bool = False
    retention_days: Annotated[int, Meta(ge=1, le=36_500)] | None = None
    turnaround: TurnaroundEntry = TurnaroundEntry()
    quota: Quota = Quota()
    on_call: list[OnCall] = field(default_factory=list)
    escalate_minutes: Annotated[int, Meta(ge=1, le=1440)] | None = None
    sources: list[SourceEntry] = field(default_factory=list)
    radiologists: list[AttachmentEntry] = field(default_factory=list)


class ContactEntry(
    _Entry, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """How somebody is reached."""

    channel: str
    address: str
    events: tuple[str, ...] = ()
    quiet: str = ""
    timezone: str = ""
    breaks_quiet: bool | None = None


class DestinationEntry(
    _Entry, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Where a radiologist receives images."""

    code: Code
    sender: str
    egress: Literal["", "passthrough", "qualify", "restore"] = ""
    options: dict[str, Any] = field(default_factory=dict)


class RadiologistEntry(
    _Entry, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A radiologist with destinations."""

    code: Code
    name: str = ""
    contacts: list[ContactEntry] = field(default_factory=list)
    destinations: list[DestinationEntry] = field(default_factory=list)


class UserEntry(_Entry, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A person who signs in; the password may be an argon2 hash."""

    email: Annotated[str, Meta(min_length=3, max_length=254, pattern="^[^@ ]+@[^@ ]+$")]
    role: Role
    name: str = ""
    facilities: list[str] = field(default_factory=list)
    password: str = ""
    contacts: list[ContactEntry] = field(default_factory=list)


class SiteDocument(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    facility: list[FacilityEntry] = field(default_factory=list)
    radiologist: list[RadiologistEntry] = field(default_factory=list)
    user: list[UserEntry] = field(default_factory=list)

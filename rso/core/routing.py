"""Where an exam goes: the radiologists attached to its facility, and their destinations."""

from collections.abc import Sequence
from datetime import datetime, time
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from msgspec import Meta, Struct, field

from rso.core.exam import Exam

__all__ = ["Attachment", "Conditions", "Destination", "Hours", "Route", "route_exam"]


class Hours(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A daily window in a time zone; one that ends before it starts goes over midnight."""

    start: Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    end: Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    time_zone: str = "UTC"
    days: tuple[Annotated[int, Meta(ge=1, le=7)], ...] = (1, 2, 3, 4, 5, 6, 7)

    def covers(self, at: datetime) -> bool:
        """Whether a moment lies in the window; days count from Monday, 1, of its beginning."""
        local = at.astimezone(ZoneInfo(self.time_zone))
        start, end = time.fromisoformat(self.start), time.fromisoformat(self.end)
        today, now = local.isoweekday(), local.time()
        if start <= end:
            return today in self.days and start <= now < end
        yesterday = (today - 2) % 7 + 1
        return (today in self.days and now >= start) or (yesterday in self.days and now < end)


class Conditions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When an attachment applies; an empty condition always fits."""

    modalities: tuple[str, ...] = ()
    priorities: tuple[str, ...] = ()
    hours: tuple[Hours, ...] = ()


class Destination(Struct, frozen=True, kw_only=True):
    """Where a radiologist receives images.

    Attributes:
        egress: ``passthrough``, ``qualify``, ``restore``, or empty for the default rule.
        options: The sender's own, decoded by it.
    """

    code: str
    radiologist: str
    sender: str
    egress: str = ""
    options: dict[str, Any] = field(default_factory=dict)


class Attachment(Struct, frozen=True, kw_only=True):
    """A radiologist who reads for a facility, under conditions."""

    facility: str
    radiologist: str
    conditions: Conditions = Conditions()
    destinations: tuple[Destination, ...] = ()


class Route(Struct, frozen=True, kw_only=True):
    """Destinations for an exam, and in words why each radiologist was taken or passed over."""

    destinations: tuple[Destination, ...]
    because: tuple[str, ...] = ()


def route_exam(exam: Exam, attachments: Sequence[Attachment], at: datetime) -> Route:
    """Every destination of every attachment whose conditions fit; perhaps none."""
    destinations: dict[str, Destination] = {}
    because = []
    for attachment in attachments:
        obstacle = _obstacle(exam, attachment.conditions, at)
        if obstacle:
            because.append(f"{attachment.radiologist} is passed over: {obstacle}")
            continue
        if not attachment.destinations:
            because.append(f"{attachment.radiologist} fits but has no destination")
            continue
        because.append(f"{attachment.radiologist} reads this")
        destinations |= {d.code: d for d in attachment.destinations}
    if not attachments:
        because.append("no radiologist is attached to the facility")
    return Route(destinations=tuple(destinations.values()), because=tuple(because))


def _obstacle(exam: Exam, conditions: Conditions, at: datetime) -> str:
    if conditions.modalities and exam.modality not in conditions.modalities:
        return f"modality {exam.modality or '(none)'} is not {' or '.join(conditions.modalities)}"
    if conditions.priorities and exam.priority.value not in conditions.priorities:
        return f"priority {exam.priority} is not {' or '.join(conditions.priorities)}"
    if conditions.hours and not any(hours.covers(at) for hours in conditions.hours):
        return "outside their hours"
    return ""

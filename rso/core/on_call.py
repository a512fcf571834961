"""On call: who of a facility is told in turn, until somebody says that they see to it."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Meta, Struct

from rso.core.errors import ConfigError
from rso.core.exam import Priority
from rso.core.routing import Hours

__all__ = ["ESCALATE_MINUTES", "OnCall", "check_on_call", "needs_a_person", "next_on_call"]

ESCALATE_MINUTES = 10
# These wait for a person whatever the priority.
_WAITING = frozenset({"study_held", "delivery_failed", "release_recalled", "exam_overdue"})


class OnCall(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One person of the list; without hours always.

    Attributes:
        person: The email of a user.
    """

    person: Annotated[str, Meta(min_length=3, max_length=254)]
    hours: tuple[Hours, ...] = ()

    def is_on(self, at: datetime) -> bool:
        """Whether the person is on call at a moment."""
        return not self.hours or any(hours.covers(at) for hours in self.hours)


def needs_a_person(event: str, priority: Priority | None) -> bool:
    """Whether somebody has to see to it soon: what waits, and requests that are not routine."""
    if event == "exam_created":
        return priority in {Priority.STAT, Priority.URGENT}
    return event in _WAITING


def next_on_call(people: Sequence[OnCall], at: datetime, but: Collection[str] = ()) -> list[str]:
    """Those on call at a moment in their order, without those who were told already."""
    found = (entry.person.lower() for entry in people if entry.is_on(at))
    return [person for person in dict.fromkeys(found) if person not in but]


def check_on_call(people: Sequence[OnCall]) -> None:
    """Raise ConfigError for hours in a time zone that does not exist."""
    for entry in people:
        for hours in entry.hours:
            try:
                ZoneInfo(hours.time_zone)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise ConfigError(
                    f"{entry.person}, on call: there is no time zone {hours.time_zone}"
                ) from None

"""A cursor of the Active patient list: a place in its order, and the way to go from there.

It holds the place itself and no exam's key alone: when the exam that stood there is delivered,
changed or gone, the page still begins where it began.
"""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from rso.ledger.active_order import Segment

__all__ = ["TROUBLE", "Cursor", "place_text", "read_cursor"]

TROUBLE = -1  # stands before the first segment
_TIMES = ("due_at", "created_at")


class Cursor(Struct, frozen=True, array_like=True):
    """Behind an exam; or, ``back``, all up to that exam and with it.

    Attributes:
        segment: Its index, or ``TROUBLE``.
        column: What the segment is ordered by; a cursor of another order is none of this one.
        value: Of the column, as text.
        id: The exam's key.
    """

    back: bool
    segment: int
    column: str
    value: str
    id: str

    @property
    def key(self) -> tuple[Any, str]:
        """What the database compares."""
        value = datetime.fromisoformat(self.value) if self.column in _TIMES else self.value
        return value, self.id

    def text(self) -> str:
        """For a form's field: it may hold a name, which belongs in no URL."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode()


def place_text(value: Any) -> str:
    """A column's value as a cursor holds it; moments in UTC, so that text sorts as they do."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(sep=" ", timespec="microseconds")
    return str(value)


def read_cursor(text: str, segments: Sequence[Segment], *, trouble: bool) -> Cursor | None:
    """The cursor, if it is one of a list of these segments; else the list begins at its top."""
    if not text:
        return None
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(text), type=Cursor)
        columns = {i: segment.column for i, segment in enumerate(segments)}
        if trouble:
            columns[TROUBLE] = ""
        if columns.get(found.segment) != found.column or found.id != str(UUID(found.id)):
            return None
        found.key  # noqa: B018  (a moment that is none)
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        return None
    return found

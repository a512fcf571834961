"""Places in a list as text: the time of a page's last row and its key, whatever comes meanwhile."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from litestar.exceptions import ValidationException

from rso.web.typed import whole_number

__all__ = ["cursor_of", "place_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = 32_503_680_000_000_000  # of the year 3000, in microseconds: each database has it


def cursor_of(at: datetime, key: Any) -> str:
    """A place as the next request names it."""
    return f"{(at - _EPOCH) // timedelta(microseconds=1)}_{key}"


def place_of(cursor: str) -> tuple[datetime, str]:
    """The place that a cursor names.

    Raises:
        ValidationException: It names none.
    """
    at, _, key = cursor.partition("_")
    number = whole_number(at)
    try:
        if number is None or number > _LAST:
            raise ValueError
        return _EPOCH + timedelta(microseconds=number), str(UUID(key))
    except ValueError:
        raise ValidationException("the cursor is not one of this list") from None

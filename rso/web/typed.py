"""What people type into a form, read: whole numbers, and times in UTC."""

from datetime import UTC, datetime

from rso.core.errors import ConfigError

__all__ = ["in_utc", "time_in", "whole_number"]

_DIGITS = 18  # what a column of 64 bits holds


def whole_number(text: str) -> int | None:
    """A number of at most eighteen digits; ``None`` where it is none."""
    fits = text.isascii() and text.isdecimal() and len(text) <= _DIGITS
    return int(text) if fits else None


def time_in(text: str) -> datetime | None:
    """A moment as a form's field sends it; ``None`` where it is empty.

    Raises:
        ConfigError: It is none.
    """
    if not text:
        return None
    try:
        return in_utc(datetime.fromisoformat(text))
    except ValueError:
        raise ConfigError("a time is written as 2026-03-01T14:30, in UTC") from None


def in_utc(at: datetime | None) -> datetime | None:
    """A moment without a zone is in UTC."""
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at

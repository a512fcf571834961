"""How fast messages leave: a provider that comes back gets no flood."""

from datetime import datetime

__all__ = ["Pace"]


class Pace:
    """So many a minute, a tenth of them at once; the clock is the caller's.

    Args:
        per_minute: Most messages in the long run.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_second = per_minute / 60
        self._most = max(per_minute / 10, 1.0)
        self._left = self._most
        self._at: datetime | None = None

    def left(self, at: datetime) -> int:
        """How many may leave at a moment."""
        if self._at is not None and at > self._at:
            grown = (at - self._at).total_seconds() * self._per_second
            self._left = min(self._left + grown, self._most)
        self._at = at
        return max(int(self._left), 0)

    def take(self, count: int) -> None:
        """Count what leaves; what could not wait is made up for by what comes next."""
        self._left -= count

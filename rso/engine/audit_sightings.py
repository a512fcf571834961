"""Sightings: who looked at which exam or hold, in the audit before it is shown."""

from time import monotonic

from rso.ledger import Ledger, audit

__all__ = ["Sightings"]

_AGAIN_SECONDS = 15 * 60.0
# A page that stays open asks by itself for as long as its session lasts.
_REFRESH_SECONDS = 24 * 3600.0
_MOST = 10_000


class Sightings:
    """The sightings of this process: one in a quarter of an hour for a person and what they see.

    What was noted lately is remembered here alone; another process, or the next start, notes it
    once more, which does no harm.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._noted: dict[tuple[str, str, str], float] = {}

    def is_due(self, actor: str, action: str, about: str, *, refresh: bool = False) -> bool:
        """Whether it was not noted lately that somebody sees something.

        Args:
            actor: Who looks.
            action: One of ``audit.SIGHTINGS``.
            about: The key of what is seen.
            refresh: A page that is open renews itself, or loads its pictures. That is due only
                where nothing says that the person opened it, so that no header hides a look.
        """
        last = self._noted.get((actor, action, about))
        most = _REFRESH_SECONDS if refresh else _AGAIN_SECONDS
        return last is None or monotonic() - last >= most

    async def note(
        self, actor: str, action: str, about: str, *, facility: str, exam: str = "", **facts: str
    ) -> None:
        """Write it down; facts hold no patient data."""
        key, at = (actor, action, about), monotonic()
        await audit.append(
            self._ledger, actor=actor, action=action, facility=facility, exam=exam, facts=facts
        )
        self._noted.pop(key, None)
        self._noted[key] = at
        if len(self._noted) > _MOST:
            del self._noted[next(iter(self._noted))]

"""Peers that failed too often are not looked at for a while."""

import threading
import time

__all__ = ["Bans"]

_AFTER = 20
_SECONDS = 300.0
_MOST_PEERS = 10_000
_ALERT_EVERY_SECONDS = 60.0

Key = tuple[str, str]


class Bans:
    """Failures by address and claimed name; safe to use from several threads.

    A whole address is never banned: a clinic sits behind one, with all its devices.
    """

    def __init__(self, after: int = _AFTER, seconds: float = _SECONDS) -> None:
        self._after, self._seconds = after, seconds
        self._failures: dict[Key, list[float]] = {}
        self._alerted: dict[Key, float] = {}
        self._lock = threading.Lock()

    def banned(self, key: Key) -> bool:
        """Whether this peer has to wait."""
        with self._lock:
            return len(self._recent(key)) >= self._after

    def failed(self, key: Key) -> bool:
        """Count a failure; True when it is time to alert somebody, at most once a minute."""
        now = time.monotonic()
        with self._lock:
            if len(self._failures) > _MOST_PEERS:
                self._failures.clear()
                self._alerted.clear()
            self._failures[key] = [*self._recent(key), now][-self._after :]
            due = now - self._alerted.get(key, -1e9) > _ALERT_EVERY_SECONDS
            if due:
                self._alerted[key] = now
            return due

    def _recent(self, key: Key) -> list[float]:
        since = time.monotonic() - self._seconds
        return [at for at in self._failures.get(key, []) if at > since]

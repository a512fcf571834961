"""Peers that failed too often are not looked at for a while.

Failures are counted in each process's memory; a ban is a small file, so every process sees it, it
outlives a restart, and a person can see and lift it.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import Struct

from rso.core.hosts import host_of

__all__ = ["Ban", "Bans"]

_AFTER = 20
_SECONDS = 300.0
_STRANGER_AFTER = 5  # times as many, under whatever names
_MOST_PEERS = 10_000
_MOST_BANS = 10_000
_ALERT_EVERY_SECONDS = 60.0
_ALERTS_AN_ADDRESS = 10  # in that time, under whatever names

Key = tuple[str, str]


class Ban(Struct, frozen=True, kw_only=True):
    """A peer that is refused unseen until ``until`` (seconds since the epoch).

    Attributes:
        name: The name that it claimed; empty: everything from this address.
    """

    address: str
    name: str
    until: float


class Bans:
    """Failures by address and claimed name; safe to use from several threads.

    An address that a source was declared for is never banned as a whole: a clinic sits behind
    one, with all its devices. Other addresses are, when they try many names.
    """

    def __init__(self, folder: Path, after: int = _AFTER, seconds: float = _SECONDS) -> None:
        self._folder = folder
        self._after, self._seconds = after, seconds
        self._failures: dict[Key, list[float]] = {}
        self._alerted: dict[Key, float] = {}
        self._alerts: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def banned(self, address: str, name: str) -> bool:
        """Whether this peer has to wait."""
        host = host_of(address)
        return any(self._standing(self._path((host, n))) is not None for n in (name, ""))

    def failed(self, address: str, name: str, *, stranger: bool = False) -> bool:
        """Count a failure; True when it is time to alert somebody.

        That is at most once a minute for a peer, and ten times for an address. What a peer tries
        while its name is banned does not count against the name: a device that tries again by
        itself would be banned for ever, though its fault is mended.

        Args:
            address: Where it came from.
            name: What it called itself.
            stranger: Nobody declared the address, so that it can be banned as a whole.
        """
        host, now = host_of(address), time.monotonic()
        banned = self._standing(self._path((host, name))) is not None
        with self._lock:
            if len(self._failures) > _MOST_PEERS:
                self._failures.clear()
                self._alerted.clear()
                self._alerts.clear()
            if not banned:
                self._count((host, name), self._after, now)
            if stranger and name:
                self._count((host, ""), self._after * _STRANGER_AFTER, now)
            return self._due((host, name), now)

    def due(self, address: str, name: str) -> bool:
        """Whether it is time to alert somebody of a peer, without counting against it."""
        with self._lock:
            return self._due((host_of(address), name), time.monotonic())

    def _count(self, key: Key, most: int, now: float) -> None:
        recent = [at for at in self._failures.get(key, []) if at > now - self._seconds]
        self._failures[key] = [*recent, now][-most:]
        if len(self._failures[key]) >= most:
            del self._failures[key]
            self._ban(key)

    def _due(self, key: Key, now: float) -> bool:
        since = now - _ALERT_EVERY_SECONDS
        alerts = [at for at in self._alerts.get(key[0], []) if at > since]
        due = self._alerted.get(key, -1e9) <= since and len(alerts) < _ALERTS_AN_ADDRESS
        if due:
            self._alerted[key] = now
            alerts.append(now)
        self._alerts[key[0]] = alerts
        return due

    def _ban(self, key: Key) -> None:
        with suppress(OSError):  # without a disk there is no list, and no harm in that
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if sum(1 for _ in self.list(self._folder)) < _MOST_BANS:
                ban = Ban(address=key[0], name=key[1], until=time.time() + self._seconds)
                path = self._path(key)
                part = path.with_suffix(".part")
                part.write_bytes(msgspec.json.encode(ban))
                part.rename(path)

    def _path(self, key: Key) -> Path:
        # Names are text from outside: no path is made of them.
        return self._folder / f"{sha256(chr(0).join(key).encode()).hexdigest()[:32]}.ban"

    @staticmethod
    def _standing(path: Path) -> Ban | None:
        try:
            ban = msgspec.json.decode(path.read_bytes(), type=Ban)
        except (OSError, msgspec.DecodeError):
            return None
        if ban.until > time.time():
            return ban
        path.unlink(missing_ok=True)
        return None

    @classmethod
    def list(cls, folder: Path) -> Iterator[Ban]:
        """The bans of a folder that stand; the others are swept out."""
        for path in sorted(folder.glob("*.ban")):
            if (ban := cls._standing(path)) is not None:
                yield ban

    @classmethod
    def clear(cls, folder: Path, address: str = "") -> int:
        """Lift the bans of an address, or all of them; returns how many."""
        lifted = 0
        for path in folder.glob("*.ban"):
            ban = cls._standing(path)
            if ban is not None and address in {"", ban.address}:
                path.unlink(missing_ok=True)
                lifted += 1
        return lifted

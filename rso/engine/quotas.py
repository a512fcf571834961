"""Quotas, counted across the processes of a machine: small files, locked while they change.

A counter is not synced: after a power failure it may have forgotten its last seconds. Slots of
associations are locks, so those of a process that was killed are free at once.
"""

import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from rso.core.errors import QuotaError
from rso.core.quota import Quota
from rso.core.transport import Provenance, Source
from rso.engine.snapshot import Snapshot, SourceSnapshot

__all__ = ["Quotas", "Usage"]

_COUNTER = struct.Struct("<qqq")  # day, instances, bytes
_DAY_SECONDS = 86_400
_ALERT_EVERY_SECONDS = 3600.0
Key = tuple[str, ...]
Alert = Callable[[str, Mapping[str, str]], None]


class Usage(Struct, frozen=True, kw_only=True):
    """What was taken of a quota today, and how many associations are open."""

    name: str
    quota: Quota
    instances: int
    bytes: int
    associations: int


class Quotas:
    """The quotas of sources and facilities, and what was taken of them.

    ``alert`` is told of each that is used up, once an hour.
    """

    def __init__(self, folder: Path, snapshot: SourceSnapshot) -> None:
        self._folder = folder
        self._snapshot = snapshot
        self.alert: Alert | None = None
        self._alerted: dict[Key, float] = {}
        self._counters: dict[Key, _Counter] = {}
        self._lock = threading.Lock()
        self._known: tuple[Snapshot | None, dict[Key, Quota]] = None, {}

    def _quotas(self) -> dict[Key, Quota]:
        """Every quota by its key: (facility,) or (facility, channel, identity)."""
        current = self._snapshot.current()
        known, quotas = self._known
        if known is not current:
            quotas = {(code,): quota for code, quota in current.facilities.items()}
            quotas |= {_key(s): s.quota for s in current.sources if s.quota != Quota()}
            self._known = current, quotas
        return quotas

    def _of(self, *keys: Key) -> list[tuple[Key, Quota]]:
        quotas = self._quotas()
        return [(key, quotas[key]) for key in keys if key in quotas] if quotas else []

    def take(self, provenance: Provenance, size: int) -> Callable[[], None]:
        """Count one instance of ``size`` bytes; returns what takes it back.

        Raises:
            QuotaError: It is more than may be sent today.
        """
        taken: list[_Counter] = []

        def undo() -> None:
            for counter in taken:
                counter.add(Quota(), -1, -size)

        for key, quota in self._of(*_keys(provenance)):
            counter = self._counter(key)
            if not counter.add(quota, 1, size):
                undo()
                self._note(key, "the quota of today is used up")
                raise QuotaError("the quota of today is used up, try again later")
            taken.append(counter)
        return undo

    def require(self, provenance: Provenance, instances: int, size: int) -> None:
        """Look whether so much may still come today; counts nothing.

        Raises:
            QuotaError: It may not.
        """
        for key, quota in self._of(*_keys(provenance)):
            if not self._counter(key).fits(quota, instances, size):
                self._note(key, "more than is left of the quota of today")
                raise QuotaError("more than is left of the quota of today, try again later")

    def associate(self, source: Source) -> Callable[[], None] | None:
        """One of the source's associations, as what gives it back; ``None``: there is none left."""
        slots: list[int] = []

        def give_back() -> None:
            for descriptor in slots:
                os.close(descriptor)
            slots.clear()

        for key, quota in self._of((source.facility,), _key(source)):
            if not self._counter(key).fits(quota, 1, 1):
                self._note(key, "the quota of today is used up")
                give_back()
                return None
            if quota.associations:
                slot = self._slot(key, quota.associations)
                if slot is None:
                    self._note(key, f"more than {quota.associations} associations at once")
                    give_back()
                    return None
                slots.append(slot)
        return give_back

    def usage(self) -> Iterator[Usage]:
        """Every quota with what was taken of it."""
        for key, quota in sorted(self._quotas().items()):
            instances, size = self._counter(key).read()
            yield Usage(
                name="/".join(key),
                quota=quota,
                instances=instances,
                bytes=size,
                associations=self._open(key, quota.associations),
            )

    def _counter(self, key: Key) -> "_Counter":
        with self._lock:
            if key not in self._counters:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._counters[key] = _Counter(self._folder / f"{_name(key)}.count")
            return self._counters[key]

    def _slots(self, key: Key, most: int) -> Iterator[int | None]:
        """Each slot's descriptor, locked; ``None`` for one that is taken."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for number in range(most):
            path = self._folder / f"{_name(key)}.{number}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                yield None
            else:
                yield descriptor

    def _slot(self, key: Key, most: int) -> int | None:
        return next((slot for slot in self._slots(key, most) if slot is not None), None)

    def _open(self, key: Key, most: int) -> int:
        taken = 0
        for slot in self._slots(key, most):
            if slot is None:
                taken += 1
            else:
                os.close(slot)
        return taken

    def _note(self, key: Key, reason: str) -> None:
        now = time.monotonic()
        with self._lock:
            due = now - self._alerted.get(key, -1e9) > _ALERT_EVERY_SECONDS
            if due:
                self._alerted[key] = now
        if due and self.alert is not None:
            facts = {"facility": key[0], "source": "/".join(key[1:]), "reason": reason}
            self.alert("quota exceeded", facts)

    def close(self) -> None:
        """Close the counters."""
        with self._lock:
            for counter in self._counters.values():
                counter.close()
            self._counters.clear()


class _Counter:
    """Instances and bytes of today in a file."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def add(self, quota: Quota, instances: int, size: int) -> bool:
        """Count; False, and nothing counted, when that is more than the quota."""
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                day, counted, counted_bytes = self._read()
                counted, counted_bytes = counted + instances, counted_bytes + size
                if _exceeds(quota, counted, counted_bytes):
                    return False
                data = _COUNTER.pack(day, max(counted, 0), max(counted_bytes, 0))
                os.pwrite(self._file, data, 0)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        return True

    def fits(self, quota: Quota, instances: int, size: int) -> bool:
        """Whether so much may still come today."""
        counted, counted_bytes = self.read()
        return not _exceeds(quota, counted + instances, counted_bytes + size)

    def read(self) -> tuple[int, int]:
        """Instances and bytes of today."""
        return self._read()[1:]

    def _read(self) -> tuple[int, int, int]:
        today = int(time.time()) // _DAY_SECONDS
        data = os.pread(self._file, _COUNTER.size, 0)
        if len(data) == _COUNTER.size:
            day, instances, size = _COUNTER.unpack(data)
            if day == today:
                return day, instances, size
        return today, 0, 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _exceeds(quota: Quota, instances: int, size: int) -> bool:
    most, most_bytes = quota.instances_per_day, quota.bytes_per_day
    return bool((most and instances > most) or (most_bytes and size > most_bytes))


def _keys(provenance: Provenance) -> tuple[Key, Key]:
    own = (provenance.facility, provenance.channel, provenance.source)
    return (provenance.facility,), own


def _key(source: Source) -> Key:
    return source.facility, source.channel, source.identity


def _name(key: Key) -> str:
    # Identities are text from outside: no path is made of them.
    return sha256("\0".join(key).encode()).hexdigest()[:32]

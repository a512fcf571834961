"""The names that accounts gave their folders and files.

A name is only a label here: the bytes of a kept file are in the spool, those of an incomplete
one in a part file with a name of RSO's own. Names outlive a restart, so that a mirror goes on.
"""

import sqlite3
import threading
import time
from pathlib import Path, PurePosixPath

import msgspec
from msgspec import Struct

from rso.plugins import Provenance

__all__ = ["Name", "Names"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS name (
  account TEXT NOT NULL, path TEXT NOT NULL, folder TEXT NOT NULL, kind TEXT NOT NULL,
  size INTEGER NOT NULL, modified REAL NOT NULL, part TEXT NOT NULL, provenance BLOB,
  changed_at REAL NOT NULL, PRIMARY KEY (account, path));
CREATE INDEX IF NOT EXISTS name_folder ON name (account, folder);
CREATE INDEX IF NOT EXISTS name_changed ON name (changed_at);
"""
_COLUMNS = "path, kind, size, modified, part, provenance"
_MOST_NAMES = 500_000
# A kept file looks old until its client says when it was changed: no mirror takes another
# file of the same name and size for this one, and leaves it out.
LONG_AGO = 315_532_800.0


class Name(Struct, frozen=True, kw_only=True):
    """One entry of an account's view; ``kind`` is folder, kept or part."""

    path: str
    kind: str
    size: int = 0
    modified: float = LONG_AGO
    part: str = ""
    provenance: Provenance | None = None


class Names:
    """All accounts' names in one small database; safe to use from several threads."""

    def __init__(self, file: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        # A name lost in a crash costs a repeated upload, never an image.
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.executescript(_SCHEMA)

    def _rows(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()

    def find(self, account: str, path: str) -> Name | None:
        """The entry at a path; the root is always a folder."""
        if path == "/":
            return Name(path="/", kind="folder", modified=time.time())
        found = self._rows(
            f"SELECT {_COLUMNS} FROM name WHERE account = ? AND path = ?",  # noqa: S608
            account,
            path,
        )
        return _name(found[0]) if found else None

    def children(self, account: str, folder: str) -> list[Name]:
        """What is in a folder."""
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM name WHERE account = ? AND folder = ?",  # noqa: S608
            account,
            folder,
        )
        return sorted(map(_name, rows), key=lambda name: name.path)

    def put(self, account: str, name: Name) -> None:
        """Add an entry, or change the one at its path."""
        provenance = msgspec.json.encode(name.provenance) if name.provenance else None
        self._rows(
            "INSERT OR REPLACE INTO name VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            account, name.path, str(PurePosixPath(name.path).parent), name.kind,
            name.size, name.modified, name.part, provenance, time.time(),
        )  # fmt: skip

    def remove(self, account: str, path: str) -> None:
        """Forget an entry."""
        self._rows("DELETE FROM name WHERE account = ? AND path = ?", account, path)

    def waiting(self, account: str) -> dict[str, int]:
        """The bytes of each incomplete file of an account, by path."""
        rows = self._rows(
            "SELECT path, size FROM name WHERE account = ? AND kind = 'part'", account
        )
        return {str(path): int(str(size)) for path, size in rows}

    def stale_parts(self, older_than: float) -> list[tuple[str, Name]]:
        """Incomplete files, with their accounts, that nobody went on with."""
        rows = self._rows(
            f"SELECT account, {_COLUMNS} FROM name"  # noqa: S608
            " WHERE kind = 'part' AND changed_at < ?",
            older_than,
        )
        return [(str(row[0]), _name(row[1:])) for row in rows]

    def forget(self, older_than: float) -> None:
        """Drop old names of what is kept, and the oldest where there are too many."""
        self._rows("DELETE FROM name WHERE kind <> 'part' AND changed_at < ?", older_than)
        self._rows(
            "DELETE FROM name WHERE kind <> 'part' AND changed_at <= (SELECT changed_at FROM name"
            " ORDER BY changed_at DESC LIMIT 1 OFFSET ?)",
            _MOST_NAMES,
        )

    def parts(self) -> set[str]:
        """The part files in use."""
        return {str(row[0]) for row in self._rows("SELECT part FROM name WHERE kind = 'part'")}

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()


def _name(row: tuple[object, ...]) -> Name:
    path, kind, size, modified, part, provenance = row
    said = None
    if isinstance(provenance, bytes):
        said = msgspec.json.decode(provenance, type=Provenance)
    return msgspec.convert(
        {"path": path, "kind": kind, "size": size, "modified": modified, "part": part,
         "provenance": said},
        Name,
    )  # fmt: skip

"""SQLite: WAL, synchronous=FULL, one writing connection and a few that only read."""

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from piccolo.engine.sqlite import SQLiteEngine

from rso.ledger.ledger import LedgerUnavailable, LedgerValueError

__all__ = ["SqliteDriver"]

_T = TypeVar("_T")
_BUSY_SECONDS = 30.0
_READERS = 4
_POLL_SECONDS = 0.5
# What passes, or a person mends while RSO runs; anything else is a fault of the program.
_AWAY = {
    sqlite3.SQLITE_BUSY: "the database is locked",
    sqlite3.SQLITE_LOCKED: "the database is locked",
    sqlite3.SQLITE_FULL: "the database has no room",
    sqlite3.SQLITE_IOERR: "the database's volume fails",
    sqlite3.SQLITE_READONLY: "the database cannot be written",
    sqlite3.SQLITE_CANTOPEN: "the database cannot be opened",
}
_inside: ContextVar[bool] = ContextVar("sqlite_transaction", default=False)


class _Engine(SQLiteEngine):
    """Piccolo's engine on the driver's connections instead of one connection a query."""

    __slots__ = ("driver",)

    def __init__(self, path: str, driver: "SqliteDriver") -> None:
        super().__init__(path=path)
        self.driver = driver

    async def run_querystring(self, querystring: Any, in_pool: bool = False) -> Any:  # noqa: ARG002
        sql, values = querystring.compile_string(engine_type=self.engine_type)
        return await self.driver.fetch(sql, values or ())

    async def run_ddl(self, ddl: str, in_pool: bool = False) -> Any:  # noqa: ARG002
        return await self.driver.fetch(ddl, ())


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value


def _adapt(value: Any) -> Any:
    if value is None or type(value) is str:
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(sep=" ", timespec="microseconds")
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise LedgerValueError("nothing is called like that")
    return value


class SqliteDriver:
    """The connections of one process."""

    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.engine = _Engine(str(path), self)
        self._write_lock = asyncio.Lock()
        self._writer_thread = ThreadPoolExecutor(1, "ledger-writer")
        self._reader_threads = ThreadPoolExecutor(_READERS, "ledger-reader")
        self._readers: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._writer: sqlite3.Connection | None = None

    @classmethod
    async def open(cls, path: str) -> "SqliteDriver":
        """Open or make the file."""
        driver = cls(Path(path))
        driver.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _close_to_others(driver.path)
        driver._writer = await driver._guard(lambda: driver._in_writer(driver._connect))
        for _ in range(_READERS):
            driver._readers.put(await driver._in_writer(driver._connect_reader))
        return driver

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            detect_types=sqlite3.PARSE_DECLTYPES,
            check_same_thread=False,
        )
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "cache_size=-65536",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        return connection

    def _connect_reader(self) -> sqlite3.Connection:
        connection = self._connect()
        connection.execute("PRAGMA query_only=1")
        return connection

    async def _in_writer(self, work: Callable[[], _T]) -> _T:
        future = asyncio.get_running_loop().run_in_executor(self._writer_thread, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # The statement runs on; nobody may use the connection before it is done.
            with contextlib.suppress(Exception):
                await future
            raise

    async def fetch(self, sql: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        if _inside.get():
            return await self._guard(lambda: self._in_writer(lambda: _rows(self._w, sql, values)))
        if sql.lstrip()[:6].upper() == "SELECT":
            loop = asyncio.get_running_loop()
            return await self._guard(
                lambda: loop.run_in_executor(self._reader_threads, self._read, sql, values)
            )
        async with self.begin():
            return await self._guard(lambda: self._in_writer(lambda: _rows(self._w, sql, values)))

    @property
    def _w(self) -> sqlite3.Connection:
        assert self._writer is not None
        return self._writer

    def _read(self, sql: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        connection = self._readers.get()
        try:
            return _rows(connection, sql, values)
        finally:
            self._readers.put(connection)

    async def _guard(self, work: Callable[[], Awaitable[_T]]) -> _T:
        try:
            return await work()
        except sqlite3.OperationalError as exc:
            # The extended codes have the plain one in their lowest byte.
            if why := _AWAY.get((exc.sqlite_errorcode or 0) & 0xFF):
                raise LedgerUnavailable(f"{why}: {exc}") from exc
            raise

    async def execute(self, sql: str, values: Sequence[Any]) -> int:
        async with self.begin():
            return await self._guard(lambda: self._in_writer(lambda: _run(self._w, sql, values)))

    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        adapted = [[_adapt(v) for v in row] for row in rows]
        async with self.begin():
            await self._guard(lambda: self._in_writer(lambda: self._w.executemany(sql, adapted)))

    async def script(self, sql: str) -> None:
        for statement in filter(str.strip, sql.split(";")):
            await self.execute(statement, ())

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[None]:
        """BEGIN IMMEDIATE … COMMIT; an inner one joins the outer."""
        if _inside.get():
            yield
            return
        async with self._write_lock:
            try:
                await self._guard(lambda: self._in_writer(self._begin))
            except BaseException:  # cancelled while it waited: it may have begun all the same
                await self._in_writer(self._roll_back)
                raise
            token = _inside.set(True)
            try:
                yield
            except BaseException:
                await self._in_writer(self._roll_back)
                raise
            else:
                await self._guard(lambda: self._in_writer(self._commit))
            finally:
                _inside.reset(token)

    def _begin(self) -> None:
        self._w.execute("BEGIN IMMEDIATE")

    def _commit(self) -> None:
        try:
            self._w.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._w.in_transaction:
            self._w.execute("ROLLBACK")

    @contextlib.asynccontextmanager
    async def migration_lock(self) -> AsyncIterator[None]:
        """A lock file beside the database."""
        lock = self.path.with_suffix(".migrate.lock")
        with open(lock, "w", opener=_private) as file:
            await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
            yield

    async def changes(self) -> AsyncGenerator[frozenset[str] | None, None]:
        """Read the counters that triggers keep, twice a second."""
        sql = "SELECT facility, revision FROM facility_change"
        known = await self._revisions(sql)
        yield None
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            found = await self._revisions(sql)
            if changed := frozenset(f for f, revision in found.items() if known.get(f) != revision):
                yield changed
            known = found

    async def _revisions(self, sql: str) -> dict[str, int]:
        return {row["facility"]: row["revision"] for row in await self.fetch(sql, ())}

    async def close(self) -> None:
        """Close every connection and end the threads."""
        if self._writer is not None:
            await self._in_writer(self._writer.close)
            self._writer = None
        self._reader_threads.shutdown()
        while not self._readers.empty():
            self._readers.get().close()
        self._writer_thread.shutdown()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _close_to_others(path: Path) -> None:
    """Make the file for its owner alone, whatever the umask; an earlier one is closed to others.

    What SQLite puts beside it takes its mode. A group that somebody let in stays.
    """
    with contextlib.suppress(OSError):
        # Only if new: to close an open one would end every lock that this process has on it.
        os.close(_private(str(path), os.O_RDWR | os.O_CREAT | os.O_EXCL))
    for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        with contextlib.suppress(OSError):  # not there, or not ours to change
            mode = stat.S_IMODE(file.stat().st_mode)
            if mode & 0o007:
                file.chmod(mode & ~0o007)


def _rows(connection: sqlite3.Connection, sql: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    cursor = connection.execute(sql, [_adapt(v) for v in values])
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, map(_plain, row), strict=True)) for row in cursor.fetchall()]


def _run(connection: sqlite3.Connection, sql: str, values: Sequence[Any]) -> int:
    return connection.execute(sql, [_adapt(v) for v in values]).rowcount

"""PostgreSQL: an asyncpg pool behind the same interface."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import asyncpg
from piccolo.engine.postgres import PostgresEngine

from rso.ledger.ledger import LedgerUnavailable, LedgerValueError

__all__ = ["PostgresDriver"]

_CLOSE_SECONDS = 10.0
_ALIVE_SECONDS = 10.0
_TOGETHER_SECONDS = 0.2  # changes that come in one go are told as one
_MIGRATION_LOCK = 0x52534F  # "RSO"
_inside: ContextVar[Any] = ContextVar("postgres_transaction", default=None)
_AWAY = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.InterfaceError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)
# What it undoes so that others may go on (a deadlock) can be done again.
_UNDONE = (asyncpg.exceptions.TransactionRollbackError,)


class _Engine(PostgresEngine):
    """Piccolo's engine on the driver's pool."""

    __slots__ = ("driver",)

    def __init__(self, driver: "PostgresDriver") -> None:
        self.driver = driver
        super().__init__(config={}, extensions=())

    async def get_version(self) -> float:
        return 15.0

    def get_version_sync(self) -> float:
        return 15.0

    async def check_version(self) -> None:
        """The driver checks by connecting."""

    async def run_querystring(self, querystring: Any, in_pool: bool = True) -> Any:  # noqa: ARG002
        sql, values = querystring.compile_string(engine_type=self.engine_type)
        return await self.driver.run(lambda c: c.fetch(sql, *values), convert=True)

    async def run_ddl(self, ddl: str, in_pool: bool = True) -> Any:  # noqa: ARG002
        return await self.driver.run(lambda c: c.fetch(ddl), convert=True)


def _binary(sql: str) -> str:
    """SQLite's word for comparing byte by byte, in PostgreSQL's."""
    return sql.replace("COLLATE BINARY", 'COLLATE "C"')


@lru_cache(maxsize=1024)
def _numbered(sql: str) -> str:
    """``?`` marks as $1, $2 …; the ledger's SQL has none inside literals."""
    parts = _binary(sql).split("?")
    return "".join(f"{part}${i}" for i, part in enumerate(parts[:-1], 1)) + parts[-1]


def _plain(value: Any) -> Any:
    if isinstance(value, asyncpg.pgproto.pgproto.UUID | UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return value


class PostgresDriver:
    """The pool of one process."""

    kind = "postgres"

    def __init__(self, pool: Any, url: str) -> None:
        self._pool = pool
        self._url = url
        self.engine = _Engine(self)

    @classmethod
    async def open(cls, url: str) -> "PostgresDriver":
        """Connect.

        Raises:
            LedgerUnavailable: Nothing answers there.
        """
        try:
            pool = await asyncpg.create_pool(url, min_size=1, max_size=8, init=_prepare)
        except (*_AWAY, asyncpg.PostgresError) as exc:
            raise LedgerUnavailable(f"PostgreSQL does not answer: {exc}") from exc
        return cls(pool, url)

    async def run(self, work: Any, *, convert: bool = False) -> Any:
        """Call ``work`` with this task's connection, or one of the pool."""
        try:
            if (connection := _inside.get()) is not None:
                result = await work(connection)
            else:
                async with self._pool.acquire(timeout=30) as connection:
                    result = await work(connection)
        except asyncpg.DataError as exc:
            raise LedgerValueError("nothing is called like that") from exc
        except _AWAY as exc:
            raise LedgerUnavailable(f"PostgreSQL does not answer: {exc}") from exc
        except _UNDONE as exc:
            raise LedgerUnavailable(f"PostgreSQL undid the transaction: {exc}") from exc
        if convert:
            return [{k: _plain(v) for k, v in row.items()} for row in result]
        return result

    async def fetch(self, sql: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = await self.run(
            lambda c: c.fetch(_numbered(sql), *values), convert=True
        )
        return rows

    async def execute(self, sql: str, values: Sequence[Any]) -> int:
        tag = await self.run(lambda c: c.execute(_numbered(sql), *values))
        count = str(tag).rpartition(" ")[2]
        return int(count) if count.isdecimal() else 0

    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        await self.run(lambda c: c.executemany(_numbered(sql), rows))

    async def script(self, sql: str) -> None:
        await self.run(lambda c: c.execute(_binary(sql)))

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[None]:
        """A transaction; an inner one joins the outer."""
        if _inside.get() is not None:
            yield
            return
        try:
            async with self._pool.acquire(timeout=30) as connection, connection.transaction():
                token = _inside.set(connection)
                try:
                    yield
                finally:
                    _inside.reset(token)
        except _AWAY as exc:
            raise LedgerUnavailable(f"PostgreSQL does not answer: {exc}") from exc
        except _UNDONE as exc:  # at the commit
            raise LedgerUnavailable(f"PostgreSQL undid the transaction: {exc}") from exc

    @contextlib.asynccontextmanager
    async def migration_lock(self) -> AsyncIterator[None]:
        """An advisory lock, held by a transaction of its own."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
            yield

    async def changes(self) -> AsyncGenerator[frozenset[str] | None, None]:
        """LISTEN on a connection of its own; its loss is noticed by asking now and then."""
        heard: set[str] = set()
        woken = asyncio.Event()

        def hear(_connection: Any, _pid: int, _channel: str, facility: str) -> None:
            heard.add(facility)
            woken.set()

        try:
            connection = await asyncpg.connect(self._url, timeout=_CLOSE_SECONDS)
        except (*_AWAY, asyncpg.PostgresError) as exc:
            raise LedgerUnavailable(f"PostgreSQL does not answer: {exc}") from exc
        try:
            await connection.add_listener("rso_changed", hear)
            yield None
            while True:
                try:
                    await asyncio.wait_for(woken.wait(), _ALIVE_SECONDS)
                except TimeoutError:
                    await connection.fetchval("SELECT 1", timeout=_CLOSE_SECONDS)
                    continue
                await asyncio.sleep(_TOGETHER_SECONDS)
                woken.clear()
                found, heard = frozenset(heard), set()
                yield found
        except _AWAY as exc:
            raise LedgerUnavailable(f"PostgreSQL does not answer: {exc}") from exc
        finally:
            connection.terminate()

    async def close(self) -> None:
        """Close the pool; a server that does not answer is not waited for."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._pool.close()
        except _AWAY:
            self._pool.terminate()


async def _prepare(connection: Any) -> None:
    """Keys and texts both pass as text, so that callers need not know the column's type."""
    await connection.set_type_codec(
        "uuid", schema="pg_catalog", encoder=str, decoder=str, format="text"
    )

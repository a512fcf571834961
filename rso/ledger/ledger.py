"""The ledger: one handle on the database, the same on SQLite and PostgreSQL.

SQL is written once with ``?`` marks. Rows come back as dictionaries of plain values: keys as
text, times as aware UTC datetimes, truth as bool, JSON as text.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import uuid_utils
from piccolo.table import Table

from rso.core.errors import ConfigError, RsoError

__all__ = ["Driver", "Ledger", "LedgerUnavailable", "LedgerValueError", "new_id"]

_MOST_PARAMETERS = 30_000


class LedgerUnavailable(RsoError):  # noqa: N818  (says what is the case)
    """The database does not answer, or undid the transaction: what was to be is tried again."""


class LedgerValueError(RsoError):
    """What was asked for can be no value of its column, so nothing has it: a key that is none."""


def new_id() -> str:
    """A new UUID7 as text: time-ordered, so indexes grow at their end."""
    return str(uuid_utils.uuid7())


class Driver(Protocol):
    """What the ledger needs of an engine."""

    kind: str

    async def fetch(self, sql: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        """Run a statement and return its rows."""

    async def execute(self, sql: str, values: Sequence[Any]) -> int:
        """Run a statement and return how many rows it touched."""

    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement for each row, in one transaction."""

    async def script(self, sql: str) -> None:
        """Run several statements."""

    def begin(self) -> contextlib.AbstractAsyncContextManager[Any]:
        """A transaction that writes."""

    def migration_lock(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Keep other processes from migrating at the same time."""

    def changes(self) -> AsyncGenerator[frozenset[str] | None, None]:
        """Facilities as their exams, holds and deliveries change; see ``Ledger.changes``."""

    async def close(self) -> None:
        """Close every connection."""


class Ledger:
    """The open database. Piccolo's tables are bound to it, one ledger a process."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    @classmethod
    async def open(cls, url: str) -> "Ledger":
        """Open ``sqlite:/path`` or ``postgresql://…``.

        Raises:
            ConfigError: Another kind of URL.
            LedgerUnavailable: PostgreSQL does not answer.
        """
        # They need this module.
        from rso.ledger import postgres, site_tables, sqlite, tables  # noqa: PLC0415

        driver: sqlite.SqliteDriver | postgres.PostgresDriver
        if url.startswith("sqlite:"):
            driver = await sqlite.SqliteDriver.open(url.removeprefix("sqlite:"))
        elif url.startswith(("postgresql://", "postgres://")):
            driver = await postgres.PostgresDriver.open(url)
        else:
            raise ConfigError("the database's url begins with sqlite: or postgresql://")
        for table in (*vars(tables).values(), *vars(site_tables).values()):
            if isinstance(table, type) and issubclass(table, Table) and table is not Table:
                table._meta._db = driver.engine
        return cls(driver)

    @property
    def kind(self) -> str:
        """``sqlite`` or ``postgres``."""
        return self._driver.kind

    @property
    def for_update(self) -> str:
        """Ends a SELECT whose rows stay as they are until the transaction ends.

        Rows are locked in one order, several of a kind by key: hold, Study, exam, delivery, item;
        the audit's table comes last. On SQLite a transaction is the only writer anyway.
        """
        return " FOR UPDATE" if self.kind == "postgres" else ""

    async def migrate(self) -> None:
        """Bring the tables up to date; safe to call from several processes at once."""
        from rso.ledger.migrations import migrate  # noqa: PLC0415

        async with self._driver.migration_lock():
            await migrate(self, self._driver)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """All or nothing; on SQLite one writer at a time. Inner ones join the outer."""
        async with self._driver.begin():
            yield

    async def fetch(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Run a statement and return its rows."""
        return await self._driver.fetch(sql, values)

    async def execute(self, sql: str, *values: Any) -> int:
        """Run a statement and return how many rows it touched."""
        return await self._driver.execute(sql, values)

    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement for each row; all or nothing."""
        if rows:
            await self._driver.execute_many(sql, rows)

    async def insert_rows(
        self,
        table: type[Table],
        rows: Sequence[Mapping[str, Any]],
        *,
        on_conflict: str = "",
    ) -> int:
        """Insert rows in bulk; ``on_conflict="nothing"`` skips what any unique index knows.

        Every row has the same columns. Returns how many rows were inserted.
        """
        if not rows:
            return 0
        columns = list(rows[0])
        names = ",".join(columns)
        tail = " ON CONFLICT DO NOTHING" if on_conflict == "nothing" else ""
        chunk = max(_MOST_PARAMETERS // len(columns), 1)
        marks = f"({','.join('?' * len(columns))})"
        inserted = 0
        for start in range(0, len(rows), chunk):
            part = rows[start : start + chunk]
            inserted += await self._driver.execute(
                f"INSERT INTO {table._meta.tablename} ({names})"  # noqa: S608
                f" VALUES {','.join([marks] * len(part))}{tail}",
                [row[column] for row in part for column in columns],
            )
        return inserted

    @contextlib.asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncGenerator[frozenset[str] | None, None]]:
        """Watch, in every process, for facilities whose exams, holds or deliveries change.

        Within a second of the commit. ``None`` comes first: from then on nothing is missed.

        Raises:
            LedgerUnavailable: The database went away; what changed meanwhile is not known.
        """
        async with contextlib.aclosing(self._driver.changes()) as found:
            yield found

    async def close(self) -> None:
        """Close every connection."""
        await self._driver.close()

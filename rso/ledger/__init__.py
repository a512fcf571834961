"""The database: tables, migrations and queries, on SQLite or PostgreSQL."""

from rso.ledger.ledger import Ledger, LedgerUnavailable, new_id

__all__ = ["Ledger", "LedgerUnavailable", "new_id"]

"""The database: tables, migrations and queries, on SQLite or PostgreSQL."""

from rso.ledger.ledger import Ledger, LedgerUnavailable, LedgerValueError, new_id

__all__ = ["Ledger", "LedgerUnavailable", "LedgerValueError", "new_id"]

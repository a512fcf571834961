"""Whoever leases is named by host, process and destination, which together are as long as can be.

SQLite keeps texts of any length in any column: nothing changes there.
"""

__all__ = ["POSTGRES", "SQL"]

SQL = "SELECT 1"
POSTGRES = (
    "ALTER TABLE delivery_item ALTER COLUMN lease_owner TYPE TEXT",
    "ALTER TABLE outbox ALTER COLUMN lease_owner TYPE TEXT",
)

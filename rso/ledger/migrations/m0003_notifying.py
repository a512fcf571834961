"""Messages know their facility, also without an exam; consent to break quiet hours."""

__all__ = ["SQL"]

SQL = """
ALTER TABLE outbox ADD COLUMN facility VARCHAR(64) NOT NULL DEFAULT '';
ALTER TABLE contact ADD COLUMN breaks_quiet VARCHAR(3) NOT NULL DEFAULT '';
"""

"""Contacts: what a person wants to be told, when not, and the code that proves an address."""

__all__ = ["SQL"]

SQL = """
ALTER TABLE contact ADD COLUMN events VARCHAR(300) NOT NULL DEFAULT '';
ALTER TABLE contact ADD COLUMN quiet VARCHAR(16) NOT NULL DEFAULT '';
ALTER TABLE contact ADD COLUMN timezone VARCHAR(64) NOT NULL DEFAULT '';
ALTER TABLE contact ADD COLUMN position INTEGER NOT NULL DEFAULT 0;
ALTER TABLE contact ADD COLUMN code_hash VARCHAR(64) NOT NULL DEFAULT '';
ALTER TABLE contact ADD COLUMN code_until TIMESTAMPTZ;
ALTER TABLE contact ADD COLUMN code_tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE contact ADD COLUMN leave_key VARCHAR(64) NOT NULL DEFAULT '';
ALTER TABLE outbox ADD COLUMN recipient VARCHAR(254) NOT NULL DEFAULT '';
ALTER TABLE outbox ADD COLUMN channel VARCHAR(32) NOT NULL DEFAULT '';
ALTER TABLE outbox ADD COLUMN ticket VARCHAR(200) NOT NULL DEFAULT '';
CREATE INDEX outbox_exam ON outbox (exam, kind);
UPDATE contact SET verified_at = CURRENT_TIMESTAMP WHERE verified_at IS NULL;
"""

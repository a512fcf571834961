"""Retention: which instances' files may go (``purged_at``) and are gone (``removed_at``)."""

__all__ = ["SQL"]

SQL = """
ALTER TABLE instance ADD COLUMN purged_at TIMESTAMPTZ;
ALTER TABLE instance ADD COLUMN removed_at TIMESTAMPTZ;
CREATE INDEX instance_leaving ON instance (purged_at) WHERE purged_at IS NOT NULL AND removed_at IS NULL;
CREATE INDEX audit_cancelled ON audit (exam, action);
"""

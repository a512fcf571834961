"""The audit is found by time, person, action or facility, the newest first, however long it is."""

__all__ = ["SQL"]

SQL = """
CREATE INDEX audit_at ON audit (at, id);
CREATE INDEX audit_actor ON audit (actor, id);
CREATE INDEX audit_action ON audit (action, id);
CREATE INDEX audit_facility ON audit (facility, id);
"""

"""Who looked at an exam is in the audit, and no event of the exam: its last event is found past it.

The condition is that of ``rso.ledger.audit.EVENTS``, word by word, or no engine uses the index.
"""

__all__ = ["SQL"]

SQL = """
DROP INDEX audit_exam;
DROP INDEX audit_cancelled;
CREATE INDEX audit_exam ON audit (exam, id);
CREATE INDEX audit_event ON audit (exam, id) WHERE exam <> '' AND action NOT IN ('exam opened', 'hold opened', 'worksheet opened');
"""

"""When an exam should be delivered; the worker writes it anew when a target changes."""

__all__ = ["SQL"]

SQL = """
ALTER TABLE exam ADD COLUMN due_at TIMESTAMPTZ;
UPDATE exam SET due_at = created_at;
CREATE INDEX exam_due ON exam (priority, due_at, id) WHERE status IN ('requested', 'receiving', 'settled');
"""

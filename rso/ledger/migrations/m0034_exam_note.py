"""Notes on an exam have rows of their own, so that none is ever dropped for a newer one."""

__all__ = ["SQL"]

SQL = """
CREATE TABLE exam_note (
    id UUID PRIMARY KEY,
    exam UUID NOT NULL,
    account VARCHAR(254) NOT NULL,
    note TEXT NOT NULL,
    at TIMESTAMPTZ NOT NULL
);
CREATE INDEX exam_note_exam ON exam_note (exam, id);
"""

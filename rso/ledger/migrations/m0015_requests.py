"""Requests: documents that come with an exam, and drafts that outlive a session."""

__all__ = ["SQL"]

SQL = """
CREATE TABLE exam_document (
    id UUID PRIMARY KEY,
    exam UUID NOT NULL,
    name VARCHAR(200) NOT NULL DEFAULT '',
    media_type VARCHAR(32) NOT NULL,
    size BIGINT NOT NULL,
    digest VARCHAR(64) NOT NULL,
    created_by VARCHAR(254) NOT NULL DEFAULT '',
    created_at TIMESTAMPTZ NOT NULL,
    removed_at TIMESTAMPTZ
);
CREATE INDEX exam_document_exam ON exam_document (exam);
CREATE TABLE request_draft (
    account VARCHAR(254) PRIMARY KEY,
    facility VARCHAR(64) NOT NULL DEFAULT '',
    form TEXT NOT NULL,
    saved_at TIMESTAMPTZ NOT NULL
);
"""

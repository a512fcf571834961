"""Documents that are chosen for a request before it is sent, and which request was sent already."""

__all__ = ["SQL"]

SQL = """
ALTER TABLE request_draft ADD COLUMN draft VARCHAR(36) NOT NULL DEFAULT '';
CREATE TABLE draft_document (
    id UUID PRIMARY KEY,
    account VARCHAR(254) NOT NULL,
    draft UUID NOT NULL,
    name VARCHAR(200) NOT NULL DEFAULT '',
    media_type VARCHAR(32) NOT NULL,
    size BIGINT NOT NULL,
    digest VARCHAR(64) NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    kept_until TIMESTAMPTZ NOT NULL
);
CREATE INDEX draft_document_account ON draft_document (account);
CREATE TABLE request_sent (
    id UUID PRIMARY KEY,
    account VARCHAR(254) NOT NULL,
    draft UUID NOT NULL,
    digest VARCHAR(64) NOT NULL,
    exam UUID NOT NULL,
    sent_at TIMESTAMPTZ NOT NULL
);
CREATE UNIQUE INDEX request_sent_once ON request_sent (account, draft, digest);
"""

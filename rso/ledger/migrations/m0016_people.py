"""People: where a session is, and links that set a new password."""

__all__ = ["SQL"]

SQL = """
ALTER TABLE web_session ADD COLUMN address VARCHAR(64) NOT NULL DEFAULT '';
ALTER TABLE web_session ADD COLUMN agent VARCHAR(200) NOT NULL DEFAULT '';
CREATE INDEX session_account ON web_session (account);
CREATE TABLE password_reset (
    id UUID PRIMARY KEY,
    token_hash VARCHAR(64) NOT NULL DEFAULT '',
    account VARCHAR(254) NOT NULL DEFAULT '',
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    used_at TIMESTAMPTZ
);
CREATE UNIQUE INDEX password_reset_token ON password_reset (token_hash);
CREATE INDEX password_reset_account ON password_reset (account);
CREATE INDEX token_account ON api_token (account);
"""

"""Attempts: what a delivery's item forgets when it is tried again."""

__all__ = ["SQL"]

SQL = """
CREATE TABLE delivery_attempt (
    id UUID PRIMARY KEY,
    delivery UUID NOT NULL,
    subject UUID NOT NULL,
    state VARCHAR(16) NOT NULL,
    code VARCHAR(16) NOT NULL DEFAULT '',
    reason VARCHAR(200) NOT NULL DEFAULT '',
    times INTEGER NOT NULL DEFAULT 1,
    first_at TIMESTAMPTZ NOT NULL,
    last_at TIMESTAMPTZ NOT NULL
);
CREATE UNIQUE INDEX delivery_attempt_way ON delivery_attempt (delivery, subject, state, code, reason);
CREATE INDEX instance_batch ON instance (batch);
"""

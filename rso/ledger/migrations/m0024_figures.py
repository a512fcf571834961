"""Figures of dashboard and metrics: an index for each that is counted, totals of what came in."""

__all__ = ["SQL"]

SQL = """
CREATE TABLE channel_total (
    channel VARCHAR(32) PRIMARY KEY,
    instances BIGINT NOT NULL DEFAULT 0,
    bytes BIGINT NOT NULL DEFAULT 0
);
DROP INDEX instance_received;
CREATE INDEX instance_received ON instance (received_at, facility);
CREATE INDEX exam_delivered ON exam (delivered_at, facility) WHERE delivered_at IS NOT NULL;
CREATE INDEX delivery_item_stopped ON delivery_item (destination) WHERE state = 'stopped';
CREATE INDEX outbox_made ON outbox (created_at, kind, state);
"""

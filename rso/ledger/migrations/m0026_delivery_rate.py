"""The rate of a destination is counted from what changed lately."""

__all__ = ["SQL"]

SQL = """
CREATE INDEX delivery_updated ON delivery (updated_at);
"""

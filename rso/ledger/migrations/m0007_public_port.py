"""Sources: the client's certificate itself, and how much may be sent."""

__all__ = ["SQL"]

SQL = """
ALTER TABLE source ADD COLUMN certificate TEXT NOT NULL DEFAULT '';
ALTER TABLE source ADD COLUMN quota TEXT NOT NULL DEFAULT '{}';
"""

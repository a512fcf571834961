"""Times out of min() and max(): SQLite knows a column's type, but not an aggregate's."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

__all__ = ["with_times"]


def with_times(rows: Sequence[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    """The rows with these fields as times, whichever engine they come from."""
    return [{**row, **{name: _time(row[name]) for name in names}} for row in rows]


def _time(value: Any) -> Any:
    return datetime.fromisoformat(value) if isinstance(value, str) else value

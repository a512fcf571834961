"""The list of those on call as the facility's form has it."""

from collections.abc import Sequence
from typing import Any

from rso.web.typed import whole_number

__all__ = ["call_rows", "hours_of", "on_call_of", "staff_of"]

Entry = dict[str, Any]
_LAST = 99


def hours_of(row: dict[str, str], kept: Sequence[Entry]) -> list[Entry]:
    """The window that a row says; further ones, which a form cannot show, are kept.

    Args:
        row: ``hours`` as ``18:00-07:00``, ``time_zone``, and perhaps ``days`` as ``1 2 3``.
        kept: The windows before.
    """
    start, _, end = row.get("hours", "").replace(" ", "").partition("-")
    if not start:
        return []
    first, *more = kept or [{}]
    window = {**first, "start": start, "end": end, "time_zone": row.get("time_zone") or "UTC"}
    if days := [int(day) for day in row.get("days", "") if day.isdecimal()]:
        window["days"] = days
    elif "days" in row:
        window.pop("days", None)
    return [window, *more]


def call_rows(entry: Entry) -> list[dict[str, Any]]:
    """A row for each window of each person on call; the number says who is told first."""
    return [
        {"order": order, "person": call["person"], "window": window}
        for order, call in enumerate(entry.get("on_call", []), 1)
        for window in call.get("hours") or [{}]
    ]


def on_call_of(rows: Sequence[dict[str, str]]) -> list[Entry]:
    """The list that rows say, in the order of their numbers.

    Rows of one person under one number are that person's windows; without any it is always.
    """
    found: dict[tuple[int, str], list[Entry]] = {}
    for row in rows:
        order = whole_number(row.get("order", ""))
        key = _LAST if order is None else order, row["person"]
        found.setdefault(key, []).extend(hours_of(row, []))
    return [
        {"person": person, "hours": hours}
        for (_, person), hours in sorted(found.items(), key=lambda item: item[0][0])
    ]


def staff_of(document: dict[str, Any], facility: str) -> list[str]:
    """Who may be on call at a facility."""
    return [
        user["email"]
        for user in document.get("user", [])
        if user["role"] in {"technician", "coordinator", "admin"}
        and (not user.get("facilities") or facility in user["facilities"])
    ]

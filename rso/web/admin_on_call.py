"""The list of those on call as the facility's form has it."""

from collections.abc import Sequence
from typing import Any

__all__ = ["hours_of", "on_call_of", "staff_of"]

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


def on_call_of(rows: Sequence[dict[str, str]], old: Entry) -> list[Entry]:
    """Rows of the form, in the order of their numbers; hours that it cannot show are kept."""
    before = {e["person"]: list(e.get("hours", [])) for e in old.get("on_call", [])}
    found = []
    for row in rows:
        hours = hours_of(row, before.get(row["person"], []))
        order = row.get("order", "")
        found.append((int(order) if order.isdecimal() else _LAST, row["person"], hours))
    return [
        {"person": person, "hours": hours}
        for _, person, hours in sorted(found, key=lambda entry: entry[0])
    ]


def staff_of(document: dict[str, Any], facility: str) -> list[str]:
    """Who may be on call at a facility."""
    return [
        user["email"]
        for user in document.get("user", [])
        if user["role"] in {"technician", "coordinator", "admin"}
        and (not user.get("facilities") or facility in user["facilities"])
    ]

"""The list of those on call as the facility's form has it."""

from collections.abc import Sequence
from typing import Any

__all__ = ["on_call_of", "staff_of"]

Entry = dict[str, Any]
_LAST = 99


def on_call_of(rows: Sequence[dict[str, str]], old: Entry) -> list[Entry]:
    """Rows of the form, in the order of their numbers; hours that it cannot show are kept."""
    before = {e["person"]: list(e.get("hours", [])) for e in old.get("on_call", [])}
    found = []
    for row in rows:
        start, _, end = row.get("hours", "").replace(" ", "").partition("-")
        hours: list[Entry] = []
        if start:
            kept = before.get(row["person"]) or [{}]
            zone = row.get("time_zone") or "UTC"
            hours = [{**kept[0], "start": start, "end": end, "time_zone": zone}, *kept[1:]]
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

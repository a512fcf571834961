"""On call: what is wrong with the facilities' lists."""

import msgspec

from rso.ledger.contacts import people_of_facility
from rso.ledger.ledger import Ledger

__all__ = ["on_call_warnings"]

_ON_CALL_ROLES = ("technician", "coordinator", "admin")


async def on_call_warnings(ledger: Ledger) -> list[str]:
    """Those on call who do not act for the facility, or who cannot be reached."""
    reached = await ledger.fetch(
        "SELECT DISTINCT owner FROM contact WHERE owner_kind = 'user'"
        " AND verified_at IS NOT NULL AND NOT opted_out"
    )
    owners, warnings = {row["owner"] for row in reached}, []
    for row in await ledger.fetch("SELECT code, settings FROM facility ORDER BY code"):
        listed = msgspec.json.decode(row["settings"] or "{}").get("on_call") or []
        people = await people_of_facility(ledger, row["code"], _ON_CALL_ROLES) if listed else []
        known = {person["email"] for person in people}
        for email in (str(entry["person"]).lower() for entry in listed):
            if email not in known:
                warnings.append(
                    f"facility {row['code']}: {email} is on call but does not act there"
                )
            elif email not in owners:
                warnings.append(f"facility {row['code']}: {email} is on call but has no contact")
    return warnings

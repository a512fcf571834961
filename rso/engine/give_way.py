"""What was rejected gives way: images that were sent again, corrected, under the same UIDs.

Of one SOP Instance UID one content is sent, the first that was kept; others are held. Once the
first is rejected, with its Study or by itself, the newest other one takes its place; none that a
person rejected.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rso.ledger import Ledger
from rso.ledger.exams import now
from rso.ledger.rejected import LATE, REJECTED, mark_rejected
from rso.ledger.standing import never_sent

__all__ = ["give_way", "leave_behind", "lock_rivals"]

_RIVALS = (
    "SELECT p.id AS old, c.id AS new, c.study FROM instance p"  # noqa: S608
    " JOIN study r ON r.id = p.study JOIN instance c ON c.facility = p.facility"
    " AND c.sop_instance_uid = p.sop_instance_uid JOIN study s ON s.id = c.study"
    f" WHERE (r.state = 'rejected' OR {REJECTED.format('p')}) AND NOT p.conflict AND c.conflict"
    f" AND c.purged_at IS NULL AND NOT {REJECTED.format('c')} AND {{}} ORDER BY p.id,"
    " CASE WHEN s.state IN ('matched', 'stopped') THEN 0 ELSE 1 END, c.id DESC"
)


async def lock_rivals(ledger: Ledger, study_id: str) -> None:
    """Let nobody decide on the instance holds that end if this Study is rejected.

    Call before the Study is locked.
    """
    if ledger.for_update:
        await ledger.fetch(
            "SELECT id FROM hold WHERE state = 'open' AND kind = 'instance' AND instance IN"  # noqa: S608
            " (SELECT c.id FROM instance p JOIN instance c ON c.facility = p.facility"
            " AND c.sop_instance_uid = p.sop_instance_uid WHERE p.study = ? AND c.conflict)"
            f" ORDER BY id{ledger.for_update}",
            study_id,
        )


async def give_way(
    ledger: Ledger, *, study: str = "", fresh: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Let instances take the places of rejected ones; returns their keys, by their Study.

    Args:
        ledger: The ledger.
        study: A Study that was just rejected; or
        fresh: instances that just arrived, with other content than what is kept; their Study is
            decided on after this, so it may have been rejected before.
    """
    where, values = "p.study = ? AND s.state <> 'rejected'", list[Any]([study])
    if not study:
        where, values = f"c.id IN ({','.join('?' * len(fresh)) or 'NULL'})", [*fresh]
    rows: dict[str, dict[str, Any]] = {}
    for row in await ledger.fetch(_RIVALS.format(where), *values):
        rows.setdefault(row["old"], row)
    # The old ones first: of an SOP Instance UID, one at most is no conflict.
    change = "UPDATE instance SET conflict = ? WHERE id = ?"
    await ledger.execute_many(change, [(True, old) for old in rows])
    await ledger.execute_many(change, [(False, row["new"]) for row in rows.values()])
    # Of what gave way nobody is asked again as of other content.
    await mark_rejected(
        ledger, list(rows), reason="same instance, other content", actor="matching",
        resolution="it was rejected with its Study, and came again with other content", at=now(),
    )  # fmt: skip
    await ledger.execute_many(
        "UPDATE hold SET state = 'released', resolved_by = 'matching', resolved_at = ?,"
        " resolution = 'the content that was kept first was rejected'"
        " WHERE instance = ? AND kind = 'instance' AND state = 'open'",
        [(now(), row["new"]) for row in rows.values()],
    )
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows.values():
        found[row["study"]].append(row["new"])
    return found


async def leave_behind(
    ledger: Ledger, study: str, *, since: str = "", actor: str, why: str
) -> None:
    """Mark late images that were rejected: no later release of their Study takes them along.

    Not what came before the first late one (``since``, an ISO time): it waits for something else.
    """
    late = await never_sent(ledger, study, since=datetime.fromisoformat(since) if since else None)
    await mark_rejected(ledger, late, reason=LATE, actor=actor, resolution=why, at=now())

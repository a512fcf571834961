"""What is new of the instances that came: parted from what is kept already.

A copy is kept already only while a file holds it: where the file is gone or cut short, by a fault
of the disk or a restore that was not whole, the copy that came takes its place. It does so too
where a person rejected what is kept: who sends it again wants it looked at again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec import Struct

from rso.engine.context import Engine
from rso.engine.reconcile import damaged_files
from rso.engine.spool_reader import InstanceRecord
from rso.ledger import Ledger
from rso.ledger.rejected import REJECTED

__all__ = ["Arrival", "Parted", "Return", "part_new"]


class Arrival(Struct, frozen=True, kw_only=True):
    """An instance on its way into the ledger."""

    record: InstanceRecord
    digest: str
    conflict: bool = False


class Return(Struct, frozen=True, kw_only=True):
    """An instance that came again and counts: kept again, under its new record's key.

    Attributes:
        lost: Its file was lost; else it was purged, or rejected.
        rejected: A person had rejected it, or its Study.
    """

    record: InstanceRecord
    instance: str
    study: str
    conflict: bool
    lost: bool = False
    rejected: bool = False


class Parted(NamedTuple):
    """Instances by what becomes of them; duplicates need not be kept.

    Of a replay, the same record once more after a crash, everything was decided: its row is
    there, its file perhaps not.
    """

    arrivals: list[Arrival]
    duplicates: list[InstanceRecord]
    returns: list[Return]
    replays: list[InstanceRecord]


async def part_new(
    engine: Engine, instances: Sequence[InstanceRecord], digests: Sequence[str]
) -> Parted:
    """Part what is new from what is kept: same facility, SOP Instance UID and digest."""
    known = await _known(engine.ledger, instances)
    rows = {row["id"]: row for found in known.values() for row in found.values()}
    keys: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for key, found in known.items():
        keys[key] = {digest: row["id"] for digest, row in found.items()}
    arrivals, duplicates, returns = [], list[InstanceRecord](), []
    replays = list[InstanceRecord]()
    copies: dict[str, list[InstanceRecord]] = defaultdict(list)
    for record, digest in zip(instances, digests, strict=True):
        kept = keys[record.provenance.facility, record.header.sop_instance_uid]
        row = rows.get(kept.get(digest, ""))
        if digest not in kept:
            arrivals.append(Arrival(record=record, digest=digest, conflict=bool(kept)))
            kept[digest] = record.record_id
        elif row is not None and row["purged_at"] is not None:
            gone = _rejected(row, known[row["facility"], row["sop_instance_uid"]])
            returns.append(_return(record, row, rejected=gone))
            kept[digest] = record.record_id
        elif kept[digest].replace("-", "") == record.record_id.replace("-", ""):
            replays.append(record)
        elif row is not None and _rejected(row, known[row["facility"], row["sop_instance_uid"]]):
            returns.append(_return(record, row, rejected=True))
            kept[digest] = record.record_id
        elif row is not None:
            copies[row["id"]].append(record)
        else:
            duplicates.append(record)
    for instance in await _lost(engine, [rows[instance] for instance in copies]):
        returns.append(_return(copies[instance].pop(0), rows[instance], lost=True))
    duplicates += [record for found in copies.values() for record in found]
    return Parted(arrivals, duplicates, returns, replays)


async def _known(
    ledger: Ledger, instances: Sequence[InstanceRecord]
) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """What the ledger has of these, by facility and SOP Instance UID, by digest."""
    known: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    wanted: dict[str, set[str]] = defaultdict(set)
    for record in instances:
        wanted[record.provenance.facility].add(record.header.sop_instance_uid)
    for facility, uids in wanted.items():
        marks = ",".join("?" * len(uids))
        for row in await ledger.fetch(
            "SELECT i.id, i.facility, i.sop_instance_uid, i.digest, i.study, i.conflict, i.size,"  # noqa: S608
            f" i.dataset_offset, i.purged_at, s.state, {REJECTED.format('i')} AS rejected"
            " FROM instance i JOIN study s ON s.id = i.study"
            f" WHERE i.facility = ? AND i.sop_instance_uid IN ({marks})",
            facility,
            *uids,
        ):
            known[facility, row["sop_instance_uid"]][row["digest"]] = row
    return known


def _rejected(row: dict[str, Any], same: dict[str, dict[str, Any]]) -> bool:
    """Whether a person would be asked again: other content only if that in its way was rejected."""
    if row["state"] == "rejected":
        return True
    if row["conflict"]:
        kept = [r for r in same.values() if not r["conflict"]]
        return any(r["state"] == "rejected" or r["rejected"] for r in kept)
    return bool(row["rejected"])


def _return(
    record: InstanceRecord, row: dict[str, Any], *, lost: bool = False, rejected: bool = False
) -> Return:
    return Return(
        record=record,
        instance=row["id"],
        study=row["study"],
        conflict=row["conflict"],
        lost=lost,
        rejected=rejected,
    )


async def _lost(engine: Engine, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Which of these have no whole file; asked for what came again only, off the event loop."""
    if not rows:
        return []
    return [row["id"] for row in await asyncio.to_thread(damaged_files, engine, rows)]

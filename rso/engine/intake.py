"""Intake: from spool records to archive, ledger and match.

Every step may be repeated: the archive's key is the spool's record id, the ledger's keys are
unique, and a record is released only after its archive file is synced and its row committed.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import structlog
from msgspec import structs

from rso.core.matching import IncomingStudy, identity_key
from rso.core.transport import Provenance
from rso.dicom.elements import is_uid
from rso.engine.archive import file_digest, instance_digest
from rso.engine.arrivals import Arrival, Return, part_new
from rso.engine.context import Engine
from rso.engine.give_way import give_way
from rso.engine.matcher import take_study
from rso.engine.spool_reader import Alert, BatchClosed, BatchOpened, InstanceRecord, Record
from rso.engine.thumbnails import forget_thumbnails
from rso.ledger import Ledger, audit, tables
from rso.ledger.exams import lock_exams, now
from rso.ledger.figures import add_received
from rso.ledger.leases import retry_local
from rso.ledger.studies import upsert_studies

__all__ = ["store_records", "take_records"]

log = structlog.get_logger(__name__)


async def take_records(engine: Engine, records: Sequence[Record], *, discard: bool = True) -> int:
    """Take records in; returns how many instances were new.

    Args:
        engine: The engine.
        records: From a spool, or made from archive files by ``reindex``.
        discard: Delete the spool's own file of a large instance that is kept already.

    When it returns, the ledger has committed; the archive files are written but perhaps not yet
    synced, so the records may be released only after the archive's next ``sync``.
    """
    received = [r for r in records if isinstance(r, InstanceRecord)]
    instances, gone = await asyncio.to_thread(_locate, engine, received)
    digests = await asyncio.to_thread(_digests, instances)
    arrivals, duplicates, returns = await part_new(engine, instances, digests)
    await asyncio.to_thread(
        store_records, engine, [a.record for a in arrivals] + [a.record for a in returns]
    )
    async with engine.ledger.transaction():
        await _note_batches(engine.ledger, records)
        groups: dict[str, list[Arrival]] = defaultdict(list)
        for arrival in arrivals:
            groups[arrival.record.provenance.facility].append(arrival)
        for facility, group in groups.items():
            await _take_facility(engine, facility, group)
        for again in returns:
            await _take_back(engine, again)
        await _count(engine.ledger, arrivals)
        # The audit comes last: who has it waits for nobody.
        await _note_alerts(engine.ledger, records)
        await _note_gone(engine.ledger, gone)
        await _note_replaced(engine.ledger, returns)
    if discard:
        for record in duplicates:
            if record.path is not None:
                record.path.unlink(missing_ok=True)
    if arrivals:
        log.info("instances taken in", new=len(arrivals), received=len(received))
    return len(arrivals)


async def _count(ledger: Ledger, arrivals: Sequence[Arrival]) -> None:
    """Add to the totals of each channel."""
    found: dict[str, list[int]] = defaultdict(list)
    for arrival in arrivals:
        found[arrival.record.provenance.channel].append(arrival.record.size)
    for channel, sizes in sorted(found.items()):
        await add_received(ledger, channel, len(sizes), sum(sizes))


def _locate(
    engine: Engine, instances: Sequence[InstanceRecord]
) -> tuple[list[InstanceRecord], list[InstanceRecord]]:
    """Where each large instance's file is now, and those that have none any more.

    A pass that ended in a crash may have moved a file already, or discarded it as kept.
    """
    found, gone = [], []
    for record in instances:
        if record.path is None or record.path.exists():
            found.append(record)
            continue
        moved = engine.archive.path(record.record_id)
        if moved.exists():
            found.append(structs.replace(record, path=moved))
        else:
            gone.append(record)
    return found, gone


async def _note_gone(ledger: Ledger, gone: Sequence[InstanceRecord]) -> None:
    """A file that was discarded is kept elsewhere; any other was promised, and people are told."""
    for record in gone:
        facility, uid = record.provenance.facility, record.header.sop_instance_uid
        if await ledger.fetch(
            "SELECT id FROM instance WHERE facility = ? AND sop_instance_uid = ? LIMIT 1",
            facility,
            uid,
        ):
            continue
        log.error("a file of the spool is missing", sop_instance_uid=uid)
        await audit.append(
            ledger,
            actor="intake",
            action="spool file missing",
            facility=facility,
            facts={"record": record.record_id, "sop_instance_uid": uid},
        )


def _digests(instances: Sequence[InstanceRecord]) -> list[str]:
    return [
        instance_digest(r.header.transfer_syntax_uid, r.part10[r.dataset_offset :])
        if r.part10 is not None
        else file_digest(_large(r), r.dataset_offset, r.header.transfer_syntax_uid)
        for r in instances
    ]


def _large(record: InstanceRecord) -> Any:
    assert record.path is not None
    return record.path


def store_records(engine: Engine, records: Sequence[InstanceRecord]) -> None:
    """Have the archive keep the files; durable after its next ``sync``."""
    for record in records:
        if record.part10 is not None:
            engine.archive.put(record.record_id, record.part10)
        else:
            engine.archive.link(record.record_id, _large(record))


async def _note_batches(ledger: Ledger, records: Sequence[Record]) -> None:
    opened: dict[str, Provenance] = {}
    for record in records:
        if isinstance(record, BatchOpened | InstanceRecord):
            opened.setdefault(record.batch_id, record.provenance)
    await ledger.insert_rows(
        tables.Batch,
        [
            {
                "id": batch_id,
                "channel": p.channel,
                "facility": p.facility,
                "source": p.source[:128],
                "kind": p.kind.value,
                "peer_address": p.peer_address[:64],
                "calling_ae_title": p.calling_ae_title[:16],
                "called_ae_title": p.called_ae_title[:16],
                "exam_number": p.exam_number[:10],
                "account": p.user[:254],
                "opened_at": p.opened_at,
                "closed_at": None,
            }
            for batch_id, p in opened.items()
        ],
        on_conflict="nothing",
    )
    at = now()
    for batch_id in [r.batch_id for r in records if isinstance(r, BatchClosed)]:
        await ledger.execute(
            "UPDATE batch SET closed_at = ? WHERE id = ? AND closed_at IS NULL", at, batch_id
        )
    sources = {(p.channel, p.facility, p.source) for p in opened.values()}
    for channel, facility, source in sorted(sources):
        await ledger.execute(
            "UPDATE source SET last_instance_at = ?"
            " WHERE channel = ? AND facility = ? AND identity = ?",
            at,
            channel,
            facility,
            source,
        )


async def _note_alerts(ledger: Ledger, records: Sequence[Record]) -> None:
    for record in records:
        if isinstance(record, Alert):
            facts = dict(record.facts)
            await audit.append(
                ledger,
                actor="receiver",
                action=record.kind,
                facility=facts.pop("facility", ""),
                facts=facts,
            )


async def _take_facility(engine: Engine, facility: str, arrivals: Sequence[Arrival]) -> None:
    studies = [(_incoming(a.record), a.record.header.study_description[:200]) for a in arrivals]
    rows = await upsert_studies(engine.ledger, facility, studies)
    by_study: dict[str, list[Arrival]] = defaultdict(list)
    states: dict[str, dict[str, Any]] = {}
    for arrival, (study, _) in zip(arrivals, studies, strict=True):
        row = rows[study.study_instance_uid, identity_key(study)]
        states[row["id"]] = row
        by_study[row["id"]].append(arrival)
    await lock_exams(engine.ledger, [row["exam"] for row in states.values() if row["exam"]])
    at = now()
    await engine.ledger.insert_rows(
        tables.Instance,
        [_row(a, facility, study_id, at) for study_id, group in by_study.items() for a in group],
        on_conflict="nothing",
    )
    others = [a.record.record_id for a in arrivals if a.conflict]
    freed = await give_way(engine.ledger, fresh=others) if others else {}
    for study_id, group in by_study.items():
        fresh = [a.record.record_id for a in group if not a.conflict] + freed.get(study_id, [])
        await take_study(engine, states[study_id]["id"], fresh)


async def _take_back(engine: Engine, again: Return) -> None:
    """Let an instance be there again; what was delivered of it stays delivered."""
    ledger, record = engine.ledger, again.record
    # The new key is the new record's, so that the same record, read again, finds itself.
    await ledger.execute(
        "UPDATE instance SET id = ?, batch = ?, dataset_offset = ?, received_at = ?,"
        " purged_at = NULL, removed_at = NULL WHERE id = ?",
        record.record_id,
        record.batch_id,
        record.dataset_offset,
        now(),
        again.instance,
    )
    for table in ("delivery_item", "hold"):
        await ledger.execute(
            f"UPDATE {table} SET instance = ? WHERE instance = ?",  # noqa: S608
            record.record_id,
            again.instance,
        )
    # An interrupted purge may have left the old file, which now no row names.
    await asyncio.to_thread(engine.archive.remove, again.instance)
    if again.lost:  # nothing is new of its Study
        log.warning("a lost file is replaced", sop_instance_uid=record.header.sop_instance_uid)
        await asyncio.to_thread(forget_thumbnails, engine.settings.data_dir, [again.instance])
        await retry_local(ledger, record.record_id)
        engine.work.set()
    else:
        fresh = [] if again.conflict else [record.record_id]
        await take_study(engine, again.study, fresh)


async def _note_replaced(ledger: Ledger, returns: Sequence[Return]) -> None:
    for again in returns:
        if again.lost:
            uid = again.record.header.sop_instance_uid
            await audit.append(
                ledger,
                actor="intake",
                action="archive file replaced",
                facility=again.record.provenance.facility,
                facts={"instance": again.record.record_id, "sop_instance_uid": uid},
            )


def _incoming(record: InstanceRecord) -> IncomingStudy:
    header, provenance = record.header, record.provenance
    return IncomingStudy(
        study_instance_uid=header.study_instance_uid,
        patient=header.patient,
        undecodable=header.undecodable,
        accession_number=header.accession_number,
        modality=header.modality,
        body_part=header.body_part,
        study_date=header.study_date,
        kind=provenance.kind,
        bound_exam_number=provenance.exam_number,
    )


def _row(arrival: Arrival, facility: str, study_id: str, at: datetime) -> dict[str, Any]:
    record, header = arrival.record, arrival.record.header
    frames = header.number_of_frames.strip()
    return {
        "id": record.record_id,
        "facility": facility,
        "study": study_id,
        "sop_instance_uid": header.sop_instance_uid,
        "sop_class_uid": _uid(header.sop_class_uid),
        "series_instance_uid": header.series_instance_uid,
        "transfer_syntax_uid": _uid(header.transfer_syntax_uid),
        "digest": arrival.digest,
        "size": record.size,
        "dataset_offset": record.dataset_offset,
        "modality": header.modality[:16],
        "series_number": header.series_number[:12],
        "series_description": header.series_description[:64],
        "instance_number": header.instance_number[:12],
        "number_of_frames": int(frames) if frames.isdecimal() and len(frames) < 9 else 1,
        "conflict": arrival.conflict,
        "batch": record.batch_id,
        "received_at": at,
    }


def _uid(text: str) -> str:
    # A record of the spool may be older than the check of what comes in; without a UID its
    # instance is kept, and stopped where it would be sent.
    return text if is_uid(text) else ""

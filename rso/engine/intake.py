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
from rso.engine.returns import take_back
from rso.engine.spool_reader import Alert, BatchClosed, BatchOpened, InstanceRecord, Record
from rso.ledger import Ledger, audit, tables
from rso.ledger.exams import now
from rso.ledger.figures import add_received
from rso.ledger.rejected import lock_holds_of
from rso.ledger.studies import lock_exams_of, upsert_studies

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
    arrivals, duplicates, returns, replays = await part_new(engine, instances, digests)
    came = [a.record for a in arrivals] + [again.record for again in returns]
    await asyncio.to_thread(store_records, engine, came + replays)
    async with engine.ledger.transaction():
        await lock_holds_of(engine.ledger, [again.instance for again in returns])
        await _note_batches(engine.ledger, records)
        for facility in dict.fromkeys(record.provenance.facility for record in came):
            await _take_facility(
                engine,
                facility,
                [a for a in arrivals if a.record.provenance.facility == facility],
                [a for a in returns if a.record.provenance.facility == facility],
            )
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


async def _take_facility(
    engine: Engine, facility: str, arrivals: Sequence[Arrival], returns: Sequence[Return]
) -> None:
    ledger = engine.ledger
    # What was rejected comes as what it is said to be now, such as of an exam's upload page.
    renewed = [again for again in returns if again.rejected]
    came = [a.record for a in arrivals] + [again.record for again in renewed]
    studies = [(_incoming(r), r.header.study_description[:200]) for r in came]
    also = [again.record.header.study_instance_uid for again in returns]
    rows = await upsert_studies(ledger, facility, studies, also=also)
    homes = [str(rows[s.study_instance_uid, identity_key(s)]["id"]) for s, _ in studies]
    await lock_exams_of(ledger, [*homes, *(again.study for again in returns)])
    at, by_study = now(), defaultdict[str, list[Arrival]](list)
    for arrival, home in zip(arrivals, homes, strict=False):
        by_study[home].append(arrival)
    await ledger.insert_rows(
        tables.Instance,
        [_row(a, facility, study_id, at) for study_id, group in by_study.items() for a in group],
        on_conflict="nothing",
    )
    fresh: dict[str, list[str]] = defaultdict(list)
    again_of = set[str]()
    others = [a.record.record_id for a in arrivals if a.conflict]
    for study_id, group in by_study.items():
        fresh[study_id] += [a.record.record_id for a in group if not a.conflict]
    moved = dict(zip([again.instance for again in renewed], homes[len(arrivals) :], strict=True))
    for again in returns:
        study_id = await take_back(engine, again, moved.get(again.instance, ""))
        if study_id:
            (others if again.conflict else fresh[study_id]).append(again.record.record_id)
            fresh[study_id] += []
            again_of.add(study_id)
    for study_id, keys in (await give_way(ledger, fresh=others) if others else {}).items():
        fresh[study_id] += keys
        again_of.add(study_id)
    for study_id, keys in fresh.items():
        await take_study(engine, study_id, keys, again=study_id in again_of)


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

"""Telling people: a message to each of them is written down first, and sent from there.

A message is sent at least once. It is sent twice only when the provider took it and RSO died
before it could note that.
"""

import contextlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from rso.core.exam import Exam, Origin
from rso.core.notifying import EVENTS, mask, wants
from rso.core.on_call import needs_a_person, next_on_call
from rso.engine.context import Engine
from rso.engine.matters import duty_of, open_matter
from rso.engine.notes import keep_note
from rso.ledger import Ledger, audit
from rso.ledger.contacts import (
    people_of_facilities,
    people_of_facility,
    usable_contacts,
    usable_contacts_of_all,
)
from rso.ledger.exams import now
from rso.ledger.outbox import add_to_outbox

__all__ = [
    "Told",
    "exam_notifications",
    "naming_channels",
    "notify_event",
    "notify_people",
    "reachable",
    "reachable_at",
    "readers_of",
    "retry_notification",
    "write_notification",
]

_ROLES = ("customer", "technician", "coordinator", "admin")
_ONE_PRESS_SECONDS = 30
_ONE_DIGEST_SECONDS = 600


class Told(Struct, frozen=True, kw_only=True):
    """What became of telling people.

    Attributes:
        messages: How many were written; 0 where the same was pressed a moment before.
        people: Addresses of those who are told.
        left_out: Addresses of those who were chosen, and cannot be told of this exam.
    """

    messages: int = 0
    people: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


async def reachable(engine: Engine, facility: str) -> list[dict[str, Any]]:
    """Technicians and coordinators of a facility with the channels that RSO can use for each."""
    found = await reachable_at(engine, [facility])
    return [{name: said for name, said in p.items() if name != "facilities"} for p in found]


async def reachable_at(engine: Engine, facilities: Sequence[str]) -> list[dict[str, Any]]:
    """Those of any of these facilities; ``facilities`` says of which of them each is."""
    found = []
    roles = ("technician", "coordinator")
    contacts = await usable_contacts_of_all(engine.ledger, "user")
    for person in await people_of_facilities(engine.ledger, facilities, roles):
        own = contacts.get(person["email"], [])
        channels = [c["channel"] for c in own if c["channel"] in engine.plugins.notifiers]
        if channels:
            found.append(
                {
                    "email": person["email"],
                    "name": person["name"] or person["email"],
                    "role": person["role"],
                    "channels": list(dict.fromkeys(channels)),
                    "facilities": person["at"],
                }
            )
    return found


async def naming_channels(engine: Engine) -> list[str]:
    """The channels whose messages name the patient, as the deployer asked; an SMS never does."""
    found = []
    for channel, (kind, config) in engine.plugins.notifiers.items():
        # One that cannot be made sends nothing; whoever sends logs it.
        with contextlib.suppress(Exception):
            notifier = kind(config)
            if channel != "sms" and notifier.carries_patient_data:
                found.append(channel)
            await notifier.close()
    return sorted(found)


async def notify_event(
    engine: Engine,
    event: str,
    exam: Exam | None,
    facts: Mapping[str, Any] | None = None,
    *,
    at: datetime | None = None,
) -> int:
    """Tell everybody who wants to hear of an event, each on the first channel that works.

    Once per exam, event and cause (a hold, or a destination and its code); holds without an
    exam are told once in ten minutes a facility. What needs a person is told to those on call by
    escalation, one after another; everybody else hears of it here.
    """
    if event not in EVENTS or (event == "exam_created" and exam and exam.origin is Origin.IMAGES):
        return 0
    ledger, facts, at = engine.ledger, facts or {}, at or now()
    if exam is not None:
        facility = exam.facility
        about = f"{exam.id}:{facts.get('destination', '')}:{facts.get('code', '')}"
        if event in {"study_held", "release_recalled"}:
            about = f"{about}:{facts.get('hold', '')}"
    else:
        facility = await _facility_of_hold(ledger, str(facts.get("hold", "")))
        about = f"{facility}:{int(at.timestamp()) // _ONE_DIGEST_SECONDS}"
    async with ledger.transaction():
        matter, in_turn = "", list[str]()
        duty = await duty_of(ledger, facility)
        if duty.on_call and needs_a_person(event, exam.priority if exam else None):
            matter = await open_matter(
                ledger, event, exam, facility=facility, about=about, hold=str(facts.get("hold", ""))
            )
            in_turn = next_on_call(duty.on_call, at)
        return await _tell_roles(engine, event, exam, facility, about, matter, in_turn)


async def _tell_roles(
    engine: Engine,
    event: str,
    exam: Exam | None,
    facility: str,
    about: str,
    matter: str,
    in_turn: Sequence[str],
) -> int:
    ledger = engine.ledger
    people = [
        ("user", person["email"], person["role"])
        for person in await people_of_facility(ledger, facility, _ROLES)
        if person["email"] not in in_turn
    ]
    if exam is not None:
        people += [("radiologist", code, "radiologist") for code in await readers_of(ledger, exam)]
    written = 0
    for kind, owner, role in people:
        contacts = [
            contact
            for contact in await usable_contacts(ledger, kind, owner)
            if contact["channel"] in engine.plugins.notifiers
            and wants(role, event, contact["events"].split(), exam.priority.value if exam else "")
        ]
        if contacts:
            written += await write_notification(
                ledger, event, exam, contacts, facility=facility, matter=matter,
                dedupe=f"notify:{about}:{event}:{kind}:{owner}",
            )  # fmt: skip
    return written


async def _facility_of_hold(ledger: Ledger, hold_id: str) -> str:
    rows = await ledger.fetch("SELECT facility FROM hold WHERE id = ?", hold_id) if hold_id else []
    return str(rows[0]["facility"]) if rows else ""


async def readers_of(ledger: Ledger, exam: Exam) -> list[str]:
    """The radiologists whose destinations the exam goes to."""
    rows = await ledger.fetch(
        "SELECT DISTINCT d.radiologist FROM delivery v JOIN destination d"
        " ON d.code = v.destination WHERE v.exam = ?",
        exam.id,
    )
    return [row["radiologist"] for row in rows]


async def notify_people(
    engine: Engine,
    exam: Exam,
    chosen: Mapping[str, Sequence[str]],
    *,
    actor: str,
    note: str = "",
) -> Told:
    """Tell chosen people of an exam, on each of the chosen channels.

    The note stays in RSO, on the exam's page, whoever can be told: it may say what a message
    must not. Pressing twice within half a minute is once.

    Args:
        engine: The engine.
        exam: What it is about.
        chosen: Channels by a person's email; people and channels out of reach are left out.
        actor: Who asks for it.
        note: In words, for those who sign in.
    """
    ledger = engine.ledger
    within = {person["email"]: person for person in await reachable(engine, exam.facility)}
    written, told = 0, list[str]()
    async with ledger.transaction():
        for email, channels in chosen.items():
            if not set(channels) & set(within.get(email, {}).get("channels", ())):
                continue
            told.append(email)
            contacts = await usable_contacts(ledger, "user", email)
            for channel in dict.fromkeys(channels):
                own = [c for c in contacts if c["channel"] == channel]
                if not own or channel not in engine.plugins.notifiers:
                    continue
                press = int(now().timestamp()) // _ONE_PRESS_SECONDS
                dedupe = f"notify:{exam.id}:manual:{email}:{channel}:{press}"
                others = [c for c in contacts if c["channel"] not in channels]
                written += await write_notification(
                    ledger, "manual", exam, [*own[:1], *others], facility=exam.facility,
                    dedupe=dedupe, actor=actor,
                )  # fmt: skip
        if written:
            facts = {
                "people": ", ".join(sorted(told)),
                "messages": str(written),
            }
            await audit.append(
                ledger, actor=actor, action="people notified", facility=exam.facility,
                exam=exam.number, facts=facts,
            )  # fmt: skip
        await keep_note(ledger, exam, actor, note)
    left_out = tuple(email for email in chosen if email not in told)
    return Told(messages=written, people=tuple(told), left_out=left_out)


async def write_notification(
    ledger: Ledger,
    event: str,
    exam: Exam | None,
    contacts: Sequence[Mapping[str, Any]],
    *,
    facility: str,
    dedupe: str,
    actor: str = "",
    matter: str = "",
    on_call: bool = False,
    at: datetime | None = None,
) -> int:
    """Write one message to one person: to the first contact, and to the next if that fails.

    Args:
        ledger: The ledger.
        event: What happened.
        exam: What it is about.
        contacts: Of one person, the preferred first; at least one.
        facility: Whose message it is.
        dedupe: A message with the same text is written once.
        actor: Who asked for it; empty: an event did.
        matter: What its receiver can acknowledge.
        on_call: It is told to the one on call.
        at: When it is due; now by default.

    Returns:
        0 when it was written before.
    """
    first = contacts[0]
    payload = {
        "contact": str(first["id"]),
        "others": [str(contact["id"]) for contact in contacts[1:]],
        "priority": exam.priority.value if exam else "",
        "actor": actor,
        "matter": matter,
        "on_call": on_call,
    }
    return await add_to_outbox(
        ledger,
        "notify",
        event,
        exam=exam.id if exam else None,
        facility=facility,
        payload=payload,
        dedupe=dedupe,
        recipient=first["owner"],
        channel=first["channel"],
        at=at,
    )


async def exam_notifications(
    ledger: Ledger, exam_id: str | None = None, *, facilities: Sequence[str] | None = None,
    before: tuple[datetime, str] | None = None, message: str = "", limit: int = 200,
) -> list[dict[str, Any]]:  # fmt: skip
    """Messages, the newest first, with what became of each; of one exam, or of all.

    Args:
        ledger: The ledger.
        exam_id: Only of this exam.
        facilities: Only of these.
        before: Only what comes after the message of this time and key, for the page that follows.
        message: Only this one.
        limit: At most so many.

    Raises:
        LedgerValueError: A key is none.
    """
    where, values = "1 = 1", list[Any]()
    if exam_id:
        where, values = f"{where} AND o.exam = ?", [*values, exam_id]
    if message:
        where, values = f"{where} AND o.id = ?", [*values, message]
    if before is not None:
        at, key = before
        where += " AND o.created_at <= ? AND (o.created_at < ? OR o.id < ?)"
        values = [*values, at, at, key]
    if facilities is not None:
        marks = ",".join("?" * len(facilities)) or "''"
        where += f" AND (o.facility IN ({marks}) OR e.facility IN ({marks}))"
        values = [*values, *facilities, *facilities]
    rows = await ledger.fetch(
        "SELECT o.*, e.number FROM outbox o LEFT JOIN exam e ON e.id = o.exam"  # noqa: S608
        f" WHERE o.kind = 'notify' AND {where} ORDER BY o.created_at DESC, o.id DESC LIMIT ?",
        *values,
        limit,
    )
    return [{**row, "history": msgspec.json.decode(row["history"])} for row in rows]


async def retry_notification(ledger: Ledger, outbox_id: str, *, actor: str) -> bool:
    """Send a message that failed once more, from the start; the audit says who asked for it.

    Returns:
        False when it has not failed.
    """
    at = now()
    async with ledger.transaction():
        if not await ledger.execute(
            "UPDATE outbox SET state = 'queued', attempts = 0, next_at = ?, created_at = ?,"
            " done_at = NULL WHERE id = ? AND kind = 'notify' AND state = 'failed'",
            at,
            at,
            outbox_id,
        ):
            return False
        (row,) = await ledger.fetch(
            "SELECT o.event, o.recipient, o.facility, e.number FROM outbox o"
            " LEFT JOIN exam e ON e.id = o.exam WHERE o.id = ?",
            outbox_id,
        )
        await audit.append(
            ledger, actor=actor, action="message sent again", facility=row["facility"],
            exam=row["number"] or "",
            facts={"event": row["event"], "recipient": row["recipient"]},
        )  # fmt: skip
    return True


def said(channel: str, address: str, result: str) -> dict[str, str]:
    """One line of a message's history; the address is masked."""
    return {"at": now().isoformat(), "channel": channel, "to": mask(address), "result": result}

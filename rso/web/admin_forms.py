"""What a form of the administration says, as an entry of the site document."""

import re
from collections.abc import Mapping
from typing import Any

from rso.core.transport import Sender
from rso.ledger.people import hash_password
from rso.plugins.config import decode_options
from rso.plugins.form import (
    Control,
    controls_of,
    number_or_text,
    read_options,
    split_words,
)
from rso.web.admin_on_call import hours_of, on_call_of

__all__ = ["check_options", "controls", "read_entry", "seal_form"]

Entry = dict[str, Any]
Senders = Mapping[str, tuple[type[Sender], Any]]
_TARGETS = ("stat_minutes", "urgent_minutes", "routine_minutes")
_QUOTA = ("associations", "instances_per_day", "bytes_per_day")


def read_entry(section: str, form: dict[str, str], old: Entry, senders: Senders) -> Entry:
    """The entry that a form makes of the one before; what it does not show stays."""
    if section == "facility":
        return _facility(form, old)
    return _radiologist(form, old, senders) if section == "radiologist" else _user(form, old)


async def seal_form(section: str, form: dict[str, str]) -> dict[str, str]:
    """The form with hashes for its passwords, so that nothing is hashed in a transaction.

    A radiologist's destinations have theirs in the clear: RSO shows them to others.
    """
    named = {"user": r"password", "facility": r"source-\d+-password"}.get(section, "(?!)")
    return {
        name: await hash_password(value) if re.fullmatch(named, name) else value
        for name, value in form.items()
    }


def controls(senders: Senders, sender: str, options: Mapping[str, Any]) -> list[Control]:
    """The controls of a sender's options; none of one that is not installed."""
    return list(controls_of(senders[sender][0].options_type, options)) if sender in senders else []


def check_options(entry: Entry, senders: Senders) -> None:
    """Raise ConfigError where a destination's options are not as its sender wants them."""
    for destination in entry.get("destinations", []):
        found = senders.get(destination["sender"])
        if found is not None:
            whose = f"destination {destination['code']}"
            decode_options(found[0].options_type, destination["options"], whose)


def _rows(form: dict[str, str], name: str, first: str) -> list[dict[str, str]]:
    """Rows of fields ``name-0-first``, without those whose first field is empty."""
    found: dict[str, dict[str, str]] = {}
    for field, value in form.items():
        parts = field.split("-", 2)
        if len(parts) == 3 and parts[0] == name:
            found.setdefault(parts[1], {})[parts[2]] = value
    return [row for _, row in sorted(found.items()) if row.get(first)]


def _number(text: str) -> float | str | None:
    return number_or_text(text) if text else None


def _lines(text: str) -> str:
    """A browser ends the lines of a form with CR and LF."""
    return text.replace("\r\n", "\n")


def _quota(row: dict[str, str], before: Entry) -> Entry:
    """Limits of a source or a facility; an empty field means none."""
    said = {name: _number(row[f"quota_{name}"]) for name in _QUOTA if f"quota_{name}" in row}
    return {k: v for k, v in (before | said).items() if v is not None}


def _facility(form: dict[str, str], old: Entry) -> Entry:
    sources = []
    before = {(s["channel"], s["identity"]): s for s in old.get("sources", [])}
    for row in _rows(form, "source", "identity"):
        kept = before.get((row.get("channel", ""), row["identity"]), {})
        source = {
            "channel": row.get("channel", ""),
            "identity": row["identity"],
            "kind": row.get("kind", "technician"),
            "networks": split_words(row.get("networks", "")),
            "called_ae_title": row.get("called_ae_title", ""),
            "certificate_fingerprint": row.get("certificate_fingerprint", ""),
            "password": row.get("password") or kept.get("password", ""),
            "cleartext": bool(row.get("cleartext")),
            "certificate": _lines(row.get("certificate", kept.get("certificate", ""))),
            "quota": _quota(row, kept.get("quota", {})),
        }
        sources.append(source)
    attached = []
    kept_conditions = {r["code"]: r for r in old.get("radiologists", [])}
    for row in _rows(form, "reader", "code"):
        attached.append(
            {
                "code": row["code"],
                "hours": hours_of(row, kept_conditions.get(row["code"], {}).get("hours", [])),
                "modalities": [word.upper() for word in split_words(row.get("modalities", ""))],
                "priorities": split_words(row.get("priorities", "").lower()),
            }
        )
    return {
        **old,
        "code": form.get("code", ""),
        "name": form.get("name", ""),
        "issuer_of_patient_id": form.get("issuer_of_patient_id", ""),
        "settle_seconds": _number(form.get("settle_seconds", "")),
        "retention_days": _number(form.get("retention_days", "")),
        "turnaround": {name: _number(form.get(name, "")) for name in _TARGETS},
        "quota": _quota(form, old.get("quota", {})),
        "escalate_minutes": _number(form.get("escalate_minutes", "")),
        "on_call": on_call_of(_rows(form, "call", "person")),
        "sources": sources,
        "radiologists": attached,
    }


def _radiologist(form: dict[str, str], old: Entry, senders: Senders) -> Entry:
    before = {(d["code"], d["sender"]): d.get("options", {}) for d in old.get("destinations", [])}
    destinations = []
    for row in _rows(form, "destination", "code"):
        sender = row.get("sender", "dicom_scu")
        options = before.get((row["code"], sender), {})
        if sender in senders:
            options = read_options(senders[sender][0].options_type, _own(row, sender), options)
        destinations.append(
            {
                "code": row["code"],
                "sender": sender,
                "egress": row.get("egress", ""),
                "options": options,
            }
        )
    return {
        **old,
        "code": form.get("code", ""),
        "name": form.get("name", ""),
        "destinations": destinations,
    }


def _own(row: dict[str, str], sender: str) -> dict[str, str]:
    """The fields of one sender: ``scu:port`` where the form has several senders' fields."""
    own = {k.partition(":")[2]: v for k, v in row.items() if k.startswith(f"{sender}:")}
    return own or row


def _user(form: dict[str, str], old: Entry) -> Entry:
    return {
        **old,
        "email": form.get("email", ""),
        "name": form.get("name", ""),
        "role": form.get("role", ""),
        "facilities": [name.removeprefix("at:") for name in form if name.startswith("at:")],
        "password": form.get("password") or old.get("password", ""),
    }

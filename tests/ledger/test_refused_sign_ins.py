"""Failed sign-ins and lockouts are in the audit, and a brute force does not fill it."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from rso.ledger import Ledger, audit, refused_sign_ins, tries
from rso.ledger.exams import now
from rso.ledger.people import sign_in, upsert_user
from rso.ledger.refused_sign_ins import note_refused

ME = "tech@example.org"


async def noted(ledger: Ledger) -> list[tuple[str, dict[str, Any]]]:
    """What the audit holds."""
    rows = await ledger.fetch("SELECT actor, action, facts FROM audit ORDER BY id")
    assert {row["actor"] for row in rows} <= {"sign-in"}
    return [(row["action"], msgspec.json.decode(row["facts"])) for row in rows]


@pytest.fixture
async def people(ledger: Ledger) -> Ledger:
    """One person."""
    await upsert_user(ledger, email=ME, role="coordinator", password="$argon2 no password fits")
    return ledger


async def test_a_lockout_is_one_entry(people: Ledger) -> None:
    """Ten wrong passwords and ten more that are not even looked at: two entries."""
    for guess in range(20):
        await sign_in(people, ME.upper(), f"guess {guess}", "192.0.2.1")
    assert await noted(people) == [
        ("sign-in refused", {"account": ME, "address": "192.0.2.1"}),
        ("sign-in locked", {"account": ME, "address": "192.0.2.1", "locked": "account"}),
    ]
    assert await audit.verify(people) is None


async def test_what_was_typed_is_not_written(people: Ledger) -> None:
    """Somebody who types a password, or a patient, into the wrong field."""
    await sign_in(people, "my secret Doe^Jane", "x", "192.0.2.1")
    assert await noted(people) == [("sign-in refused", {"address": "192.0.2.1"})]


async def test_networks_count_not_addresses(people: Ledger) -> None:
    """A site has as many addresses of IPv6 as it likes; another account is another entry."""
    for host in range(3):
        await note_refused(people, "sign-in refused", ME, f"2001:db8:1:2::{host}")
        await note_refused(people, "sign-in refused", "nobody@example.org", f"2001:db8:1:2::{host}")
    await note_refused(people, "sign-in refused", ME, "2001:db8:1:3::1")
    assert [facts.get("account") for _, facts in await noted(people)] == [ME, None, ME]


async def test_a_brute_force_does_not_fill_the_audit(
    people: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From any number of networks a bounded number of entries, the last of which says so."""
    monkeypatch.setattr(refused_sign_ins, "_MOST", 5)
    for host in range(20):
        await note_refused(people, "sign-in refused", ME, f"192.0.2.{host}")
    found = await noted(people)
    assert len(found) == 6
    assert "further" in found[-1][1]
    later = now() + timedelta(minutes=16)
    for module in (refused_sign_ins, tries):
        monkeypatch.setattr(module, "now", lambda: later)
    await note_refused(people, "sign-in refused", ME, "192.0.2.1")
    assert (await noted(people))[6:] == [
        ("sign-in refused", {"account": ME, "address": "192.0.2.1"})
    ]

"""The ledger behaves the same on SQLite and PostgreSQL."""

import asyncio
import contextlib
import sqlite3
from datetime import timedelta

import pytest

from rso.core.errors import ConfigError
from rso.ledger import (
    Ledger,
    LedgerUnavailable,
    LedgerValueError,
    audit,
    new_id,
    site_tables,
    tables,
)
from rso.ledger.deliveries import Answer, add_items, claim_items, complete_items, ensure_delivery
from rso.ledger.exams import now
from rso.ledger.people import sign_in
from rso.ledger.sessions import create_session, end_session, find_session
from rso.ledger.site import all_sources, load_site
from rso.ledger.site_export import export_site
from rso.ledger.tokens import create_token, find_token, revoke_token

SITE = {
    "facility": [
        {
            "code": "NORTH",
            "name": "North",
            "sources": [
                {"channel": "dicom_scp", "identity": "CT", "kind": "technician",
                 "networks": ["10.0.0.0/8"]},
            ],
            "radiologists": [{"code": "READER", "modalities": ["CT"]}],
        }
    ],
    "radiologist": [
        {"code": "READER", "destinations": [
            {"code": "PACS", "sender": "dicom_scu", "options": {"port": 1}}]}
    ],
    "user": [{"email": "Tech@example.org", "role": "technician", "facilities": ["NORTH"],
              "password": "correct horse"}],
}  # fmt: skip


async def test_a_failed_transaction_leaves_nothing(ledger: Ledger) -> None:
    """An exception rolls everything back, and the next transaction works."""

    async def fail() -> None:
        async with ledger.transaction():
            await ledger.insert_rows(site_tables.Login, [login("a")])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await ledger.insert_rows(site_tables.Login, [login("b")])
    rows = await ledger.fetch("SELECT subject FROM login_attempt")
    assert rows == [{"subject": "b"}]


@pytest.mark.parametrize("ledger", ["sqlite"], indirect=True)
async def test_who_gives_up_waiting_for_the_database_leaves_no_transaction(
    ledger: Ledger,
) -> None:
    """Cancelled while another program held the lock: the next transaction begins as usual."""
    (database,) = await ledger.fetch("SELECT file FROM pragma_database_list WHERE name = 'main'")
    other = sqlite3.connect(database["file"], isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(ledger.execute("DELETE FROM login_attempt"))
    await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.sleep(0.1)
    other.execute("ROLLBACK")
    other.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await ledger.insert_rows(site_tables.Login, [login("a")])
    assert await ledger.fetch("SELECT subject FROM login_attempt") == [{"subject": "a"}]


@pytest.mark.parametrize(("column", "value"), [("id", "abc"), ("totp_last_step", 2**63)])
async def test_what_can_be_no_value_is_found_nowhere(
    ledger: Ledger, column: str, value: object
) -> None:
    """A key that is none, from somebody's URL: no row, or the one error that says so."""
    with contextlib.suppress(LedgerValueError):
        assert not await ledger.fetch(f"SELECT id FROM user_account WHERE {column} = ?", value)
    assert await ledger.fetch("SELECT 1 AS one") == [{"one": 1}]


def login(subject: str) -> dict[str, object]:
    """A row of login_attempt."""
    return {"id": new_id(), "subject": subject, "at": now()}


async def test_values_come_back_as_they_went(ledger: Ledger) -> None:
    """Keys are text, times are aware, and Piccolo's own queries work too."""
    row = login("x")
    await ledger.insert_rows(site_tables.Login, [row])
    assert await ledger.fetch("SELECT * FROM login_attempt") == [row]
    assert (await site_tables.Login.select(site_tables.Login.subject))[0]["subject"] == "x"


async def test_bulk_insert_skips_what_is_there(ledger: Ledger) -> None:
    """A conflict is skipped, thousands of rows go in chunks, migration runs twice."""
    await ledger.migrate()
    rows = [login(str(i)) for i in range(12_000)]
    assert await ledger.insert_rows(site_tables.Login, rows) == 12_000
    more = [rows[0], login("new")]
    assert await ledger.insert_rows(site_tables.Login, more, on_conflict="nothing") == 1


async def items(ledger: Ledger, count: int) -> str:
    """A delivery with so many pending items."""
    at = now()
    ids = [new_id() for _ in range(count)]
    await ledger.insert_rows(
        tables.Instance,
        [
            {"id": i, "facility": "N", "study": new_id(), "sop_instance_uid": i,
             "sop_class_uid": "1", "series_instance_uid": "1", "transfer_syntax_uid": "1",
             "digest": i, "size": 1, "batch": new_id(), "received_at": at}
            for i in ids
        ],
    )  # fmt: skip
    delivery = await ensure_delivery(ledger, new_id(), "PACS", 2)
    await add_items(ledger, delivery, "PACS", ids, 2)
    await add_items(ledger, delivery, "PACS", ids, 2)
    return delivery


async def test_claims_overlap_nowhere_and_are_fenced(ledger: Ledger) -> None:
    """Several owners share the work; an answer counts only from who holds the lease."""
    delivery = await items(ledger, 300)
    claims = await asyncio.gather(
        *(claim_items(ledger, "PACS", f"w{i % 3}", limit=30, seconds=60) for i in range(12))
    )
    rows = [row for rows in claims for row in rows]
    assert len(rows) == len({row["item"] for row in rows}) == 300
    answers = [
        Answer(item=r["item"], delivery=delivery, instance=r["instance"], state="acknowledged")
        for r in rows
    ]
    await complete_items(ledger, "nobody", answers)
    rows = await ledger.fetch("SELECT acknowledged, total, state FROM delivery")
    assert rows == [{"acknowledged": 0, "total": 300, "state": "pending"}]
    for worker in ("w0", "w1", "w2"):
        await complete_items(ledger, worker, answers)
    rows = await ledger.fetch("SELECT acknowledged, total, state FROM delivery")
    assert rows == [{"acknowledged": 300, "total": 300, "state": "delivered"}]


async def test_an_expired_lease_is_claimed_again(ledger: Ledger) -> None:
    """Work of a worker that died comes back, once its lease is over."""
    await items(ledger, 5)
    assert len(await claim_items(ledger, "PACS", "dead", limit=9, seconds=-1)) == 5
    assert len(await claim_items(ledger, "PACS", "alive", limit=9, seconds=60)) == 5
    assert not await claim_items(ledger, "PACS", "third", limit=9, seconds=60)


async def test_a_site_loads_twice_and_exports_what_loads(ledger: Ledger) -> None:
    """Loading is idempotent; an export holds hashes and loads again."""
    await load_site(ledger, SITE)
    await load_site(ledger, SITE)
    exported = await export_site(ledger)
    assert exported["user"][0]["password"].startswith("$argon2")
    assert "correct horse" not in str(exported)
    await load_site(ledger, exported)
    assert await export_site(ledger) == exported
    assert [s.identity for s in await all_sources(ledger)] == ["CT"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {
                "facility": [
                    {
                        "code": "X",
                        "sources": [
                            {
                                "channel": "dicom_scp",
                                "identity": "MR",
                                "kind": "technician",
                                "password": "correct horse",
                            }
                        ],
                    }
                ]
            },
            "dicom_scp/MR of X: needs networks or a certificate: its password",
        ),
        ({"facility": [{"code": "X", "colour": "red"}]}, r"colour.*\$\.facility\[0\]"),
        ({"facility": [{"code": "X", "radiologists": [{"code": "NOBODY"}]}]}, "NOBODY"),
        (
            {"facility": [{"code": "SOUTH", "sources": SITE["facility"][0]["sources"]}]},
            "cannot be told apart",
        ),
        ({"user": [{"email": "a@b", "role": "technician"}]}, "needs facilities"),
    ],
)
async def test_a_wrong_site_changes_nothing(
    ledger: Ledger, change: dict[str, object], message: str
) -> None:
    """A mistake names its place, and nothing of the document is kept."""
    await load_site(ledger, SITE)
    before = await export_site(ledger)
    with pytest.raises(ConfigError, match=message):
        await load_site(ledger, change)
    assert await export_site(ledger) == before


async def test_people_sign_in_and_out(ledger: Ledger) -> None:
    """The right password makes a session; its end, and a revoked token, mean nobody."""
    await load_site(ledger, SITE)
    assert isinstance(await sign_in(ledger, "tech@example.org", "wrong", "1.1.1.1"), str)
    person = await sign_in(ledger, "TECH@example.org", "correct horse", "1.1.1.1")
    assert not isinstance(person, str)
    assert person.facilities == ("NORTH",)
    secret = await create_session(ledger, person)
    assert await find_session(ledger, secret) is not None
    assert await find_session(ledger, "adopted by a stranger") is None
    await end_session(ledger, secret)
    assert await find_session(ledger, secret) is None
    token = await create_token(ledger, email="tech@example.org")
    assert await find_token(ledger, token) == person
    rows = await ledger.fetch("SELECT id FROM api_token")
    assert await revoke_token(ledger, rows[0]["id"])
    assert await find_token(ledger, token) is None


async def test_guessing_is_limited_whatever_the_address(ledger: Ledger) -> None:
    """Ten wrong passwords lock the account for a minute, also for the right one."""
    await load_site(ledger, SITE)
    at = now() - timedelta(seconds=5)
    await ledger.insert_rows(
        site_tables.Login,
        [{"id": new_id(), "subject": "account:tech@example.org", "at": at} for _ in range(10)],
    )
    refused = await sign_in(ledger, "tech@example.org", "correct horse", "9.9.9.9")
    assert isinstance(refused, str)
    assert "wait" in refused


async def test_the_audit_notices_changes(ledger: Ledger) -> None:
    """A changed entry and a missing one are found."""
    for i in range(5):
        await audit.append(ledger, actor="a", action=f"did {i}", facts={"n": str(i)})
    assert await audit.verify(ledger) is None
    await ledger.execute("UPDATE audit SET action = 'other' WHERE id = 3")
    assert await audit.verify(ledger) == 3


async def test_sources_that_come_at_once_are_told_apart(ledger: Ledger) -> None:
    """One AE title with the same network at two facilities: only one of the changes is taken."""
    source = SITE["facility"][0]["sources"][0]  # type: ignore[index]
    both = await asyncio.gather(
        *(load_site(ledger, {"facility": [{"code": code, "sources": [source]}]})
          for code in ("EAST", "WEST", "UP", "DOWN")),
        return_exceptions=True,
    )  # fmt: skip
    assert [isinstance(one, ConfigError) for one in both].count(True) == 3


@pytest.mark.parametrize("ledger", ["sqlite"], indirect=True)
async def test_a_database_without_room_is_away(ledger: Ledger) -> None:
    """Whatever was asked of it: the loops wait, and go on when there is room."""
    pages = (await ledger.fetch("PRAGMA page_count"))[0]["page_count"]
    await ledger.fetch(f"PRAGMA max_page_count = {pages}")
    many = [login(f"{n}" * 300) for n in range(1000)]
    with pytest.raises(LedgerUnavailable, match="no room"):
        await ledger.insert_rows(site_tables.Login, many)
    add = "INSERT INTO pad VALUES (?)"
    await ledger.fetch("PRAGMA max_page_count = 1000000")
    await ledger.execute("CREATE TABLE pad (text)")
    pages = (await ledger.fetch("PRAGMA page_count"))[0]["page_count"]
    await ledger.fetch(f"PRAGMA max_page_count = {pages}")
    for write in (
        lambda: ledger.execute(add, "x" * 100_000),
        lambda: ledger.execute_many(add, [["x" * 100_000]]),
        lambda: ledger.fetch(f"{add} RETURNING 1", "x" * 100_000),
    ):
        with pytest.raises(LedgerUnavailable, match="no room"):
            await write()
    await ledger.fetch("PRAGMA max_page_count = 1000000")
    await ledger.insert_rows(site_tables.Login, many)
    with pytest.raises(sqlite3.OperationalError):  # an error in the program is one still
        await ledger.execute("SELECT nothing FROM nowhere")

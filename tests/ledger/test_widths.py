"""What comes from hosts, peers and plugins has any length; on PostgreSQL columns have theirs."""

from typing import Any

import msgspec
import pytest

from rso.core.transport import Kind, Provenance
from rso.engine.intake import _note_batches
from rso.engine.spool_reader import BatchOpened
from rso.ledger import Ledger, audit, new_id, tables
from rso.ledger.attempts import keep_attempts
from rso.ledger.deliveries import add_items, claim_items, ensure_delivery, release_items
from rso.ledger.exams import now
from rso.ledger.holds import find_holds, open_hold
from rso.ledger.outbox import add_to_outbox, claim_outbox, give_back_outbox

HOLD = new_id()
HOST = "a-host-of-a-cluster-in-a-zone-of-a-region-of-a-cloud.example.org"


async def queue(ledger: Ledger, destination: str) -> None:
    """One item for a destination."""
    instance = new_id()
    await ledger.insert_rows(tables.Instance, [{
        "id": instance, "facility": "NORTH", "study": new_id(), "sop_instance_uid": instance,
        "sop_class_uid": "1", "series_instance_uid": "1", "transfer_syntax_uid": "1",
        "digest": instance, "size": 1, "batch": instance, "received_at": now(),
    }])  # fmt: skip
    delivery = await ensure_delivery(ledger, new_id(), destination, 2)
    await add_items(ledger, delivery, destination, [instance], 2)


async def owners(ledger: Ledger) -> list[str]:
    """Of the items that are leased."""
    rows = await ledger.fetch(
        "SELECT lease_owner FROM delivery_item WHERE lease_owner <> '' ORDER BY lease_owner"
    )
    return [row["lease_owner"] for row in rows]


async def test_a_host_of_a_long_name_leases(ledger: Ledger) -> None:
    """Its name, its process and the longest code of a destination together."""
    code = "C" * 64
    await queue(ledger, code)
    owner = f"{HOST}/work-0/4194304:{code}"
    assert len(await claim_items(ledger, code, owner, limit=1, seconds=60)) == 1
    await release_items(ledger, f"{HOST}/work-0/")
    assert await owners(ledger) == []
    await add_to_outbox(ledger, "hook", "exam_created", exam=None, payload={})
    claim: dict[str, Any] = {"kind": "hook", "states": ("queued",), "limit": 1, "seconds": 60}
    assert len(await claim_outbox(ledger, owner, now(), **claim)) == 1
    await give_back_outbox(ledger, "hook", f"{HOST}/work-0/")
    assert len(await claim_outbox(ledger, "another", now(), **claim)) == 1


async def test_a_courier_gives_its_own_leases_back(ledger: Ledger) -> None:
    """Not those of a destination whose code begins alike, or of a host that looks alike."""
    names = {"PACS": "a_b/work-0/1:PACS", "PACS-2": "a_b/work-0/1:PACS-2", "CT": "axb/work-0/1:CT"}
    for code, owner in names.items():
        await queue(ledger, code)
        assert await claim_items(ledger, code, owner, limit=1, seconds=60)
    await release_items(ledger, names["PACS"])
    assert sorted(await owners(ledger)) == sorted([names["PACS-2"], names["CT"]])
    await release_items(ledger, "a_b/work-0/")
    assert await owners(ledger) == [names["CT"]]


@pytest.mark.parametrize("length", [300, 301, 500])
async def test_a_long_message_is_written_once(ledger: Ledger, length: int) -> None:
    """However long what tells it from others is, and where others differ at the end only."""
    for end, written in (("a", 1), ("b", 1), ("a", 0)):
        dedupe = "x" * (length - 1) + end
        added = await add_to_outbox(
            ledger, "notify", "manual", exam=None, payload={}, dedupe=dedupe
        )
        assert added == written


async def test_words_of_plugins_and_peers_are_cut(ledger: Ledger) -> None:
    """A hold, an attempt, a batch and an entry of the audit are written whatever they say."""
    long = "w" * 500
    for _ in range(2):
        await open_hold(ledger, kind="study", facility="NORTH", study=HOLD, reason=long)
    assert [hold.reason for hold in await find_holds(ledger)] == ["w" * 64]
    await keep_attempts(ledger, [(new_id(), new_id(), "pending", long, long, now())])
    await audit.append(ledger, actor=long, action=long, facility=long, facts={"said": long})
    assert await audit.verify(ledger) is None
    provenance = Provenance(
        channel="dicom_scp", facility="NORTH", source=long, kind=Kind.TECHNICIAN,
        peer_address=long, opened_at=now(), calling_ae_title=long, called_ae_title=long, user=long,
    )  # fmt: skip
    await _note_batches(ledger, [BatchOpened(batch_id=new_id(), provenance=provenance)])
    (batch,) = await ledger.fetch("SELECT source, peer_address, account FROM batch")
    assert [len(text) for text in batch.values()] == [128, 64, 254]
    assert msgspec.json.decode((await ledger.fetch("SELECT facts FROM audit"))[0]["facts"])

"""How the site stands, over the JSON API: figures, refusals and bans, where an exam goes."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from rso.app import create_app
from rso.core.exam import Patient, Priority
from rso.engine.context import Engine
from rso.engine.exams import create_exam
from rso.ledger import audit
from rso.ledger.exams import now
from rso.ledger.people import upsert_user
from rso.ledger.site import load_site
from rso.ledger.tokens import create_token
from rso.plugins import Bans

pytestmark = pytest.mark.parametrize("ledger", ["sqlite"], indirect=True)
Client = AsyncTestClient[Litestar]


@pytest.fixture
async def client(clinics: Engine) -> AsyncIterator[Client]:
    """The application, in this process."""
    async with AsyncTestClient(create_app(clinics, None, [])) as made:
        yield made


async def bearer(engine: Engine, role: str, *facilities: str) -> dict[str, str]:
    """Headers of a token of somebody of this role."""
    email = f"{role}-{'-'.join(facilities).lower()}@x.example"
    await upsert_user(engine.ledger, email=email, role=role, facilities=facilities)
    return {"Authorization": f"Bearer {await create_token(engine.ledger, email=email)}"}


async def deliver(engine: Engine, facility: str, minutes: int) -> None:
    """A STAT exam that was delivered after so many minutes."""
    exam = await create_exam(
        engine, facility=facility, patient=Patient(name="SECRET^NAME"), priority=Priority.STAT,
        actor="t",
    )  # fmt: skip
    await engine.ledger.execute(
        "UPDATE exam SET status = 'delivered', created_at = ?, delivered_at = ? WHERE id = ?",
        now() - timedelta(minutes=minutes), now(), exam.id,
    )  # fmt: skip


async def test_figures_are_the_dashboards(clinics: Engine, client: Client) -> None:
    """Numbers where the page has words, of one's facilities; for coordinators only."""
    await deliver(clinics, "NORTH", 20)
    await deliver(clinics, "NORTH", 90)
    await deliver(clinics, "SOUTH", 2000)
    north, all_ = (
        await bearer(clinics, "coordinator", "NORTH"),
        await bearer(clinics, "coordinator"),
    )
    answer = await client.get("/api/figures", headers=north)
    assert answer.status_code == 200, answer.text
    assert "SECRET" not in answer.text
    found = answer.json()
    (stat,) = found["turnaround"]
    assert (stat["priority"], stat["exams"], stat["on_target"]) == ("stat", 2, 50)
    assert stat["half_minutes"] == pytest.approx(55, abs=1)
    assert (found["hours"], len(found["flow"]), found["states"]["delivered"]) == (24, 24, 2)
    assert sum(hour["delivered"] for hour in found["flow"]) == 2
    assert found["holds"] == {"count": 0, "alarms": 0, "oldest": None}
    more = (await client.get("/api/figures?hours=48", headers=all_)).json()
    assert (len(more["flow"]), more["turnaround"][0]["exams"]) == (48, 3)
    assert (await client.get("/api/figures?hours=7", headers=all_)).status_code == 400
    for role in ("customer", "technician", "auditor"):
        who = await bearer(clinics, role, "NORTH")
        assert (await client.get("/api/figures", headers=who)).status_code == 403


async def test_refusals_are_told_and_bans_lifted(clinics: Engine, client: Client) -> None:
    """Those of one's facility, bans to who sees the whole site; an administrator lifts them."""
    for facility in ("NORTH", "SOUTH", ""):
        await audit.append(
            clinics.ledger, actor="receiver", action="association refused", facility=facility,
            facts={"peer": "10.9.9.9", "calling": f"CT{facility}", "reason": "unknown"},
        )  # fmt: skip
    bans = Bans(clinics.settings.data_dir / "receivers" / "dicom_scp" / "bans", after=1)
    bans.failed("192.0.2.9", "NOBODY")
    bans.failed("2001:db8::1", "OTHER")
    north, boss = await bearer(clinics, "coordinator", "NORTH"), await bearer(clinics, "admin")
    seen = (await client.get("/api/refusals", headers=north)).json()
    assert ([r["name"] for r in seen["refusals"]], seen["bans"]) == (["CTNORTH"], [])
    everything = (await client.get("/api/refusals", headers=boss)).json()
    assert {r["name"] for r in everything["refusals"]} == {"CTNORTH", "CTSOUTH", "CT"}
    banned = {ban["address"] for ban in everything["bans"]}
    assert banned == {"192.0.2.9", "2001:db8::/64"}
    who = await bearer(clinics, "technician", "NORTH")
    assert (await client.get("/api/refusals", headers=who)).status_code == 403
    for address in sorted(banned):
        url, body = "/api/bans/lift", {"address": address}
        assert (await client.post(url, headers=north, json=body)).status_code == 403
        assert (await client.post(url, headers=boss, json=body)).json() == {"bans": 1}
        assert (await client.post(url, headers=boss, json=body)).status_code == 404
    assert (await client.post("/api/bans/lift", headers=boss, json={})).status_code == 400
    assert (await client.get("/api/refusals", headers=boss)).json()["bans"] == []
    told = await clinics.ledger.fetch("SELECT actor FROM audit WHERE action = 'bans lifted'")
    assert [row["actor"] for row in told] == ["admin-@x.example"] * 2


async def test_the_route_of_an_exam_is_explained(clinics: Engine, client: Client) -> None:
    """By modality, priority and hour, with why; nothing of a destination's options is told."""
    night = {"start": "18:00", "end": "06:00", "time_zone": "America/Los_Angeles"}
    await load_site(clinics.ledger, {
        "radiologist": [{"code": "R", "destinations": [
            {"code": "R-PACS", "sender": "dicom_scu", "options": {
                "ae_title": "HIDDEN", "host": "127.0.0.1", "port": 1}}]}],
        "facility": [{"code": "NORTH", "radiologists": [
            {"code": "R", "modalities": ["CT"], "hours": [night]}]}],
    })  # fmt: skip
    boss = await bearer(clinics, "admin")

    async def ask(status: int = 200, **asked: str) -> dict[str, Any]:
        answer = await client.get("/api/route", headers=boss, params=asked)
        assert answer.status_code == status, answer.text
        assert "HIDDEN" not in answer.text
        found: dict[str, Any] = answer.json()
        return found

    late = "2026-03-02T08:00:00"  # midnight in Los Angeles
    found = await ask(facility="NORTH", modality="ct", at=late)
    assert found == {
        "destinations": [{"code": "R-PACS", "radiologist": "R", "sender": "dicom_scu"}],
        "because": ["R reads this"], "decided_by": "", "problem": "",
    }  # fmt: skip
    found = await ask(facility="NORTH", modality="CT", at="2026-03-02T12:00:00-08:00")
    assert (found["destinations"], found["because"]) == (
        [], ["R is passed over: outside their hours"],
    )  # fmt: skip
    found = await ask(facility="NORTH", modality="MR", at=late)
    assert found["because"] == ["R is passed over: modality MR is not CT"]
    await ask(404, facility="EAST")
    await ask(400)
    for at in ("0001-01-01T00:00:00", "9999-12-31T23:59:59-12:00", "noon"):
        await ask(400, facility="NORTH", modality="CT", at=at)
    page = await client.get(
        "/admin/route?facility=NORTH&modality=CT&at=0001-01-01T00:00",
        headers={**boss, "Accept": "text/html"},
    )
    assert page.status_code == 400
    who = await bearer(clinics, "coordinator")
    assert (await client.get("/api/route?facility=NORTH", headers=who)).status_code == 403

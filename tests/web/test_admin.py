"""Administration: forms and documents do the same, and say first what they change."""

from typing import Any

import tomli
import tomlkit
from litestar import Litestar
from litestar.testing import AsyncTestClient

from rso.ledger import audit
from rso.ledger.site import export_site

Client = AsyncTestClient[Litestar]
NEW = """
[[facility]]
code = "WEST"
retention_days = 30
turnaround = { stat_minutes = 45 }
radiologists = [ { code = "R", hours = [ { start = "18:00", end = "07:00" } ] } ]

[[user]]
email = "tech@example.org"
role = "technician"
facilities = ["NORTH", "WEST"]
password = "a brand new password"
"""


async def test_import_shows_before_it_changes(web: Client, enter: Any) -> None:
    """The preview names each field and no password, and changes nothing; applying is audited."""
    boss = await enter(web, "admin")
    ledger = web.app.state.engine.ledger
    before = await export_site(ledger)
    shown = await web.post("/admin/import", headers=boss, data={"text": NEW})
    assert shown.status_code == 200
    for word in ("facility WEST", "added", "user tech@example.org", "retention_days", "hash …"):
        assert word in shown.text
    # The text comes back in the form to be applied; what changes names no password.
    assert "brand new password" not in shown.text.partition("<textarea")[0]
    assert "argon2" not in shown.text
    assert await export_site(ledger) == before
    done = await web.post("/admin/import", headers=boss, data={"text": NEW, "apply": "yes"},
                          follow_redirects=False)  # fmt: skip
    assert done.status_code == 303
    after = await export_site(ledger)
    assert [f["code"] for f in after["facility"]] == ["NORTH", "WEST"]
    rows = await ledger.fetch("SELECT facts FROM audit WHERE action = 'site changed'")
    assert len(rows) == 2
    again = await web.post("/admin/import", headers=boss, data={"text": NEW})
    assert "It would change nothing" in again.text
    # What is exported is what can be loaded.
    exported = tomlkit.dumps(after)
    assert tomli.loads(exported) == tomli.loads(
        (await web.get("/admin/site.toml", headers=boss)).text
    )
    assert "It would change nothing" in (
        await web.post("/admin/import", headers=boss, data={"text": exported})
    ).text  # fmt: skip


async def test_a_wrong_document_changes_nothing(web: Client, enter: Any) -> None:
    """Not TOML, an unknown field, a file of the server's as a secret: said, and no more."""
    boss = await enter(web, "admin")
    ledger = web.app.state.engine.ledger
    before = await export_site(ledger)
    for text in (
        "no toml", '[[facility]]\ncode = "X"\nunknown = 1\n',
        '[[user]]\nemail = "a@b.c"\nrole = "admin"\npassword = { file = "/etc/passwd" }\n',
        '[[facility]]\ncode = "X"\nradiologists = [ { code = "NOBODY" } ]\n',
    ):  # fmt: skip
        for more in ({}, {"apply": "yes"}):
            answer = await web.post("/admin/import", headers=boss, data={"text": text, **more})
            assert answer.status_code == 422
            assert 'role="alert"' in answer.text
    assert await export_site(ledger) == before


async def test_a_facility_by_its_form(web: Client, enter: Any) -> None:
    """Targets, retention, hours and days, a certificate; what is wrong comes back as typed."""
    boss = await enter(web, "admin")
    form = {
        "new": "no", "code": "NORTH", "name": "North", "settle_seconds": "7",
        "stat_minutes": "45", "retention_days": "30",
        "source-01-channel": "dicom_scp", "source-01-identity": "CT1",
        "source-01-kind": "technician", "source-01-certificate_fingerprint": "ab" * 32,
        "reader-01-code": "R", "reader-01-hours": "18:00 - 07:00",
        "reader-01-time_zone": "Europe/Berlin", "reader-01-days": "1 2 3",
    }  # fmt: skip
    done = await web.post("/admin/facilities/save", headers=boss, data=form, follow_redirects=False)
    assert done.status_code == 303, done.text
    (north,) = (await export_site(web.app.state.engine.ledger))["facility"]
    assert (north["settle_seconds"], north["retention_days"]) == (7, 30)
    assert north["turnaround"] == {"stat_minutes": 45}
    assert north["sources"][0]["certificate_fingerprint"] == "ab" * 32
    (hours,) = north["radiologists"][0]["hours"]
    assert (hours["start"], hours["end"], list(hours["days"])) == ("18:00", "07:00", [1, 2, 3])
    wrong = await web.post(
        "/admin/facilities/save", headers=boss, data=form | {"retention_days": "a while"}
    )
    assert wrong.status_code == 422
    assert 'value="a while"' in wrong.text
    for at, goes in (("2026-11-23T20:00", "It goes to R-PACS"), ("2026-11-23T12:00", "outside"),
                     ("2026-11-28T20:00", "outside")):  # fmt: skip
        shown = await web.get(f"/admin/route?facility=NORTH&modality=CT&at={at}", headers=boss)
        assert goes in shown.text


async def test_the_audit_is_exported_as_it_is_filtered(web: Client, enter: Any) -> None:
    """All of it by its address; what the page was asked for by its button."""
    boss = await enter(web, "admin")
    ledger = web.app.state.engine.ledger
    await audit.append(ledger, actor="tech@example.org", action="exam created")
    await audit.append(ledger, actor="boss@example.org", action="site changed")
    whole = (await web.get("/audit.csv", headers=boss)).text.splitlines()
    form = {"actor": "tech@example.org", "exam": "", "action": ""}
    found = (await web.post("/audit.csv", headers=boss, data=form)).text.splitlines()
    assert len(whole) > len(found) == 2
    assert "tech@example.org" in found[1]

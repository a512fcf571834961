"""Administration: forms and documents do the same, and say first what they change."""

from collections.abc import Sequence
from types import ModuleType
from typing import Annotated, Any, Literal

import tomli
import tomlkit
from litestar import Litestar
from litestar.testing import AsyncTestClient
from msgspec import Meta, Struct

from rso.core.errors import RoutingError
from rso.core.routing import Attachment, Route
from rso.core.secret import Secret
from rso.ledger import audit
from rso.ledger.site import load_site
from rso.ledger.site_export import export_site
from rso.ledger.tokens import create_token, find_token
from rso.plugins import Health, PermanentTransportError, Sender, SenderSession, hookimpl
from rso.testing.certificates import make_certificate

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


async def test_a_password_of_a_document_ends_what_the_old_one_opened(
    web: Client, enter: Any
) -> None:
    """Sessions and API tokens of whom it changes, by page and API; the same again ends nothing."""
    boss, tech = await enter(web, "admin"), await enter(web, "technician")
    ledger = web.app.state.engine.ledger
    token = await create_token(ledger, email="tech@example.org")
    await web.post("/admin/import", headers=boss, data={"text": NEW, "apply": "yes"})
    assert (await web.get("/", headers=tech, follow_redirects=False)).status_code == 302
    assert await find_token(ledger, token) is None
    token = await create_token(ledger, email="tech@example.org")
    person = {"role": "technician", "facilities": ["NORTH"], "password": "a brand new password"}
    url = "/api/users/tech@example.org"
    assert (await web.put(url, headers=boss, json=person)).status_code == 204
    assert await find_token(ledger, token) is not None
    changed = person | {"password": "another new password"}
    assert (await web.put(url, headers=boss, json=changed)).status_code == 204
    assert await find_token(ledger, token) is None


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
    shown = (await web.get("/admin/facilities/edit/NORTH", headers=boss)).text
    assert "<th>Certificate" not in shown, "it stands in the fold of its row"
    assert f'name="source-01-certificate_fingerprint" value="{"ab" * 32}"' in shown
    assert shown.count('<span class="flag">certificate</span>') == 1
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


async def test_certificate_and_quota_by_the_form(web: Client, enter: Any, tmp_path: Any) -> None:
    """Both are set, shown and taken away; what is no certificate or no number is refused."""
    boss = await enter(web, "admin")
    ledger = web.app.state.engine.ledger
    pem = make_certificate(tmp_path, "modality")[0].read_text()
    form = {
        "new": "no", "code": "NORTH", "quota_bytes_per_day": "1000000",
        "source-01-channel": "dicom_scp", "source-01-identity": "CT1",
        "source-01-kind": "technician", "source-01-certificate": pem.replace("\n", "\r\n"),
        "source-01-quota_associations": "4", "source-01-quota_instances_per_day": "5000",
        "source-01-cleartext": "yes",
    }  # fmt: skip
    url = "/admin/facilities/save"
    done = await web.post(url, headers=boss, data=form, follow_redirects=False)
    assert done.status_code == 303, done.text
    (north,) = (await export_site(ledger))["facility"]
    (source,) = north["sources"]
    assert source["certificate"] == pem.strip()
    assert source["quota"] == {"associations": 4, "instances_per_day": 5000}
    assert (north["quota"], source["cleartext"]) == ({"bytes_per_day": 1_000_000}, True)
    shown = (await web.get("/admin/facilities/edit/NORTH", headers=boss)).text
    assert pem.strip() in shown
    assert 'name="source-01-quota_instances_per_day" inputmode="numeric" value="5000"' in shown
    for wrong in ({"source-01-certificate": "-----BEGIN"}, {"quota_bytes_per_day": "many"},
                  {"source-01-quota_associations": "-1"}):  # fmt: skip
        answer = await web.post(url, headers=boss, data=form | wrong)
        assert answer.status_code == 422
        assert next(iter(wrong.values())) in answer.text
    assert (await export_site(ledger))["facility"] == [north]
    less = {name: text for name, text in form.items() if "quota" not in name} | {
        "source-01-certificate": "", "source-01-networks": "10.0.0.0/8",
        "source-01-quota_associations": "", "source-01-quota_instances_per_day": "",
        "quota_bytes_per_day": "",
    }  # fmt: skip
    await web.post(url, headers=boss, data=less)
    (north,) = (await export_site(ledger))["facility"]
    assert not north["quota"]
    assert not [
        north["sources"][0][k] for k in ("certificate", "quota") if north["sources"][0].get(k)
    ]


async def test_on_call_windows_and_days_by_the_form(web: Client, enter: Any) -> None:
    """A row for each window; what the form showed and sends back changes nothing."""
    boss = await enter(web, "admin")
    ledger = web.app.state.engine.ledger
    (north,) = (await export_site(ledger))["facility"]
    windows = [
        {"start": "18:00", "end": "07:00", "time_zone": "Europe/Berlin", "days": [1, 2, 3, 4, 5]},
        {"start": "00:00", "end": "23:59", "time_zone": "UTC", "days": [6, 7]},
    ]
    calls = [{"person": "tech@example.org", "hours": windows}, {"person": "coord@example.org"}]
    await load_site(ledger, {"facility": [north | {"on_call": calls}]})
    before = await export_site(ledger)
    shown = (await web.get("/admin/facilities/edit/NORTH", headers=boss)).text
    assert shown.count("<option selected>tech@example.org</option>") == 2
    assert 'value="6 7"' in shown
    call = {"person": "tech@example.org", "order": "1"}
    rows = [call | {"hours": "18:00-07:00", "time_zone": "Europe/Berlin", "days": "1 2 3 4 5"},
            call | {"hours": "00:00-23:59", "time_zone": "UTC", "days": "6 7"},
            {"person": "coord@example.org", "order": "2", "hours": "", "days": ""},
            {"person": "", "order": "3", "hours": "", "days": ""}]  # fmt: skip
    form = {f"call-{i:02d}-{k}": v for i, row in enumerate(rows, 1) for k, v in row.items()}
    source = {f"source-01-{k}": north["sources"][0][k] for k in ("channel", "identity", "kind")}
    form |= {"new": "no", "code": "NORTH", "reader-01-code": "R", **source}
    done = await web.post("/admin/facilities/save", headers=boss, data=form, follow_redirects=False)
    assert done.status_code == 303, done.text
    assert await export_site(ledger) == before
    await web.post("/admin/facilities/save", headers=boss, data=form | {"call-01-order": "9"})
    (north,) = (await export_site(ledger))["facility"]
    people = [(c["person"], len(c.get("hours", ()))) for c in north["on_call"]]
    assert people == [
        ("tech@example.org", 1), ("coord@example.org", 0), ("tech@example.org", 1),
    ]  # fmt: skip


class CourierOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of every shape that a form has."""

    depot: Annotated[str, Meta(description="where it is left")]
    key: Secret = Secret()
    boxes: Annotated[int, Meta(ge=1, le=9)] = 3
    fast: bool = True
    way: Literal["road", "rail"] = "road"
    stops: tuple[str, ...] = ()
    more: dict[str, str] = {}


class Courier(Sender):
    """Carries nothing."""

    name = "courier"
    options_type = CourierOptions

    def open(self, wanted: Sequence[tuple[str, str]]) -> SenderSession:
        """Never."""
        raise PermanentTransportError("it carries nothing")

    def check(self) -> Health:
        """Ready."""
        return Health(ok=True, detail=f"with {self.options.key.reveal()}")


async def test_options_of_any_installed_sender(web: Client, enter: Any) -> None:
    """The form has what the sender's Struct has, refuses what it refuses, and keeps the rest."""
    boss = await enter(web, "admin")
    engine = web.app.state.engine
    engine.plugins.senders["courier"] = (Courier, None)
    url, n = "/admin/radiologists/save", "destination-02-courier:"
    edit = (await web.get("/admin/radiologists/edit/R", headers=boss)).text
    for word in (f'name="{n}depot"', f'name="{n}way"', "where it is left; required",
                 'name="destination-01-ae_title" value="PACS"', 'name="destination-01-tls"'):  # fmt: skip
        assert word in edit
    form = {
        "new": "no", "code": "R", "destination-01-code": "R-PACS", "destination-01-host": "127.0.0.1",
        "destination-01-sender": "dicom_scu", "destination-01-ae_title": "PACS",
        "destination-01-port": "1", "destination-02-code": "R-BOX",
        "destination-02-sender": "courier", f"{n}boxes": "2", f"{n}way": "rail",
        f"{n}stops": "HERE, THERE", f"{n}key": "a secret", "destination-02-port": "7",
    }  # fmt: skip
    missing = await web.post(url, headers=boss, data=form)
    assert missing.status_code == 422
    assert "destination R-BOX, options: Object missing required field `depot`" in missing.text
    form[f"{n}depot"] = "gate"
    for name, text, said in (
        ("boxes", "10", "boxes"),
        ("boxes", "many", "many"),
        ("boxes", "nan", "boxes"),
    ):
        answer = await web.post(url, headers=boss, data=form | {n + name: text})
        assert (answer.status_code, said in answer.text) == (422, True)
    done = await web.post(url, headers=boss, data=form, follow_redirects=False)
    assert done.status_code == 303, done.text
    box, pacs = (await export_site(engine.ledger))["radiologist"][0]["destinations"]
    assert pacs["options"] == {"ae_title": "PACS", "host": "127.0.0.1", "port": 1}
    assert box["options"] == {
        "depot": "gate", "boxes": 2, "way": "rail", "stops": ["HERE", "THERE"], "key": "a secret",
        "fast": False,
    }  # fmt: skip
    assert "a secret" not in (await web.get("/admin/radiologists/edit/R", headers=boss)).text
    tested = await web.post("/admin/test/R-BOX", headers=boss)
    assert tested.json() == {"ok": True, "detail": "with a secret"}
    # Sent back as it was shown, with a table that the form cannot show: nothing changes.
    kept = {"depot": "gate", "boxes": 3, "key": "a secret", "more": {"a": "b"}}
    entry = {"code": "R", "destinations": [{"code": "R-BOX", "sender": "courier", "options": kept}]}
    await load_site(engine.ledger, {"radiologist": [entry]})
    same = {"new": "no", "code": "R", "destination-01-code": "R-BOX",
            "destination-01-sender": "courier", "destination-01-depot": "gate",
            "destination-01-boxes": "3", "destination-01-fast": "yes",
            "destination-01-way": "", "destination-01-key": ""}  # fmt: skip
    await web.post(url, headers=boss, data=same)
    found = (await export_site(engine.ledger))["radiologist"][0]["destinations"]
    assert found[0]["options"] == kept
    # A sender that is gone keeps what it had.
    del engine.plugins.senders["courier"]
    assert "courier (not installed)" in (
        await web.get("/admin/radiologists/edit/R", headers=boss)
    ).text  # fmt: skip
    await web.post(url, headers=boss, data=same | {"destination-01-depot": "x"})
    found = (await export_site(engine.ledger))["radiologist"][0]["destinations"]
    assert found[0]["options"] == kept


async def test_the_route_tester_asks_plugins_too(web: Client, enter: Any) -> None:
    """The page says who decided, as routing itself would; a plugin that fails is named."""
    boss = await enter(web, "admin")
    plugins = web.app.state.engine.plugins

    def rso_route_exam(exam: Any, attachments: Sequence[Attachment]) -> Route | None:
        if exam.modality == "XA":
            raise RoutingError("PATIENT DATA")
        if exam.modality != "MR":
            return None
        return Route(destinations=attachments[0].destinations, because=("all MR goes there",))

    module = ModuleType("night_rule")
    module.rso_route_exam = hookimpl(rso_route_exam)  # type: ignore[attr-defined]
    plugins.register(module, "night_rule")

    async def asked(modality: str, **more: str) -> str:
        answer = await web.get(
            "/admin/route", headers=boss, params={"facility": "NORTH", "modality": modality, **more}
        )
        assert answer.status_code == 200
        return answer.text

    mr = await asked("mr", at="2026-11-23T20:00")
    for word in ("It goes to R-PACS", "all MR goes there", "plugin night_rule", "own rule only"):
        assert word in mr
    assert "Decided by RSO" in await asked("CT")
    failed = await asked("XA")
    assert "It is held: plugin night_rule: rso_route_exam failed: RoutingError" in failed
    assert "PATIENT DATA" not in failed

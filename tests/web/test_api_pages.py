"""What the pages have, over the JSON API: the list, an exam's timeline, images and notes."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from rso.app import create_app
from rso.core.exam import Exam, Patient, Priority
from rso.engine.context import Engine
from rso.engine.exams import create_exam
from rso.engine.owners import claim_exam
from rso.ledger import Ledger, new_id, site_tables, tables
from rso.ledger.attempts import keep_attempts
from rso.ledger.exams import now
from rso.ledger.people import upsert_user
from rso.ledger.tokens import create_token

pytestmark = pytest.mark.parametrize("ledger", ["sqlite"], indirect=True)
ME, LEAD, SOUTH = "tech@north.example", "lead@example.org", "tech@south.example"
Client = AsyncTestClient[Litestar]


@pytest.fixture
async def client(clinics: Engine) -> AsyncIterator[Client]:
    """The application, in this process."""
    async with AsyncTestClient(create_app(clinics, None, [])) as made:
        yield made


async def bearer(engine: Engine, email: str = ME, role: str = "") -> dict[str, str]:
    """Headers of somebody's token; with a role of a person of NORTH made for it."""
    if role:
        await upsert_user(engine.ledger, email=email, role=role, facilities=("NORTH",))
    return {"Authorization": f"Bearer {await create_token(engine.ledger, email=email)}"}


async def make_exam(engine: Engine, name: str, facility: str = "NORTH", **more: Any) -> Exam:
    """An exam of a patient."""
    return await create_exam(
        engine, facility=facility, patient=Patient(name=name, patient_id="P1"), actor=ME, **more
    )


async def receive(ledger: Ledger, exam: Exam, count: int) -> tuple[list[str], str]:
    """Images of an exam, half of them acknowledged by R-PACS; their keys, and the batch's."""

    def row(table: Any, **known: Any) -> dict[str, Any]:
        kinds = {"Varchar": "", "Text": "", "JSON": "{}", "Boolean": False, "Timestamptz": now()}
        made = {}
        for column in table._meta.columns:
            name, blank = column._meta.name, kinds.get(type(column).__name__, 0)
            made[name] = known.get(name, None if column._meta.null else blank)
        return made

    study, batch, delivery = new_id(), new_id(), new_id()
    keys = [new_id() for _ in range(count)]
    await ledger.insert_rows(tables.Study, [row(
        tables.Study, id=study, exam=exam.id, facility=exam.facility, state="matched",
        study_instance_uid="1.2.3",
    )])  # fmt: skip
    await ledger.insert_rows(tables.Batch, [row(
        tables.Batch, id=batch, facility=exam.facility, channel="ftp", source="CT1", kind="technician",
        peer_address="10.0.0.1",
    )])  # fmt: skip
    await ledger.insert_rows(tables.Instance, [row(
        tables.Instance, id=key, facility=exam.facility, study=study, sop_instance_uid=f"1.2.3.{i}",
        sop_class_uid="1", series_instance_uid="1.2.3.4", transfer_syntax_uid="1.2.840.10008.1.2.1",
        digest=key, size=10, batch=batch, instance_number=str(i), number_of_frames=1, modality="CT",
        purged_at=None,
    ) for i, key in enumerate(keys, 1)])  # fmt: skip
    await ledger.insert_rows(tables.Delivery, [row(
        tables.Delivery, id=delivery, exam=exam.id, destination="R-PACS", state="sending",
        total=count, acknowledged=count // 2,
    )])  # fmt: skip
    await ledger.insert_rows(tables.DeliveryItem, [row(
        tables.DeliveryItem, delivery=delivery, instance=key, destination="R-PACS", code="0000",
        state="acknowledged" if i < count // 2 else "pending",
        id=new_id(), acknowledged_at=now() if i < count // 2 else None,
    ) for i, key in enumerate(keys)])  # fmt: skip
    await keep_attempts(ledger, [(delivery, keys[-1], "pending", "A700", "no room", now())] * 2)
    return keys, batch


async def test_the_active_list_is_the_pages(clinics: Engine, client: Client) -> None:
    """In its order, filtered and searched by a body, bound to the facility, page after page."""
    routine = await make_exam(clinics, "ROE^ROUTINE")
    stat = await make_exam(clinics, "DOE^STAT", priority=Priority.STAT, modality="CT")
    late = await make_exam(clinics, "LATE^L")
    await make_exam(clinics, "DOE^SOUTH", "SOUTH")
    await clinics.ledger.execute(
        "UPDATE exam SET due_at = ? WHERE id = ?", now() - timedelta(hours=1), late.id
    )
    await claim_exam(clinics, stat, actor=ME)
    me = await bearer(clinics)

    async def ask(**body: Any) -> dict[str, Any]:
        answer = await client.post("/api/active", headers=me, json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def numbers(found: dict[str, Any]) -> list[str]:
        return [exam["exam_number"] for exam in found["exams"]]

    found = await ask()
    order = [late.number, stat.number, routine.number]
    assert numbers(found) == order
    assert [exam["overdue"] for exam in found["exams"]] == [True, False, False]
    assert [exam["group"] for exam in found["exams"]] == ["overdue", "", ""]
    assert found["exams"][1]["patient_name"] == "DOE^STAT"
    assert (found["exams"][1]["priority"], found["exams"][1]["owner"]) == ("stat", ME)
    assert found["exams"][1]["last_event"] == "claimed by tech"
    assert found["counts"] == {"requested": 3, "receiving": 0, "settled": 0, "delivered": 0}
    assert numbers(await ask(search="doe")) == [stat.number]
    assert numbers(await ask(search=routine.number[:6])) == [routine.number]
    assert numbers(await ask(owner="mine")) == [stat.number]
    assert numbers(await ask(owner="nobody", sort="newest")) == [late.number, routine.number]
    assert numbers(await ask(priority="stat", modality="CT", facility="NORTH")) == [stat.number]
    assert numbers(await ask(facility="SOUTH")) == numbers(await ask(status="closed")) == []
    seen, cursor = list[str](), ""
    while cursor is not None:
        page = await ask(limit=1, cursor=cursor)
        seen, here, cursor = seen + numbers(page), page, page["next"]
    assert seen == order
    assert numbers(await ask(limit=1, cursor=here["previous"])) == [stat.number]
    for wrong in ({"sort": "luck"}, {"limit": 0}, {"limit": 501}, {"name": "x"}):
        assert (await client.post("/api/active", headers=me, json=wrong)).status_code == 400


async def test_views_are_kept_chosen_and_forgotten(clinics: Engine, client: Client) -> None:
    """The page opens with what the API chose; nobody else's are seen, and no search is kept."""
    me, other = await bearer(clinics), await bearer(clinics, LEAD)
    night = {"name": " Night  CT ", "filters": {"modality": "CT", "owner": "mine"}}
    made = await client.post("/api/views", headers=me, json=night)
    assert made.status_code == 201
    (view,) = made.json()["views"]
    assert (view["name"], view["filters"]) == (
        "Night CT",
        {"modality": "CT", "owner": "mine", "sort": "urgency"},
    )
    chosen = await client.patch("/api/views", headers=me, json={"first": view["key"]})
    assert chosen.json() == {"views": [view], "first": view["key"]}
    page = await client.get("/", headers={**me, "Accept": "text/html"})
    assert "Night CT" in page.text
    assert "Only <strong>CT · yours</strong>" in page.text or "No exam fits CT · yours" in page.text
    assert (await client.get("/api/views", headers=other)).json() == {"views": [], "first": ""}
    for answer in (
        await client.patch("/api/views", headers=other, json={"first": view["key"]}),
        await client.delete(f"/api/views/{view['key']}", headers=other),
    ):
        assert answer.status_code == 404
    searched = {"name": "x", "filters": {"search": "DOE"}}
    assert (await client.post("/api/views", headers=me, json=searched)).status_code == 400
    assert (await client.delete(f"/api/views/{view['key']}", headers=me)).status_code == 204
    assert (await client.get("/api/views", headers=me)).json() == {"views": [], "first": ""}


async def test_images_and_attempts_of_an_exam(clinics: Engine, client: Client) -> None:
    """Page after page with where each stands, narrowed; the timeline says how often it was tried."""
    exam = await make_exam(clinics, "DOE^JANE")
    keys, batch = await receive(clinics.ledger, exam, 5)
    me, url = await bearer(clinics), f"/api/exams/{exam.number}"

    async def ask(path: str, **asked: Any) -> dict[str, Any]:
        answer = await client.get(f"{url}/{path}", headers=me, params=asked)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    seen, start = list[dict[str, Any]](), 0
    while start is not None:
        page = await ask("instances", start=start, limit=2)
        assert page["total"] == 5
        seen, start = seen + page["instances"], page["next"]
    assert [found["id"] for found in seen] == keys
    states = [found["deliveries"][0]["state"] for found in seen]
    assert states == ["acknowledged"] * 2 + ["pending"] * 3
    assert seen[0]["deliveries"][0]["before"] == []
    (tried,) = seen[-1]["deliveries"][0]["before"]
    assert (tried["code"], tried["reason"], tried["times"]) == ("A700", "no room", 2)
    assert (await ask("instances", undelivered=True))["total"] == 3
    assert (await ask("instances", batch=batch, series="1.2.3.4"))["total"] == 5
    assert (await ask("instances", batch=new_id()))["total"] == 0
    assert (await ask("instances", series="1.9"))["total"] == 0
    assert await ask("instances", start=9) == {"instances": [], "total": 5, "next": None}
    for wrong in ({"start": -1}, {"limit": 501}, {"batch": "x"}, {"series": "1" * 65}):
        bad = await client.get(f"{url}/instances", headers=me, params=wrong)
        assert bad.status_code == 400, wrong
    (series,) = (await ask("series"))["series"]
    assert (series["instances"], series["size"], series["middle"]) == (5, 50, keys[2])
    moments = (await ask("timeline"))["moments"]
    assert {"person", "images", "delivered", "fault"} == {moment["kind"] for moment in moments}
    for text in (series["last_at"], seen[0]["received_at"], tried["last_at"], moments[0]["at"]):
        assert text[10] == "T"
        assert datetime.fromisoformat(text).tzinfo is not None
    assert next(m["batch"] for m in moments if m["kind"] == "images") == batch
    stranger = await bearer(clinics, SOUTH)
    for path in ("instances", "series", "timeline", "notes"):
        assert (await client.get(f"{url}/{path}", headers=stranger)).status_code == 404
    opened = await clinics.ledger.fetch("SELECT actor FROM audit WHERE action = 'exam opened'")
    assert [row["actor"] for row in opened] == [ME]


async def test_an_exam_of_very_many_series_is_shown_in_part(
    clinics: Engine, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred on its page, all in pages by the API; never a query for each of them."""
    exam = await make_exam(clinics, "DOE^JANE")
    keys, _ = await receive(clinics.ledger, exam, 205)
    at = now() - timedelta(minutes=1)
    await clinics.ledger.execute("UPDATE instance SET received_at = ?", at)
    me, asked, ask = await bearer(clinics), list[str](), clinics.ledger.fetch

    async def fetch(sql: str, *values: Any) -> list[dict[str, Any]]:
        asked.append(sql)
        return await ask(sql, *values)

    monkeypatch.setattr(clinics.ledger, "fetch", fetch)
    html = {**me, "Accept": "text/html"}
    assert (await client.get(f"/exams/{exam.number}", headers=html)).status_code == 200
    asked.clear()
    await client.get(f"/exams/{exam.number}", headers=html)
    with_one = len(asked)
    await clinics.ledger.execute_many(
        "UPDATE instance SET series_instance_uid = ?, series_number = ? WHERE id = ?",
        [(f"1.2.3.{n}", str(n), key) for n, key in enumerate(keys)],
    )
    asked.clear()
    page = await client.get(f"/exams/{exam.number}", headers=html)
    assert len(asked) == with_one
    assert page.text.count("/thumbnails/") == 200
    assert "5 more Series are not shown" in page.text
    assert '<span class="count">205</span>' in page.text
    listed = await client.get(f"/exams/{exam.number}/instances?series=1.2.3.203", headers=html)
    assert "5 more are not listed" in listed.text
    assert '<option value="1.2.3.203" selected>' in listed.text
    seen, start = list[dict[str, Any]](), 0
    while start is not None:
        asked.clear()
        answer = await client.get(
            f"/api/exams/{exam.number}/series", headers=me, params={"start": start}
        )
        found = answer.json()
        assert len(asked) < 20
        seen, start = seen + found["series"], found["next"]
        assert found["more"] == 205 - len(seen)
    assert [series["middle"] for series in seen] == keys


async def test_batches_of_one_sender_are_listed_together(clinics: Engine, client: Client) -> None:
    """One line of the timeline, one choice on the page; either shows what came in all of them."""
    exam = await make_exam(clinics, "DOE^JANE")
    keys, first = await receive(clinics.ledger, exam, 3)
    (row,) = await clinics.ledger.fetch("SELECT * FROM batch WHERE id = ?", first)
    second = new_id()
    await clinics.ledger.insert_rows(tables.Batch, [{**row, "id": second}])
    await clinics.ledger.execute(
        "UPDATE instance SET batch = ?, received_at = ? WHERE id = ?",
        second, now() + timedelta(seconds=9), keys[-1],
    )  # fmt: skip
    me, url = await bearer(clinics), f"/exams/{exam.number}"
    moments = (await client.get(f"/api{url}/timeline", headers=me)).json()["moments"]
    (line,) = [moment for moment in moments if moment["kind"] == "images"]
    assert (line["what"], line["batch"]) == ("3 images received", first)
    for batch in (first, second):
        found = await client.get(f"/api{url}/instances?batch={batch}", headers=me)
        assert found.json()["total"] == 3
        page = await client.get(
            f"{url}/instances?batch={batch}", headers={**me, "Accept": "text/html"}
        )
        assert "1 to 3 of 3" in page.text
        assert f'<option value="{first}" selected>' in page.text
        assert f'<option value="{second}"' not in page.text


@pytest.mark.parametrize(
    ("role", "status"), [("customer", 201), ("technician", 201), ("auditor", 403)]
)
async def test_notes_are_read_and_written_and_nobody_is_told(
    clinics: Engine, client: Client, role: str, status: int
) -> None:
    """The newest first, on the page too; an auditor reads them only."""
    exam = await make_exam(clinics, "DOE^JANE")
    await clinics.ledger.insert_rows(site_tables.Contact, [{
        "id": new_id(), "owner_kind": "user", "owner": ME, "channel": "email", "address": ME,
        "verified_at": now(), "leave_key": "x",
    }])  # fmt: skip
    who, url = await bearer(clinics, f"{role}@x.example", role), f"/api/exams/{exam.number}/notes"
    lead = await bearer(clinics, LEAD)
    before = await clinics.ledger.fetch("SELECT count(*) AS n FROM outbox")
    first = await client.post(url, headers=lead, json={"note": "Priors <b>on CD</b>"})
    assert first.status_code == 201
    answer = await client.post(url, headers=who, json={"note": "  I have them "})
    assert answer.status_code == status
    words = [(n["by"], n["note"]) for n in (await client.get(url, headers=who)).json()["notes"]]
    mine = [(f"{role}@x.example", "I have them")] if status == 201 else []
    assert words == [*mine, (LEAD, "Priors <b>on CD</b>")]
    for wrong in ("", " \n ", "x" * 2001):
        assert (await client.post(url, headers=who, json={"note": wrong})).status_code in {400, 403}
    assert await clinics.ledger.fetch("SELECT count(*) AS n FROM outbox") == before
    page = await client.get(f"/exams/{exam.number}", headers={**lead, "Accept": "text/html"})
    assert "Priors &lt;b&gt;on CD&lt;/b&gt;" in page.text


async def test_the_description_names_what_pages_hand_out(clinics: Engine, client: Client) -> None:
    """Images and thumbnails by the pages' addresses, each by its media type; no page is in it."""
    paths = (await client.get("/schema/openapi.json")).json()["paths"]
    handed = {
        path: found["get"]
        for path, found in paths.items()
        if not path.startswith(("/api", "/dicomweb"))
    }
    pictures = {"image/webp", "image/svg+xml"}
    assert {path: set(get["responses"]["200"]["content"]) for path, get in handed.items()} == {
        "/exams/{number}/images.zip": {"application/zip"},
        "/exams/{number}/thumbnails/{instance}": pictures,
        "/holds/{hold_id}/thumbnails/{instance}": pictures,
    }
    for get in handed.values():
        assert get["security"] == [{"bearer": []}]
        assert "application/problem+json" in get["responses"]["404"]["content"]

"""Gates of every page: no script of a stranger's, no write without its token."""

import re
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from rso.core.exam import Patient
from rso.engine.exams import create_exam
from rso.ledger import new_id, tables
from rso.ledger.exams import now
from rso.ledger.holds import open_hold

Client = AsyncTestClient[Litestar]
EVIL = "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>"
INLINE = re.compile(
    r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", re.IGNORECASE
)
_LONE = {"GET", "HEAD", "OPTIONS"}


async def poisoned(client: Client) -> dict[str, str]:
    """Evil words wherever a stranger can leave them; the keys of what holds them."""
    engine = client.app.state.engine
    ledger, at = engine.ledger, now()
    patient = Patient(name=f"{EVIL}^J", patient_id=EVIL[:60])
    exam = await create_exam(
        engine, facility="NORTH", patient=patient, actor=EVIL, body_part=EVIL[:60],
        request={"indication": EVIL, "history": EVIL},
    )  # fmt: skip
    study, instance = new_id(), new_id()
    common = {"patient_name": EVIL, "patient_id": EVIL[:60], "description": EVIL, "kind": "technician",
              "study_instance_uid": "1.2.3", "facility": "NORTH", "created_at": at, "updated_at": at,
              "table_row": 9, "decision": "{}"}  # fmt: skip
    held = new_id()
    await ledger.insert_rows(tables.Study, [
        {**common, "id": study, "identity": "a", "exam": exam.id, "state": "matched"},
        {**common, "id": held, "identity": "b", "exam": None, "state": "held"},
    ])  # fmt: skip
    for key, whose in ((instance, study), (new_id(), held)):
        await ledger.insert_rows(tables.Instance, [{
            "id": key, "facility": "NORTH", "study": whose, "sop_instance_uid": f"1.{key}"[:64],
            "sop_class_uid": "1", "series_instance_uid": "1", "transfer_syntax_uid": "1",
            "digest": key, "size": 1, "batch": key, "received_at": at,
            "series_description": EVIL[:64], "modality": "<b>CT</b>",
        }])  # fmt: skip
    engine.archive.put(instance, b"not an image")
    hold = await open_hold(ledger, kind="study", facility="NORTH", study=held, row=9, reason="late",
                           evidence={"explanation": EVIL, "suggestions": [exam.number]})  # fmt: skip
    await ledger.execute("UPDATE facility SET name = ?", EVIL)
    await ledger.execute("UPDATE source SET identity = '<b>AE</b>', channel = 'dicom_scp'")
    await ledger.execute("UPDATE destination SET last_error = ?, failures = 2", EVIL)
    await ledger.execute("UPDATE user_account SET name = ?", EVIL)
    return {"number": exam.number, "hold_id": str(hold), "code": "R-PACS", "kind": "facilities",
            "key": "NORTH", "instance": instance}  # fmt: skip


def pages(app: Litestar, known: dict[str, str]) -> list[str]:
    """Every page that can be asked for with what is known."""
    found = []
    for route in app.routes:
        path = str(getattr(route, "path_format", ""))
        if "GET" not in getattr(route, "methods", ()) or path.startswith(
            ("/static", "/upload-static", "/schema", "/events", "/api")
        ):
            continue
        if set(re.findall(r"{(\w+)}", path)) <= set(known):
            found.append(path.format(**known))
    return found


async def test_nothing_foreign_runs_on_any_page(web: Client, enter: Any) -> None:
    """A patient's name, a description, an AE title full of markup is text on each page."""
    known = await poisoned(web)
    boss = await enter(web, "admin")
    asked = pages(web.app, known)
    assert len(asked) > 20
    seen = 0
    for path in asked:
        answer = await web.get(path, headers=boss)
        assert answer.status_code < 500, path
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'self'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        if "text/html" not in answer.headers.get("content-type", ""):
            continue
        seen += "&lt;script&gt;" in answer.text or "&lt;b&gt;" in answer.text
        for raw in ("<img src=x", "<script>alert", "<b>AE", "<b>CT"):
            assert raw not in answer.text, (path, raw)
        found = INLINE.search(re.sub(r"&lt;.*?&gt;", "", answer.text))
        assert found is None, (path, found and answer.text[found.start() - 80 : found.end() + 80])
    assert seen >= 5


async def test_no_write_without_its_token(web: Client, enter: Any) -> None:
    """Each route that changes something refuses a session without CSRF token, and a foreign form."""
    known = await poisoned(web)
    known |= dict.fromkeys(("contact", "action", "message", "matter", "email", "study", "uid", "destination", "document", "session"), "x") | {"token_id": new_id()}  # fmt: skip
    boss = await enter(web, "admin")
    bare = {"Cookie": boss["Cookie"], "Accept": "application/json"}
    # These have no session yet, or a secret of their own.
    open_to_all = ("/sign-in", "/sign-in/code", "/forgot", "/reset/{secret}", "/leave/{key}", "/sms/inbound")  # fmt: skip
    asked = 0
    before = await web.app.state.engine.ledger.fetch("SELECT count(*) AS n FROM audit")
    for route in web.app.routes:
        path = str(getattr(route, "path_format", ""))
        for method in set(getattr(route, "methods", ())) - _LONE:
            if path in open_to_all:
                continue
            for token in ({}, {"X-CSRF-Token": "wrong"}):
                answer = await web.request(
                    method, path.format(**known), headers=bare | token, follow_redirects=False,
                    **({} if "/api" in path else {"data": {"reason": "x"}}),
                )  # fmt: skip
                # A body that cannot be read is refused before anybody is asked who it is.
                allowed = {400, 403, 404} if "/api" in path or "/dicomweb" in path else {403}
                assert answer.status_code in allowed, (method, path, answer.status_code)
                asked += 1
    assert asked > 40
    assert before == await web.app.state.engine.ledger.fetch("SELECT count(*) AS n FROM audit")
    for path in ("/sign-in", "/leave/x"):
        answer = await web.post(
            path, data={"email": "a@b.c"}, headers={"Origin": "https://evil.example"}
        )
        assert answer.status_code in {403, 404}


@pytest.mark.parametrize("path", ["/", "/admin", "/api/exams", "/dashboard", "/audit"])
async def test_nothing_without_a_session(web: Client, path: str) -> None:
    """A page sends to the sign-in, a program is told so; the front door leads there in any case."""
    answer = await web.get(path, follow_redirects=False)
    assert answer.status_code == (302 if path == "/" else 401)
    answer = await web.get(path, headers={"Accept": "text/html"}, follow_redirects=False)
    assert answer.status_code == 302

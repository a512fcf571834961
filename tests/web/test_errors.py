"""What could not be done is said where it was asked, and no page is a dead end."""

from datetime import timedelta
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from rso.core.exam import Patient
from rso.engine.exams import create_exam
from rso.engine.owners import claim_exam
from rso.ledger.exams import now
from rso.ledger.preferences import save_view, views_of
from rso.ledger.resets import begin_reset

Client = AsyncTestClient[Litestar]


async def test_one_view_too_many(web: Client, enter: Any) -> None:
    """The list as it was filtered, with the name that was typed and the reason beside it."""
    me = await enter(web, "coordinator")
    ledger = web.app.state.engine.ledger
    for n in range(12):
        await save_view(ledger, "coord@example.org", f"View {n}", {})
    form = {"name": "Night <CT>", "modality": "CT", "sort": "oldest"}
    answer = await web.post("/views/save", headers=me, data=form)
    assert answer.status_code == 409
    assert "There are 12 views already; remove one first." in answer.text
    assert 'value="Night &lt;CT&gt;"' in answer.text
    assert "Only <strong>CT</strong>" in answer.text or "No exam fits CT." in answer.text
    assert "<nav" in answer.text
    assert len((await views_of(ledger, "coord@example.org")).views) == 12


async def test_somebody_was_faster(web: Client, enter: Any) -> None:
    """The exam's page says who has it; the list, which has a place of its own for it, a problem."""
    me = await enter(web, "technician")
    engine = web.app.state.engine
    exam = await create_exam(engine, facility="NORTH", patient=Patient(name="DOE^J"), actor="c")
    await claim_exam(engine, exam, actor="coord@example.org")
    path = f"/exams/{exam.number}/owner"
    answer = await web.post(path, headers=me, data={"to": "me"})
    assert answer.status_code == 409
    assert "<dt>Owner</dt><dd>coord@example.org" in answer.text
    assert 'class="problem" role="alert"' in answer.text
    by_list = me | {"HX-Request": "true", "Accept": "*/*"}
    refused = await web.post(path, headers=by_list, data={"to": "me"})
    assert (refused.status_code, refused.headers["content-type"]) == (
        409, "application/problem+json",
    )  # fmt: skip
    assert "coord@example.org" in refused.json()["detail"]


@pytest.mark.parametrize("mails", [True, False])
async def test_a_link_that_is_over(make_web: Any, mails: bool) -> None:
    """Leads to another one, where links can be sent; with the page and with the form."""
    email = '[plugins.email]\nurl = "mailto://127.0.0.1:1?from=a@b.org"\n' if mails else ""
    client = await make_web(f"[plugins.http_upload]\n{email}")
    ledger = client.app.state.engine.ledger
    secret = await begin_reset(ledger, "tech@example.org")
    await ledger.execute("UPDATE password_reset SET expires_at = ?", now() - timedelta(seconds=1))
    for answer in (
        await client.get(f"/reset/{secret}"),
        await client.post(f"/reset/{secret}", data={"password": "another password"}),
    ):
        assert answer.status_code == 404
        assert "no longer good" in answer.text
        assert ('href="/forgot"' in answer.text) == mails
        assert 'type="password"' not in answer.text


@pytest.mark.parametrize(
    ("came", "back"),
    [
        ("http://testserver.local/exams/new?x=%22%3E", "/exams/new?x=%22%3E"),
        ("http://testserver.local/admin/users/edit/a@b.org", "/admin/users/edit/a@b.org"),
        ("http://evil.example/exams/new", ""),
        ("http://testserver.local//evil.example/", ""),
        ("http://testserver.local/\\evil.example", ""),
        ("http://[", ""),
        ("javascript:alert(1)", ""),
        ("http://testserver.local/exams/0000000000/notes", ""),
        ("", ""),
    ],
)
async def test_the_way_back(web: Client, enter: Any, came: str, back: str) -> None:
    """An error has the menu of who is signed in, and leads back to a page of RSO's own alone."""
    me = await enter(web, "technician")
    headers = me | {"Referer": came} if came else me
    answer = await web.post("/exams/0000000000/notes", headers=headers, data={"note": "x"})
    assert answer.status_code == 404
    assert "tech@example.org" in answer.text
    assert 'href="/exams/new"' in answer.text
    shown = answer.text.partition("<main")[2]
    assert ("Back to the page before" in shown) == bool(back)
    assert "evil" not in shown
    if back:
        assert f'href="{back}"' in shown
    stranger = await web.post("/exams/0000000000/notes", headers={"Accept": "text/html"})
    assert stranger.status_code == 401
    assert "<nav" not in stranger.text


async def test_the_address_of_a_form_leads_to_the_list(web: Client, enter: Any) -> None:
    """Who comes back to where a form was sent finds a page; a program is told the method."""
    me = await enter(web, "admin")
    for path in ("/admin/users/save", "/exams/new/documents"):
        html = {**me, "Accept": "text/html"}
        answer = await web.get(path, headers=html, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (302, "/")
        told = await web.get(path, headers={**me, "Accept": "application/json"})
        assert told.status_code == 405

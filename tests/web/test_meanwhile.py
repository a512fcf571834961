"""Two people edit the same thing: the second is told, keeps what they typed, and decides."""

import re
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from rso.core.exam import Patient
from rso.engine.exam_edit import edit_exam
from rso.engine.exams import create_exam, find_exam
from rso.engine.requests import request_of
from rso.ledger.people import change_password, set_disabled
from rso.ledger.site import load_site
from rso.ledger.site_export import export_site

Client = AsyncTestClient[Litestar]
SOURCE = {
    "channel": "dicom_scp", "identity": "CT1", "kind": "technician", "networks": ["10.0.0.0/8"],
}  # fmt: skip


def version(text: str) -> str:
    """What the form carries."""
    found = re.search(r'name="shown" value="(\w+)"', text)
    assert found is not None
    return found[1]


async def entry(client: Client, section: str, key: str) -> dict[str, Any]:
    """How it stands."""
    document = await export_site(client.app.state.engine.ledger)
    return next(e for e in document[section] if key in (e.get("code"), e.get("email")))


async def test_a_source_that_came_meanwhile_stays(web: Client, enter: Any) -> None:
    """The form of before removes it only when it is sent all the same; a third change asks anew."""
    boss = await enter(web, "admin")
    ledger = web.app.state.engine.ledger
    opened = (await web.get("/admin/facilities/edit/NORTH", headers=boss)).text
    form = {"new": "no", "code": "NORTH", "name": "Typed by me", "shown": version(opened)}
    wrong = form | {"retention_days": "a while"}
    north = await entry(web, "facility", "NORTH")
    await load_site(ledger, {"facility": [{**north, "sources": [*north["sources"], SOURCE]}]})
    for _ in range(2):
        answer = await web.post("/admin/facilities/save", headers=boss, data=form)
        assert answer.status_code == 409
        assert 'href="/admin/facilities/edit/NORTH"' in answer.text
        assert 'value="Typed by me"' in answer.text
        assert ">Save all the same<" in answer.text
        assert len((await entry(web, "facility", "NORTH"))["sources"]) == 2
        before, form["shown"] = form["shown"], version(answer.text)
        assert before != form["shown"]
        await load_site(ledger, {"facility": [{**north, "sources": [SOURCE]}]})
        await load_site(ledger, {"facility": [{**north, "sources": [*north["sources"], SOURCE],
                                               "settle_seconds": 5}]})  # fmt: skip
    # What is wrong in the form hides no change.
    assert (
        version((await web.post("/admin/facilities/save", headers=boss, data=wrong)).text)
        != wrong["shown"]
    )
    last = await web.post("/admin/facilities/save", headers=boss, data=form, follow_redirects=False)
    assert last.status_code == 303
    assert (await entry(web, "facility", "NORTH"))["name"] == "Typed by me"


async def test_what_a_form_of_a_person_does_not_show(web: Client, enter: Any) -> None:
    """Their own new password is no conflict; somebody who barred them is not overruled."""
    boss = await enter(web, "admin")
    ledger = web.app.state.engine.ledger
    opened = (await web.get("/admin/users/edit/tech@example.org", headers=boss)).text
    form = {"new": "no", "email": "tech@example.org", "role": "technician", "at:NORTH": "on",
            "shown": version(opened)}  # fmt: skip
    assert await change_password(ledger, "tech@example.org", "a good password", "another password")
    saved = await web.post("/admin/users/save", headers=boss, data=form, follow_redirects=False)
    assert saved.status_code == 303
    await set_disabled(ledger, "tech@example.org", disabled=True)
    answer = await web.post("/admin/users/save", headers=boss, data=form)
    assert answer.status_code == 409
    rows = await ledger.fetch("SELECT disabled FROM user_account WHERE email = 'tech@example.org'")
    assert rows[0]["disabled"]


@pytest.mark.parametrize("all_the_same", [False, True])
async def test_a_request_that_was_edited_meanwhile(
    web: Client, enter: Any, all_the_same: bool
) -> None:
    """What the other one wrote is not lost unseen, and what is typed is there still."""
    me = await enter(web, "coordinator")
    engine = web.app.state.engine
    exam = await create_exam(
        engine, facility="NORTH", patient=Patient(name="DOE^JANE"), actor="c",
        request={"indication": "pain"},
    )  # fmt: skip
    path = f"/exams/{exam.number}/edit"
    form = {"family": "DOE", "given": "JANE", "indication": "pain", "history": "typed by me",
            "shown": version((await web.get(path, headers=me)).text)}  # fmt: skip
    await edit_exam(engine, exam, actor="other", request={"allergies": "iodine"})
    answer = await web.post(path, headers=me, data=form, follow_redirects=False)
    assert answer.status_code == 409
    assert "typed by me" in answer.text
    assert f'href="/exams/{exam.number}"' in answer.text
    if all_the_same:
        form |= {"allergies": "iodine and latex", "shown": version(answer.text)}
        assert (
            await web.post(path, headers=me, data=form, follow_redirects=False)
        ).status_code == 303
    said = await request_of(engine.ledger, await find_exam(engine.ledger, exam.number))
    assert said["allergies"] == ("iodine and latex" if all_the_same else "iodine")
    assert said.get("history", "") == ("typed by me" if all_the_same else "")

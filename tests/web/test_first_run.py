"""A site with nothing set up yet leads to what comes first, not into a form that cannot be sent."""

from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

Client = AsyncTestClient[Litestar]
FORM = {"family": "DOE", "indication": "pain"}


@pytest.mark.parametrize(("role", "leads"), [("admin", True), ("coordinator", False)])
async def test_without_a_facility_there_is_no_form(
    web: Client, enter: Any, role: str, leads: bool
) -> None:
    """New exam and the list say so, also to a form that was sent; an administrator is led on."""
    me = await enter(web, role)
    listed = (await web.get("/", headers=me)).text
    assert "Request the first one" in listed
    assert "No facility yet" not in listed
    await web.app.state.engine.ledger.execute("DELETE FROM facility")
    shown = await web.get("/exams/new", headers=me)
    sent = await web.post("/exams/new", headers=me, data=FORM)
    listed = (await web.get("/", headers=me)).text
    assert (shown.status_code, sent.status_code) == (200, 422)
    for text in (shown.text, sent.text, listed):
        assert "No facility yet" in text
        assert ('href="/admin/facilities/new"' in text) == leads
    assert 'id="request"' not in shown.text + sent.text
    assert "Request the first one" not in listed


async def test_another_facility_than_ones_only_one(web: Client, enter: Any) -> None:
    """A form of before, whose facility is not one's own any more, says which it is now."""
    me = await enter(web, "coordinator")
    sent = await web.post("/exams/new", headers=me, data=FORM | {"facility": "GONE"})
    assert sent.status_code == 422
    assert "The facility was another one; now it is NORTH." in sent.text

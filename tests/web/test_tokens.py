"""API tokens: of people and of sources, made, shown once, used, ended."""

import re
from typing import Any

from litestar import Litestar
from litestar.testing import AsyncTestClient

from rso.ledger.tokens import create_token, find_source_token, find_token

Client = AsyncTestClient[Litestar]


async def test_tokens_of_ones_own(web: Client, enter: Any) -> None:
    """Shown once, named, revoked by nobody else; a token cannot make tokens."""
    me, other = await enter(web, "technician"), await enter(web, "coordinator")
    shown = await web.post("/me/security/token", headers=me, data={"name": "nightly <b>"})
    token = re.search(r"rso_[\w-]+", shown.text)
    assert token is not None
    later = (await web.get("/me/security", headers=me)).text
    assert token[0] not in later
    assert "nightly &lt;b&gt;" in later
    bearer = {"Authorization": f"Bearer {token[0]}"}
    assert (await web.get("/api/exams", headers=bearer)).status_code == 200
    assert (
        await web.post("/me/security/token", headers=bearer, data={"name": "x"})
    ).status_code == 403
    ledger = web.app.state.engine.ledger
    key = (await ledger.fetch("SELECT id FROM api_token"))[0]["id"]
    await web.post("/me/security/revoke", headers=other, data={"token": key})
    assert await find_token(ledger, token[0]) is not None
    await web.post("/me/security/revoke", headers=me, data={"token": key})
    assert (await web.get("/api/exams", headers=bearer)).status_code == 401


async def test_ones_new_password_ends_tokens_when_asked(web: Client, enter: Any) -> None:
    """The form says how many tokens there are; they end with the old password if one wants it."""
    me = await enter(web, "technician")
    ledger = web.app.state.engine.ledger
    assert "API token too" not in (await web.get("/me/security", headers=me)).text
    token = await create_token(ledger, email="tech@example.org")
    await create_token(ledger, email="tech@example.org")
    assert "Revoke my 2 API tokens too" in (await web.get("/me/security", headers=me)).text
    form = {"old": "a good password", "new": "another password"}
    await web.post("/me/security/password", headers=me, data=form)
    assert await find_token(ledger, token) is not None
    wrong = {"old": "not the password", "new": "a third password", "tokens": "yes"}
    assert (await web.post("/me/security/password", headers=me, data=wrong)).status_code == 422
    assert await find_token(ledger, token) is not None
    right = wrong | {"old": "another password"}
    await web.post("/me/security/password", headers=me, data=right)
    assert await find_token(ledger, token) is None
    ended = await ledger.fetch("SELECT id FROM audit WHERE action = 'tokens ended'")
    assert len(ended) == 1


async def test_tokens_of_sources(web: Client, enter: Any) -> None:
    """An administrator makes one for a source; it is no person's."""
    boss = await enter(web, "admin")
    shown = await web.post(
        "/admin/tokens", headers=boss, data={"source": "north-gateway", "name": "gateway"}
    )
    token = re.search(r"rso_[\w-]+", shown.text)
    assert token is not None
    ledger = web.app.state.engine.ledger
    assert await find_source_token(ledger, token[0]) == "north-gateway"
    bearer = {"Authorization": f"Bearer {token[0]}"}
    assert (await web.get("/api/exams", headers=bearer)).status_code == 401
    assert (await web.post("/admin/tokens", headers=boss, data={"source": "x"})).status_code == 422
    key = (await ledger.fetch("SELECT id FROM api_token"))[0]["id"]
    await web.post("/admin/tokens", headers=boss, data={"revoke": key})
    assert await find_source_token(ledger, token[0]) is None

"""The active list's page and its services in this process: owners, views, words, limits."""

from collections.abc import AsyncIterator

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from rso.app import create_app
from rso.core.errors import ConfigError, OwnerError
from rso.core.exam import Exam, Patient
from rso.engine.context import Engine
from rso.engine.exams import create_exam
from rso.engine.owners import assignable, claim_exam, give_exam, owner_of, release_exam
from rso.ledger.people import Person
from rso.ledger.preferences import choose_view, remove_view, save_view, views_of
from rso.ledger.sessions import create_session, find_session

# The test client has a loop of its own, which PostgreSQL's pool would not survive.
ONE_LOOP = pytest.mark.parametrize("ledger", ["sqlite"], indirect=True)
ME, OTHER, LEAD = "tech@north.example", "other@north.example", "lead@example.org"


@pytest.fixture
async def exam(clinics: Engine) -> Exam:
    """An exam of NORTH."""
    return await create_exam(
        clinics, facility="NORTH", patient=Patient(name="DOE^JANE"), actor="customer"
    )


async def test_the_first_who_claims_has_it(clinics: Engine, exam: Exam) -> None:
    """A second is told who was first; all of it stands in the audit."""
    await claim_exam(clinics, exam, actor=ME)
    await claim_exam(clinics, exam, actor=ME)
    with pytest.raises(OwnerError, match=ME):
        await claim_exam(clinics, exam, actor=OTHER)
    with pytest.raises(OwnerError):
        await release_exam(clinics, exam, actor=OTHER)
    await release_exam(clinics, exam, actor=LEAD, anybodys=True)
    await claim_exam(clinics, exam, actor=OTHER)
    await give_exam(clinics, exam, ME, actor=LEAD)
    assert await owner_of(clinics.ledger, exam) == ME
    with pytest.raises(OwnerError):
        await give_exam(clinics, exam, "tech@south.example", actor=LEAD)
    people = [p["email"] for p in await assignable(clinics.ledger, "NORTH")]
    assert people == [LEAD, OTHER, ME]
    told = await clinics.ledger.fetch("SELECT actor, action FROM audit ORDER BY id")
    assert [(row["actor"], row["action"]) for row in told][1:] == [
        (ME, "exam claimed"), (LEAD, "exam released by its owner"), (OTHER, "exam claimed"),
        (LEAD, "exam assigned"),
    ]  # fmt: skip


async def test_views_are_ones_own(clinics: Engine) -> None:
    """Kept, replaced by name, chosen, removed; a dozen at most, and nobody else's."""
    ledger = clinics.ledger
    key = await save_view(ledger, ME, "  Night   CT ", {"modality": "CT"})
    assert await save_view(ledger, ME, "Night CT", {"modality": "MR"}) == key
    await choose_view(ledger, ME, key)
    found = await views_of(ledger, ME)
    assert [(v.name, v.filters) for v in found.views] == [("Night CT", {"modality": "MR"})]
    assert found.view == key
    assert (await views_of(ledger, OTHER)).views == ()
    await choose_view(ledger, OTHER, key)
    assert (await views_of(ledger, OTHER)).view == ""
    await remove_view(ledger, ME, key)
    assert await views_of(ledger, ME) == await views_of(ledger, OTHER)
    with pytest.raises(ConfigError):
        await save_view(ledger, ME, " ", {})
    for i in range(12):
        await save_view(ledger, ME, f"view {i}", {})
    with pytest.raises(ConfigError, match="12 views"):
        await save_view(ledger, ME, "one more", {})


@pytest.fixture
async def client(clinics: Engine) -> AsyncIterator[AsyncTestClient[Litestar]]:
    """The application, in this process."""
    async with AsyncTestClient(create_app(clinics, None, [])) as made:
        yield made


async def sign_in(engine: Engine, role: str, email: str, *facilities: str) -> dict[str, str]:
    """Headers of a person's session."""
    person = Person(email=email, name="", role=role, facilities=facilities or None)
    secret = await create_session(engine.ledger, person)
    found = await find_session(engine.ledger, secret)
    assert found is not None
    return {"Cookie": f"rso_session={secret}", "X-CSRF-Token": found.csrf, "Accept": "text/html"}


@ONE_LOOP
async def test_the_list_of_a_browser_without_scripts(
    clinics: Engine, exam: Exam, client: AsyncTestClient[Litestar]
) -> None:
    """The search is posted and the whole page comes back; a CSRF token is asked for."""
    headers = await sign_in(clinics, "technician", ME, "NORTH")
    found = await client.post("/", headers=headers, data={"search": "doe", "priority": "routine"})
    assert exam.number in found.text
    none = await client.post(
        "/", headers=headers, data={"search": "roe", "sort": "x", "owner": "x"}
    )
    assert exam.number not in none.text
    headers.pop("X-CSRF-Token")
    assert (await client.post("/", headers=headers, data={"search": "doe"})).status_code == 403


@ONE_LOOP
async def test_who_may_change_an_owner(
    clinics: Engine, exam: Exam, client: AsyncTestClient[Litestar]
) -> None:
    """A technician claims; only a coordinator gives to others; a customer does neither."""
    technician = await sign_in(clinics, "technician", ME, "NORTH")
    url = f"/exams/{exam.number}/owner"
    answer = await client.post(url, headers=technician | {"HX-Request": "true"}, data={"to": "me"})
    assert answer.status_code == 204
    assert answer.headers["HX-Trigger"] == "refresh"
    assert (await client.post(url, headers=technician, data={"to": OTHER})).status_code == 403
    lead = await sign_in(clinics, "coordinator", LEAD)
    answer = await client.post(url, headers=lead, data={"to": "me"})
    assert answer.status_code == 409
    assert ME in answer.text
    given = await client.post(url, headers=lead, data={"to": OTHER}, follow_redirects=False)
    assert given.status_code == 303
    assert await owner_of(clinics.ledger, exam) == OTHER
    customer = await sign_in(clinics, "customer", ME, "NORTH")
    await clinics.ledger.execute("UPDATE user_account SET role = 'customer' WHERE email = ?", ME)
    assert (await client.post(url, headers=customer, data={"to": "me"})).status_code == 403


@ONE_LOOP
async def test_static_files_are_small_and_kept(client: AsyncTestClient[Litestar]) -> None:
    """Compressed and asked for once; a page is neither."""
    page = await client.get("/sign-in", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in page.headers
    assert page.headers["cache-control"] == "no-store"
    path = page.text.split('href="/static/rso.css')[1].split('"')[0]
    style = await client.get(f"/static/rso.css{path}", headers={"Accept-Encoding": "gzip"})
    assert style.headers["content-encoding"] == "gzip"
    assert "immutable" in style.headers["cache-control"]

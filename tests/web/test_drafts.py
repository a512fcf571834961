"""The request form's documents without a script: kept, refused by name, removed, one's own."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from httpx import Response
from litestar import Litestar
from litestar.testing import AsyncTestClient
from structlog.testing import capture_logs

from rso.app import create_app
from rso.engine.context import Engine
from rso.engine.documents import MOST_DOCUMENTS, document_path
from rso.ledger import new_id
from rso.ledger.people import Person
from rso.ledger.sessions import create_session, find_session

pytestmark = pytest.mark.parametrize("ledger", ["sqlite"], indirect=True)
PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 3000
TYPED = {"facility": "NORTH", "family": "SECRETDOE", "patient_id": "P1", "history": "by the lift"}
Client = AsyncTestClient[Litestar]


@pytest.fixture
async def client(clinics: Engine) -> AsyncIterator[Client]:
    """The application, in this process."""
    async with AsyncTestClient(create_app(clinics, None, [])) as made:
        yield made


async def session(clinics: Engine, email: str) -> dict[str, str]:
    """Headers of somebody of NORTH."""
    person = Person(email=email, name="", role="technician", facilities=("NORTH",))
    secret = await create_session(clinics.ledger, person)
    found = await find_session(clinics.ledger, secret)
    assert found is not None
    return {"Cookie": f"rso_session={secret}", "X-CSRF-Token": found.csrf, "Accept": "text/html"}


@pytest.fixture
async def mine(clinics: Engine) -> dict[str, str]:
    """A technician's session."""
    return await session(clinics, "tech@north.example")


def hidden(text: str) -> dict[str, str]:
    """What the page sends besides what is typed: its key, and the documents that it lists."""
    found = re.findall(r'name="(draft|kept:[^"]+)" value="([^"]*)"', text)
    assert found, "the page has no key"
    return dict(found)


def keys(text: str) -> list[str]:
    """The documents that a page lists."""
    return [name[5:] for name in hidden(text) if name.startswith("kept:")]


def chosen(*names: str, data: bytes = PNG) -> list[tuple[str, tuple[str, bytes, str]]]:
    """Files of the form."""
    return [("documents", (name, data, "image/png")) for name in names]


async def send(client: Client, headers: dict[str, str], form: dict[str, str], *names: str,
               to: str = "/exams/new", data: bytes = PNG) -> Response:  # fmt: skip
    """Send the form as a browser does."""
    return await client.post(
        to, headers=headers, data=form, files=chosen(*names, data=data) or None,
        follow_redirects=False,
    )  # fmt: skip


async def test_nothing_is_chosen_twice(
    clinics: Engine, client: Client, mine: dict[str, str]
) -> None:
    """An error, a refused document, another session, the question: the exam has them in the end."""
    ledger = clinics.ledger
    page = hidden((await client.get("/exams/new", headers=mine)).text)
    with capture_logs() as logs:
        first = await send(client, mine, TYPED | page, "a.png")
    assert first.status_code == 422
    assert "Say why the exam is asked for." in first.text
    assert 'aria-label="Remove a.png"' in first.text
    assert "3 kB" in first.text
    assert ">by the lift</textarea>" in first.text
    assert "SECRETDOE" not in str(logs)
    assert "a.png" not in str(logs)
    # Another session, as after a time-out; the page is as it was.
    again = await session(clinics, "tech@north.example")
    back = (await client.get("/exams/new", headers=again)).text
    assert hidden(back) == hidden(first.text)
    assert 'value="SECRETDOE"' in back
    full = TYPED | {"indication": "pain"}
    refused = await client.post(
        "/exams/new", headers=again, data=full | hidden(back), follow_redirects=False,
        files=[*chosen("b.png"), *chosen("<b>c.exe", data=b"MZ"), *chosen("d.png")],
    )  # fmt: skip
    assert refused.status_code == 422
    assert "&lt;b&gt;c.exe: a document is a PDF" in refused.text
    assert "b.png: " not in refused.text
    assert [hidden(refused.text)[f"kept:{key}"] for key in keys(refused.text)] == [
        "a.png", "b.png", "d.png"]  # fmt: skip
    # The same patient has an open exam.
    other = await send(client, mine, full | {"draft": new_id()})
    assert other.status_code == 303
    asked = await send(client, again, full | hidden(refused.text))
    assert asked.status_code == 422
    assert "The documents below go with it." in asked.text
    assert await ledger.fetch("SELECT id FROM exam_document") == []
    sure = full | hidden(asked.text) | {"seen_duplicates": other.headers["location"].split("/")[2]}
    made = await send(client, again, sure, "e.png")
    assert made.status_code == 303
    shown = await client.get(made.headers["location"].removesuffix("/created"), headers=mine)
    for name in ("a.png", "b.png", "d.png", "e.png"):
        assert name in shown.text
    assert await ledger.fetch("SELECT id FROM draft_document") == []
    assert keys((await client.get("/exams/new", headers=mine)).text) == []


async def test_removed_without_losing_the_form(
    clinics: Engine, client: Client, mine: dict[str, str]
) -> None:
    """What is typed and chosen meanwhile stays; the row and its file are gone; so for all of it."""
    url = "/exams/new/documents"
    first = await send(client, mine, TYPED | {"draft": new_id()}, "a.png", "b.png", to=url)
    assert first.status_code == 200
    gone, stays = keys(first.text)
    form = TYPED | hidden(first.text)
    page = await send(client, mine, form | {"remove": gone, "family": "ROE"}, "c.png", to=url)
    assert page.status_code == 200
    assert 'value="ROE"' in page.text
    assert ">by the lift</textarea>" in page.text
    assert [hidden(page.text)[f"kept:{key}"] for key in keys(page.text)] == ["b.png", "c.png"]
    assert not document_path(clinics, gone).exists()
    assert document_path(clinics, stays).exists()
    # A page that still lists it says that it is gone, and makes no exam without it.
    late = await send(client, mine, form | {"indication": "pain"})
    assert late.status_code == 422
    assert "a.png is not kept any more; please choose it again." in late.text
    assert await clinics.ledger.fetch("SELECT id FROM exam") == []
    anew = await send(client, mine, {"draft": form["draft"]}, to="/exams/new/drop")
    assert anew.headers["location"] == "/exams/new"
    assert not document_path(clinics, stays).exists()
    fresh = (await client.get("/exams/new", headers=mine)).text
    assert hidden(fresh)["draft"] != form["draft"]
    assert "ROE" not in fresh


async def test_nobody_elses(clinics: Engine, client: Client, mine: dict[str, str]) -> None:
    """Who knows another person's keys sees, removes, throws away and sends nothing of theirs."""
    first = await send(client, mine, TYPED | {"draft": new_id()}, "mine.png")
    (key,) = keys(first.text)
    theirs = await session(clinics, "other@north.example")
    form = TYPED | {"draft": hidden(first.text)["draft"], "indication": "pain"}
    seen = await client.get("/exams/new", headers=theirs)
    assert "mine.png" not in seen.text
    kept = await send(client, theirs, form | {"remove": key}, to="/exams/new/documents")
    assert "mine.png" not in kept.text
    await send(client, theirs, form, to="/exams/new/drop")
    taken = await send(client, theirs, form | {f"kept:{key}": ""})
    assert taken.status_code == 422
    assert "A document is not kept any more" in taken.text
    nothing = await send(client, theirs, form | {"kept:": "x", "kept:' OR 1=1": "y", "draft": "%"})
    assert nothing.status_code == 422
    assert await clinics.ledger.fetch("SELECT id FROM exam") == []
    assert document_path(clinics, key).exists()
    assert keys((await client.get("/exams/new", headers=mine)).text) == [key]


async def test_two_pages_of_one_person(
    clinics: Engine, client: Client, mine: dict[str, str]
) -> None:
    """One patient's documents never go with the exam of another, and are there afterwards."""
    one = await send(client, mine, TYPED | {"draft": new_id()}, "doe.png")
    roe = {"facility": "NORTH", "family": "ROE", "indication": "fell", "draft": new_id()}
    made = await send(client, mine, roe, "roe.png")
    assert made.status_code == 303
    rows = await clinics.ledger.fetch("SELECT name FROM exam_document")
    assert rows == [{"name": "roe.png"}]
    # Both pages of one draft: what a page does not list is not sent with it.
    more = await send(client, mine, TYPED | hidden(one.text), "late.png")
    form = TYPED | hidden(one.text) | {"indication": "pain"}
    assert (await send(client, mine, form)).status_code == 303
    rows = await clinics.ledger.fetch("SELECT name FROM exam_document ORDER BY id")
    assert [row["name"] for row in rows] == ["doe.png", "roe.png"]
    left = await client.post(
        "/exams/new/documents", headers=mine, data=TYPED | {"draft": hidden(more.text)["draft"]}
    )
    assert 'aria-label="Remove late.png"' in left.text


async def test_sent_twice(clinics: Engine, client: Client, mine: dict[str, str]) -> None:
    """A double click, or the same once more, makes one exam with one of each document."""
    form = TYPED | {"indication": "pain", "draft": new_id()}
    both = await asyncio.gather(*(send(client, mine, form, "a.png") for _ in range(3)))
    both = [*both, await send(client, mine, form, "a.png")]
    assert {answer.status_code for answer in both} == {303}
    assert len({answer.headers["location"] for answer in both}) == 1
    assert len(await clinics.ledger.fetch("SELECT id FROM exam")) == 1
    assert len(await clinics.ledger.fetch("SELECT id FROM exam_document")) == 1
    assert await clinics.ledger.fetch("SELECT id FROM draft_document") == []
    assert await clinics.ledger.fetch("SELECT account FROM request_draft") == []
    changed = await send(client, mine, form | {"family": "ROE", "patient_id": "P2"})
    assert changed.headers["location"] != both[0].headers["location"]


async def test_hostile_names_and_numbers(
    clinics: Engine, client: Client, mine: dict[str, str]
) -> None:
    """A name is text, never a path; what is too many is named; a form too long keeps nothing."""
    draft = {"draft": new_id()}
    hostile = ("../../../etc/x.png", '"><script>alert(1)</script>.png', "gnp\u202e.exe", "x" * 999)
    page = await send(client, mine, TYPED | draft, *hostile)
    assert "<script>alert(1)" not in page.text
    assert "\u202e" not in page.text
    names = [row["name"] for row in await clinics.ledger.fetch("SELECT name FROM draft_document")]
    assert "x" * 120 in names
    folder = clinics.settings.data_dir / "documents"
    assert all(re.fullmatch("[0-9a-f]{32}", p.name) for p in folder.glob("*/*"))
    assert not (clinics.settings.data_dir.parent / "etc").exists()
    many = [f"{n}.png" for n in range(MOST_DOCUMENTS + 30)]
    page = await send(client, mine, TYPED | draft, *many)
    assert len(keys(page.text)) == MOST_DOCUMENTS
    assert "16.png: an exam has at most 20 documents." in page.text
    assert "And 14 more." in page.text
    long = {"family": "x" * 50_000, "facility": "NORTH", "draft": new_id()}
    page = await send(client, mine, long, "a.png")
    assert "a.png: what is typed is too long" in page.text
    assert keys(page.text) == []

"""From the form to three real providers: Kannel, a mail server, HylaFAX; and back after a kill."""

import asyncio
import random
import re
import time
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
import requests
from aiosmtpd.controller import Controller
from playwright.sync_api import Browser, Page, expect

from rso.core.exam import Patient
from rso.engine.context import open_engine
from rso.engine.exams import create_exam
from rso.engine.notify import notify_people
from rso.settings import load_settings
from rso.testing.hylafax import HylafaxServer
from rso.testing.kannel import KannelServer
from rso.testing.pacs import Pacs
from rso.testing.site import Site, free_port, wait_for

SECRET = "SENTINEL"


class Post:
    """Keeps every mail."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.mails: list[Any] = []
        self.arrived: list[tuple[float, str]] = []
        self._seconds = seconds

    async def handle_DATA(  # noqa: N802
        self, server: Any, session: Any, envelope: Any
    ) -> str:
        """Take it."""
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        self.arrived.append((time.monotonic(), str(self.mails[-1])))
        await asyncio.sleep(self._seconds)  # taken, and nobody knows it yet
        return "250 Kept"


class Peers:
    """All three, running."""

    def __init__(self) -> None:
        self.kannel, self.fax, self.post = KannelServer(), HylafaxServer(), Post()
        self.mail = Controller(self.post, hostname="127.0.0.1", port=free_port())

    def settings(self) -> list[str]:
        """For rso.toml."""
        return [
            f'plugins.sms.url="kannel://rso:secret@127.0.0.1:{self.kannel.port}/{{address}}"',
            f'plugins.email.url="mailto://127.0.0.1:{self.mail.port}?from=rso@example.org"',
            f'plugins.fax.url="hylafax://rso@127.0.0.1:{self.fax.port}/{{address}}"',
        ]


@pytest.fixture
def peers() -> Iterator[Peers]:
    """Started, and stopped."""
    made = Peers()
    made.kannel.start()
    made.fax.start()
    made.mail.start()
    yield made
    made.mail.stop()
    made.fax.stop()
    made.kannel.stop()


@pytest.fixture
def told(peers: Peers, tmp_path: Path, pacs: Pacs) -> Iterator[Site]:
    """A running RSO that uses them."""
    made = Site(tmp_path, pacs.port, *peers.settings())
    made.start()
    yield made
    assert made.stop() == 0


def sign_in(site: Site, email: str) -> tuple[requests.Session, str]:
    """A browser's session, and its base address."""
    base = f"http://127.0.0.1:{site.web}"
    session = requests.Session()
    session.post(f"{base}/sign-in", {"email": email, "password": "a good password"}, timeout=20)
    return session, base


def visit(browser: Browser, site: Site, email: str) -> Page:
    """The list of somebody who has signed in, in a browser of their own."""
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.goto(f"http://127.0.0.1:{site.web}/sign-in")
    page.fill("[name=email]", email)
    page.fill("[name=password]", "a good password")
    page.keyboard.press("Enter")
    page.wait_for_url(f"http://127.0.0.1:{site.web}/")
    return page


def test_a_stat_request_reaches_all_three(told: Site, peers: Peers, browser: Browser) -> None:
    """Ticked on the form: SMS, email and fax are there within ten seconds, and name nobody."""
    base = f"http://127.0.0.1:{told.web}"
    technician = visit(browser, told, "tech@example.org")
    customer = visit(browser, told, "customer@example.org")
    customer.goto(f"{base}/exams/new")
    for name, text in (
        ("family", SECRET), ("given", "JANE"), ("birth_date", "1970-01-31"),
        ("indication", f"{SECRET} fell"),
    ):  # fmt: skip
        customer.fill(f"[name={name}]", text)
    customer.select_option("[name=priority]", "stat")
    customer.fill("[name=priority_reason]", SECRET)
    customer.fill("[name=note]", f"{SECRET} waits in room 2")
    for channel in ("sms", "email", "fax"):
        customer.check(f"[name='notify:tech@example.org:{channel}']")
    began = time.monotonic()
    customer.click("button.main:has-text('Create exam')")
    shown = customer.locator("#number").inner_text()
    number = shown.replace("-", "")
    assert len(number) == 10
    wait_for(
        lambda: (
            "+12025550100" in peers.kannel.arrived()
            and peers.post.mails
            and "+12025550101" in peers.fax.numbers()
        ),
        20,
    )
    assert time.monotonic() - began < 10
    expect(technician.locator("#rows")).to_contain_text(shown, timeout=10_000)
    mail = str(peers.post.mails[0])
    for said in (mail, peers.kannel.arrived(), (told.folder / "rso.log").read_text()):
        assert SECRET not in said
    assert f"{base}/exams/{number}" in mail
    customer.goto(f"{base}/exams/{number}")
    expect(customer.locator("main")).to_contain_text(f"{SECRET} waits in room 2")
    expect(customer.locator("#notifications")).to_contain_text("accepted")
    rows = told.rso("notify", "list", number, "--json")["notifications"]
    assert {r["channel"] for r in rows if r["state"] == "accepted"} == {"sms", "email", "fax"}


def test_contacts_are_added_by_code(told: Site, peers: Peers) -> None:
    """In the browser: the code arrives there, a wrong one is refused, the right one counts."""
    session, base = sign_in(told, "customer@example.org")
    with session:
        csrf = re.search(
            r'name="_csrf" value="([^"]+)"', session.get(f"{base}/me", timeout=20).text
        )
        assert csrf is not None
        form = {"_csrf": csrf[1], "channel": "email", "address": "me@example.org"}
        page = session.post(f"{base}/me/contacts", form, timeout=20).text
        contact = re.search(r"/me/contacts/([0-9a-f-]+)/confirm", page)
        code = re.search(r"(\d{6}) is your code", str(peers.post.mails[0]))
        assert contact is not None
        assert code is not None
        url = f"{base}/me/contacts/{contact[1]}/confirm"
        wrong = session.post(url, {"_csrf": csrf[1], "code": "000000x"}, timeout=20)
        assert wrong.status_code == 422
        right = session.post(url, {"_csrf": csrf[1], "code": code[1]}, timeout=20).text
        assert "Quiet hours" in right
        broken = session.post(
            f"{base}/me/contacts", {**form, "address": "a@b\r\nBcc: c@d"}, timeout=20
        )
        assert broken.status_code == 422
        other, _ = sign_in(told, "tech@example.org")
        with other:
            stolen = other.post(f"{base}/me/contacts/{contact[1]}/remove", timeout=20)
            assert stolen.status_code in {403, 404}


def test_kill_loses_no_message(told: Site, peers: Peers) -> None:
    """Kill -9 of the worker in the middle of forty messages: each arrives at least once."""
    numbers = []
    for _ in range(4):
        made = told.rso("exam", "create", "--facility", "NORTH", "--patient-name", "A^B", "--json")
        numbers.append(made["exam_number"])
    for number in numbers:
        told.rso("notify", "send", number, "--person", "tech@example.org:email")
        told.kill("work")
        time.sleep(0.3)

    def mailed() -> set[str]:
        return {n for n in numbers if any(n in str(mail) for mail in peers.post.mails)}

    # A message that was under way waits for its lease to end.
    wait_for(lambda: mailed() == set(numbers), 150)
    assert len(peers.post.mails) <= 2 * len(numbers)


@pytest.mark.proof
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("messages", "kills"), [(20, 5), (200, 50)])
def test_kills_at_random_points_lose_no_message(
    tmp_path: Path, pacs: Pacs, messages: int, kills: int
) -> None:
    """Kill -9 of the worker at random points: each arrives, twice only what was under way then."""
    post = Post(seconds=0.4)
    mail = Controller(post, hostname="127.0.0.1", port=free_port())
    mail.start()
    site = Site(
        tmp_path, pacs.port, "notify.per_minute=6000",
        f'plugins.email.url="mailto://127.0.0.1:{mail.port}?from=rso@example.org"',
    )  # fmt: skip
    random_ = random.Random(5)
    killed: list[float] = []
    site.start()
    try:
        numbers = asyncio.run(_write_messages(site, messages))
        for _ in range(kills):
            # Somewhere between the worker's start and the last of its messages.
            before = len(post.mails)
            wait_for(lambda n=before: len(post.mails) > n or _all(post, numbers), 90)  # type: ignore[misc]
            time.sleep(random_.uniform(0, 0.6))
            if _all(post, numbers):
                break
            site.kill("work")
            killed.append(time.monotonic())
        wait_for(lambda: _all(post, numbers), 120)
    finally:
        stopped = site.stop()
        mail.stop()
    assert stopped == 0
    assert len(killed) >= kills * 0.6
    # The event of a new exam tells of it too; the message that is counted is the manual one.
    arrived = [(n, at) for at, text in _manual(post) for n in numbers if n in text]
    first = {n: min(at for other, at in arrived if other == n) for n in numbers}
    twice = [n for n in numbers if sum(other == n for other, _ in arrived) > 1]
    print(f"{messages} messages, {len(killed)} kills, {len(arrived) - messages} duplicates")
    # The window: at most four are under way at once, and only those can be taken unnoted.
    assert len(arrived) - messages <= 4 * len(killed)
    for number in twice:
        assert any(abs(first[number] - at) < 2 for at in killed), number


def _all(post: Post, numbers: list[str]) -> bool:
    said = " ".join(text for _, text in _manual(post))
    return all(number in said for number in numbers)


async def _write_messages(site: Site, count: int) -> list[str]:
    """One message each about so many exams, while the worker sends."""
    async with open_engine(load_settings(site.config)) as engine:
        numbers = []
        for _ in range(count):
            exam = await create_exam(
                engine, facility="NORTH", patient=Patient(name="A^B"), actor="c@example.org"
            )
            await notify_people(engine, exam, {"tech@example.org": ["email"]}, actor="c")
            numbers.append(exam.number)
    return numbers


def _manual(post: Post) -> list[tuple[float, str]]:
    return [(at, text) for at, text in list(post.arrived) if "waits for you" in text]


def test_a_channel_can_be_tried(told: Site, peers: Peers) -> None:
    """From the command line, with an answer or a reason."""
    assert told.rso("notify", "test", "sms", "+12025550123", "--json")["said"] == "accepted"
    wait_for(lambda: "+12025550123" in peers.kannel.arrived())
    wrong = told.run("notify", "test", "sms", "12345")
    assert wrong.returncode == 1
    assert "country's code" in wrong.stderr
    assert told.run("notify", "test", "pigeon", "x").returncode == 1
    checks = {c["name"]: c["ok"] for c in told.rso("check", "--json")["checks"]}
    assert checks["notifier sms"]
    assert checks["notifier email"]
    assert checks["notifier fax"]

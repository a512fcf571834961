"""The end of a session in real tabs: nobody who works is thrown out, and no tab ends another one."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from rso.testing.browser import chromium, sign_in
from rso.testing.site import Site, free_port
from rso.testing.study import make_study

IDLE = 6  # seconds
Enter = Callable[[], Page]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose sessions end after seconds."""
    made = Site(tmp_path_factory.mktemp("session"), free_port(), f"web.idle_minutes={IDLE / 60}")
    made.start("web")
    yield made
    assert made.stop() == 0


@pytest.fixture
def enter(site: Site) -> Iterator[Enter]:
    """A page of a technician in a browser of their own; errors of scripts fail the test."""
    with chromium() as browser:

        def opened() -> Page:
            page = browser.new_context().new_page()
            page.on("pageerror", lambda error: pytest.fail(f"script error: {error}"))
            sign_in(page, base_of(site), "tech@example.org", "a good password")
            return page

        yield opened


def base_of(site: Site) -> str:
    """Where its pages are."""
    return f"http://127.0.0.1:{site.web}"


def make_exam(page: Page, base: str) -> str:
    """Request one."""
    csrf = str(page.get_attribute("body", "data-csrf"))
    form = {"facility": "NORTH", "family": "DOE", "indication": "pain"}
    made = page.request.post(f"{base}/exams/new", headers={"X-CSRF-Token": csrf}, form=form)
    return made.url.split("/")[-2]


@pytest.mark.alone
def test_a_tab_beside_the_one_in_use(site: Site, enter: Enter) -> None:
    """It stays, with what was typed in it and without a warning; unused, both leave in the end."""
    base = base_of(site)
    still = enter()
    still.goto(f"{base}/exams/new")
    still.fill("[name=family]", "HALF")
    busy = still.context.new_page()
    busy.goto(f"{base}/me/security")
    for _ in range(IDLE):
        busy.locator("#old").press_sequentially("1")
        busy.wait_for_timeout(2000)
        assert still.locator(".session").count() == 0
    assert still.url == f"{base}/exams/new"
    expect(still.locator("[name=family]")).to_have_value("HALF")
    for page, path in ((still, "/exams/new"), (busy, "/me/security")):
        page.wait_for_url(re.compile("/sign-in"), timeout=4000 * IDLE)
        assert page.url.endswith(f"/sign-in?next={path.replace('/', '%2F')}")
    # Whoever signs in is where they were.
    still.fill("[name=email]", "tech@example.org")
    still.fill("[name=password]", "a good password")
    still.keyboard.press("Enter")
    still.wait_for_url(f"{base}/exams/new")


@pytest.mark.alone
def test_a_new_session_in_another_tab(site: Site, enter: Enter) -> None:
    """The tab of before goes on with it, token and all; with somebody else's it stops and says so."""
    base = base_of(site)
    old = enter()
    number = make_exam(old, base)
    old.goto(f"{base}/exams/{number}/edit")
    old.fill("[name=history]", "half written")
    token = old.get_attribute("body", "data-csrf")
    other = old.context.new_page()
    for email, after in (("tech@example.org", "mine"), ("first@example.org", "theirs")):
        other.context.clear_cookies()
        sign_in(other, base, email, "a good password")
        if after == "mine":
            expect(old.locator("body")).not_to_have_attribute("data-csrf", str(token))
            assert old.input_value("form.sheet [name=_csrf]") == other.get_attribute(
                "body", "data-csrf"
            )
        else:
            expect(old.locator(".session")).to_contain_text("Somebody else signed in")
            assert old.input_value("form.sheet [name=_csrf]") != other.get_attribute(
                "body", "data-csrf"
            )
    expect(old.locator("[name=history]")).to_have_value("half written")
    other.context.clear_cookies()
    sign_in(other, base, "tech@example.org", "a good password")
    expect(old.locator(".session")).to_have_count(0)
    old.click("form.sheet button.main")
    old.wait_for_url(f"{base}/exams/{number}")
    expect(old.locator("main")).to_contain_text("half written")


@pytest.mark.alone
def test_what_is_typed_outlives_a_session(site: Site, enter: Enter) -> None:
    """Out of sight, and not left behind: signed in again beside it, it is there and is saved.

    So does what came back because something was wrong with it.
    """
    base = base_of(site)
    old = enter()
    number = make_exam(old, base)
    wrong = old.context.new_page()
    wrong.goto(f"{base}/exams/{number}/edit")
    wrong.fill("[name=indication]", "")
    wrong.fill("[name=allergies]", "iodine")
    wrong.click("form.sheet button.main")
    expect(wrong.locator(".problem")).to_be_visible()
    old.goto(f"{base}/exams/{number}/edit")
    old.fill("[name=history]", "half written")
    told = old.locator(".session")
    expect(told).to_contain_text("Your session has ended", timeout=4000 * IDLE)
    expect(old.locator("main")).to_be_hidden()
    with old.expect_popup() as opened:
        told.get_by_role("link", name="Sign in").click()
    opened.value.fill("[name=email]", "tech@example.org")
    opened.value.fill("[name=password]", "a good password")
    opened.value.keyboard.press("Enter")
    expect(told).to_have_count(0)
    expect(wrong.locator("main")).to_be_visible()
    expect(wrong.locator("[name=allergies]")).to_have_value("iodine")
    assert old.url == f"{base}/exams/{number}/edit"
    old.click("form.sheet button.main")
    old.wait_for_url(f"{base}/exams/{number}")
    expect(old.locator("main")).to_contain_text("half written")


@pytest.mark.alone
def test_what_is_typed_stays_without_the_patient(site: Site, enter: Enter) -> None:
    """What an ended session leaves in the page is the form; signed in again, all of it is live."""
    base = base_of(site)
    old = enter()
    number = make_exam(old, base)
    old.goto(f"{base}/exams/{number}")
    expect(old.locator("main")).to_contain_text("DOE")
    old.fill("#own-note", "half written")
    told = old.locator(".session")
    expect(told).to_contain_text("Your session has ended", timeout=4000 * IDLE)
    left = old.content()
    assert "half written" in old.input_value("#own-note")
    for seen in ("DOE", "pain", "Timeline"):
        assert seen not in left
    with old.expect_popup() as opened:
        told.get_by_role("link", name="Sign in").click()
    opened.value.fill("[name=email]", "tech@example.org")
    opened.value.fill("[name=password]", "a good password")
    opened.value.keyboard.press("Enter")
    expect(told).to_have_count(0)
    opened.value.wait_for_url(f"{base}/")
    expect(old.locator("main")).to_contain_text("DOE")
    expect(old.locator("#lost")).to_be_hidden()
    csrf = str(opened.value.get_attribute("body", "data-csrf"))
    opened.value.request.post(
        f"{base}/exams/{number}/owner", headers={"X-CSRF-Token": csrf}, form={"to": "me"}
    )
    old.bring_to_front()
    expect(old.locator("#timeline")).to_contain_text("exam claimed")
    old.click("text=Keep note")
    expect(old.locator("#notes blockquote")).to_contain_text("half written")


@pytest.mark.alone
def test_a_search_is_nothing_unsaved(site: Site, enter: Enter) -> None:
    """What was looked for keeps no page there with its patients, in the list or in the audit."""
    base = base_of(site)
    page = enter()
    page.context.clear_cookies()
    sign_in(page, base, site.admin["email"], site.admin["password"])
    audit = page.context.new_page()
    audit.goto(f"{base}/audit")
    audit.fill("#actor", "tech")
    page.fill("#search", "DOE")
    for left in (page, audit):
        left.wait_for_url(re.compile("/sign-in"), timeout=4000 * IDLE)


@pytest.mark.alone
def test_an_upload_is_work(site: Site, enter: Enter, samples: Path, tmp_path: Path) -> None:
    """One that takes longer than a session lasts without use is not interrupted."""
    base = base_of(site)
    page = enter()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.type), dialog.dismiss()))
    number = make_exam(page, base)
    make_study(
        samples / "CT_small.dcm", tmp_path / "cd", 30, PatientName="DOE", PatientBirthDate=""
    )
    page.goto(f"{base}/exams/{number}/upload")
    page.set_input_files("#folder", str(tmp_path / "cd"))
    expect(page.locator("#start")).to_have_text("Send 30 images")
    line = page.context.new_cdp_session(page)
    line.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 80_000},
    )
    page.click("#start")
    expect(page.locator("#receipt")).to_contain_text("30 of 30 stored safely", timeout=60_000)
    assert not dialogs
    assert page.url.endswith("/upload")


@pytest.mark.alone
def test_a_server_that_is_away_ends_no_session(site: Site, enter: Enter) -> None:
    """A page is left when RSO says that the session is over, not when nothing is heard of it."""
    page = enter()
    page.goto(f"{base_of(site)}/me")
    page.context.set_offline(True)
    expect(page.locator(".session")).to_contain_text("RSO does not answer", timeout=4000 * IDLE)
    assert page.url.endswith("/me")
    page.context.set_offline(False)
    page.wait_for_url(re.compile("/sign-in"), timeout=4000 * IDLE)

"""The Active patient list in a real browser: live, by keyboard, claimed, kept as a view."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from rso.core.exam import Exam, ExamStatus, Origin, Patient
from rso.core.number import make_number
from rso.ledger import Ledger, new_id
from rso.ledger.exams import insert_exam, now
from rso.settings import load_settings
from rso.testing.browser import sign_in, wait_held
from rso.testing.pacs import Pacs
from rso.testing.site import Site

Visit = Callable[..., Page]
_LIVE_MS = 2000  # a request is listed within this


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One running RSO for all of these tests."""
    pacs = Pacs()
    pacs.start()
    made = Site(tmp_path_factory.mktemp("site"), pacs.port)
    made.start()
    yield made
    assert made.stop() == 0
    pacs.stop()


async def make_many(url: str, count: int) -> None:
    """So many exams that wait, due one after the other."""
    ledger, at = await Ledger.open(url), now()
    await ledger.migrate()
    for i in range(count):
        exam = Exam(
            id=new_id(), number=make_number(), facility="NORTH", origin=Origin.REQUEST,
            status=ExamStatus.REQUESTED, patient=Patient(name=f"DOE^J{i}"), created_at=at,
            modality="CT",
        )  # fmt: skip
        due_at = at + timedelta(hours=9, minutes=i)
        await insert_exam(ledger, exam, due_at=due_at, created_by="t")
    await ledger.close()


@pytest.fixture
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A list of three pages: 120 exams."""
    made = Site(tmp_path_factory.mktemp("many"), 1)
    with ThreadPoolExecutor(1) as aside:  # the browser has a loop in this thread
        url = load_settings(made.config).database.url
        aside.submit(asyncio.run, make_many(url, 120)).result()
    made.start("web")
    yield made
    assert made.stop() == 0


@pytest.fixture
def visit_many(browser: Browser, many: Site) -> Visit:
    """The list of three pages, seen by a technician; any error of a script fails the test."""

    def open_page() -> Page:
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        page.on("pageerror", lambda error: pytest.fail(f"script error: {error}"))
        sign_in(page, f"http://127.0.0.1:{many.web}", "tech@example.org", "a good password")
        page.wait_for_timeout(500)  # the stream's first word has been answered
        return page

    return open_page


def make_exam(site: Site, name: str, **more: str) -> str:
    """An exam's number as it is shown."""
    words = [word for key, value in more.items() for word in (f"--{key.replace('_', '-')}", value)]
    made: dict[str, Any] = site.rso(
        "exam", "create", "--facility", "NORTH", "--patient-name", name, *words, "--json"
    )
    number = str(made["exam_number"])
    return f"{number[:4]}-{number[4:8]}-{number[8:]}"


def test_a_request_is_listed_live(site: Site, visit: Visit) -> None:
    """One person asks for an exam; another's list, and nobody else's, shows it within two seconds."""
    technician, customer, south = (
        visit(), visit("customer@example.org"), visit("south@example.org", "another good password")
    )  # fmt: skip
    asked: list[str] = []
    for page in (technician, south):
        page.wait_for_timeout(500)  # the stream's first word has been answered
    south.on("request", lambda request: asked.append(request.url))
    customer.click("text=New exam")
    customer.fill("[name=family]", "DOE")
    customer.fill("[name=indication]", "pain")
    customer.click("button.main:has-text('Create exam')")
    number = customer.locator("#number").inner_text()
    expect(technician.locator("#rows")).to_contain_text(number, timeout=_LIVE_MS)
    south.wait_for_timeout(1000)
    assert not asked, "another facility's page was told of the change"
    # Nobody's name is in a URL, nor is a search.
    urls: list[str] = []
    technician.on("request", lambda request: urls.append(request.url))
    technician.fill("#search", "do")
    expect(technician.locator("#rows")).to_contain_text("DOE")
    technician.fill("#search", "nobody")
    expect(technician.locator("#rows")).to_contain_text("Nothing fits")
    assert urls
    assert all(url.endswith("/exams/rows") for url in urls)


def test_a_lost_line_is_shown_and_found_again(site: Site, visit: Visit) -> None:
    """The server dies, or the network goes; the list says so, and catches up by itself."""
    page = visit()
    expect(page.locator("#lost")).to_be_hidden()
    page.context.set_offline(True)
    expect(page.locator("#lost")).to_contain_text("Connection lost")
    number = make_exam(site, "DOE^JANE")
    page.context.set_offline(False)
    expect(page.locator("#rows")).to_contain_text(number, timeout=10_000)
    expect(page.locator("#lost")).to_be_hidden()
    site.kill("web")
    expect(page.locator("#lost")).to_contain_text("Connection lost", timeout=10_000)
    number = make_exam(site, "ROE^RICHARD")
    expect(page.locator("#rows")).to_contain_text(number, timeout=20_000)
    expect(page.locator("#lost")).to_be_hidden()


def test_the_stream_ends_with_the_session(site: Site, visit: Visit) -> None:
    """Signing out in one tab ends the live line of the other."""
    page = visit()
    other = page.context.new_page()
    other.goto(f"http://127.0.0.1:{site.web}/me")
    page.wait_for_timeout(500)
    other.click("text=Sign out")
    page.bring_to_front()
    expect(page.locator("#lost")).to_contain_text("signed out", timeout=10_000)


def test_keyboard_and_claim(site: Site, visit: Visit) -> None:
    """Down, up, claim, search, help and open without a mouse; another person sees the claim."""
    numbers = [make_exam(site, name, priority="stat") for name in ("A^A", "B^B", "C^C")]
    page, other = visit(), visit("first@example.org")
    chosen = page.locator("tr.chosen a.number")
    page.keyboard.press("j")
    expect(chosen).to_have_text(numbers[0])
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")
    expect(chosen).to_have_text(numbers[1])
    page.keyboard.press("c")
    expect(page.locator("tr.chosen .owner")).to_have_text("you")
    row = other.locator(f"tr:has-text('{numbers[1]}')")
    expect(row.locator(".owner")).to_have_text("tech", timeout=_LIVE_MS)
    expect(row.locator("[data-claim]")).to_have_count(0)
    # The rows came anew, and the keyboard is still where it was.
    expect(chosen).to_be_focused()
    page.keyboard.press("c")
    expect(page.locator("tr.chosen .owner")).to_have_count(0)
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    page.keyboard.press("/")
    page.keyboard.type(numbers[2][:6].lower())
    expect(page.locator("#rows tr[data-number]")).to_have_count(1)
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"http://127.0.0.1:{site.web}/exams/{numbers[2].replace('-', '')}")
    page.click("button:has-text('Claim')")
    expect(page.locator("main")).to_contain_text("exam claimed")


def test_views(site: Site, visit: Visit) -> None:
    """A filter is kept under a name, opens first, and is gone when it is removed."""
    other, own = make_exam(site, "CT^ONE", modality="CT"), make_exam(site, "MR^ONE", modality="MR")
    page = visit()
    rows = "#rows tr[data-number]"
    expect(page.locator("#rows")).to_contain_text(other)
    page.click("text=Filter and sort")
    page.select_option("[name=modality]", "MR")
    expect(page.locator(rows)).to_have_count(1)
    page.fill("#search", "mr")
    page.click(".pop summary")
    page.fill("#view-name", "Only MR")
    page.click("#keep-view button")
    expect(page.locator(".views a[aria-current]")).to_contain_text("Only MR")
    expect(page.locator(rows)).to_have_count(1)
    expect(page.locator("#search")).to_have_value("")
    page.click(".pop summary")
    page.click("text=Open the list with this view")
    again = visit()
    expect(again.locator(rows)).to_have_count(1)
    expect(again.locator("#rows")).to_contain_text(own)
    expect(again.locator("[name=modality]")).to_have_value("MR")
    again.click("text=All active")
    expect(again.locator("#rows")).to_contain_text(other)
    again.click(".views a:has-text('Only MR')")
    again.click(".pop summary")
    again.click("text=Remove this view")
    expect(again.locator("#rows")).to_contain_text(other)
    expect(again.locator(".views nav a")).to_have_count(1)


def test_light_enough(site: Site, visit: Visit) -> None:
    """From the sign-in page to a working list under 100 KB of assets, all of them RSO's own."""
    page = visit()
    page.context.clear_cookies()
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": False})
    session.send("Network.clearBrowserCache")
    received: dict[str, float] = {}
    urls: dict[str, str] = {}
    session.on("Network.requestWillBeSent",
               lambda event: urls.update({event["requestId"]: event["request"]["url"]}))  # fmt: skip
    session.on("Network.loadingFinished",
               lambda event: received.update({event["requestId"]: event["encodedDataLength"]}))  # fmt: skip
    base = f"http://127.0.0.1:{site.web}"
    page.goto(f"{base}/sign-in")
    page.fill("[name=email]", "tech@example.org")
    page.fill("[name=password]", "a good password")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{base}/")
    expect(page.locator("#rows")).to_be_visible()
    for _ in range(100):
        # What was asked for before the browser told of it has no address here, and is not counted.
        sizes = {urls[k]: n for k, n in received.items() if k in urls}
        if any("htmx" in url for url in sizes):
            break
        page.wait_for_timeout(100)
    assert all(url.startswith((base, "data:")) for url in urls.values()), urls
    assert sum(sizes.values()) < 100_000, sizes
    assert any("htmx" in url and n < 25_000 for url, n in sizes.items()), "not compressed"


ROWS = "#rows tr[data-number]"


def test_pages(many: Site, visit_many: Visit) -> None:
    """There and back by mouse and keyboard; what happens meanwhile turns no page."""
    page = visit_many()

    def shown() -> list[str]:
        return page.locator(f"{ROWS} a.number").all_inner_texts()

    expect(page.locator(ROWS)).to_have_count(50)
    first = shown()
    expect(page.locator("[data-page=previous]")).to_have_count(0)
    page.locator("[data-page=next]").click()
    expect(page.locator("[data-page=previous]")).to_have_count(2)
    second = shown()
    assert len(second) == 50
    assert not set(first) & set(second)
    # The new page begins under the eyes, and the keyboard at its first exam.
    expect(page.locator("#rows")).to_be_focused()
    assert page.evaluate("document.getElementById('rows').getBoundingClientRect().top") >= 0
    page.keyboard.press("j")
    expect(page.locator("tr.chosen a.number")).to_have_text(second[0])
    # Somebody asks for an exam that stands first: this page is told, and stays.
    with page.expect_response("**/exams/rows"):
        make_exam(many, "NEW^ONE", priority="stat")
    page.wait_for_timeout(500)
    assert shown() == second
    expect(page.locator("tr.chosen a.number")).to_be_focused()
    page.keyboard.press("n")
    expect(page.locator(ROWS)).to_have_count(20)
    expect(page.locator("#rows")).to_contain_text("The list ends here")
    page.keyboard.press("n")
    page.keyboard.press("p")
    expect(page.locator(f"{ROWS} a.number").first).to_have_text(second[0])
    assert shown() == second
    page.keyboard.press("p")
    expect(page.locator(f"{ROWS} a.number").first).to_have_text(first[0])
    assert shown() == first
    page.keyboard.press("p")  # before those stands the new one alone: this is the first page
    expect(page.locator(f"{ROWS} a.number").nth(1)).to_have_text(first[0])
    expect(page.locator("[data-page=previous]")).to_have_count(0)
    # A filter begins at its first page, and so does Enter in the search.
    page.keyboard.press("n")
    expect(page.locator("[data-page=previous]")).to_have_count(2)
    page.fill("#search", "new")
    page.keyboard.press("Enter")
    expect(page.locator(ROWS)).to_have_count(1)
    page.fill("#search", "")
    expect(page.locator(ROWS)).to_have_count(50)
    page.locator("[data-page=next]").click()
    expect(page.locator("[data-page=previous]")).to_have_count(2)
    page.click("text=Filter and sort")
    page.select_option("[name=sort]", "oldest")
    expect(page.locator("[data-page=previous]")).to_have_count(0)
    page.select_option("[name=modality]", "XA")
    expect(page.locator("#rows .empty")).to_contain_text("No exam fits XA")
    page.click("#rows .empty a")
    expect(page.locator(ROWS)).to_have_count(50)


def test_back_leads_to_where_the_list_was(many: Site, visit_many: Visit) -> None:
    """From an exam back to the page, the filter and the exam; a search is kept nowhere."""
    page = visit_many()
    page.click("text=Filter and sort")
    with page.expect_response("**/exams/rows"):
        page.select_option("[name=owner]", "nobody")
    expect(page.locator("#rows .only")).to_contain_text("nobody's")
    page.locator("[data-page=next]").first.click()
    expect(page.locator("[data-page=previous]")).to_have_count(2)
    here = page.locator(f"{ROWS} a.number").all_inner_texts()
    page.click(f"{ROWS} >> nth=7 >> a.number")
    expect(page.locator("h1")).to_contain_text(here[7])
    page.go_back()
    expect(page.locator("[data-page=previous]")).to_have_count(2)
    assert page.locator(f"{ROWS} a.number").all_inner_texts() == here
    expect(page.locator("[name=owner]")).to_have_value("nobody")
    expect(page.locator("#rows .only")).to_contain_text("nobody's")
    expect(page.locator("tr.chosen a.number")).to_be_focused()
    expect(page.locator("tr.chosen a.number")).to_have_text(here[7])
    # By name a place is a name, and a search may be one.
    page.select_option("[name=sort]", "name")
    expect(page.locator("[data-page=previous]")).to_have_count(0)
    page.locator("[data-page=next]").first.click()
    expect(page.locator("[data-page=previous]")).to_have_count(2)
    assert page.evaluate("history.state.cursor") == ""
    page.fill("#search", "doe")
    expect(page.locator("[data-page=previous]")).to_have_count(0)
    assert "doe" not in page.evaluate("JSON.stringify(history.state)").lower()


def test_a_late_answer_turns_no_page_back(many: Site, visit_many: Visit) -> None:
    """A page was turned while the list was being refreshed: the older answer is not shown."""
    page = visit_many()
    first = page.locator(f"{ROWS} a.number").first.inner_text()
    held: list[Any] = []

    def hold(route: Any) -> None:
        if "to=" in (route.request.post_data or ""):
            route.continue_()
        else:
            held.append(route)

    page.route("**/exams/rows", hold)
    page.evaluate("document.body.dispatchEvent(new CustomEvent('refresh'))")
    wait_held(page, held)
    page.keyboard.press("n")
    expect(page.locator("[data-page=previous]")).to_have_count(2)
    second = page.locator(f"{ROWS} a.number").first.inner_text()
    assert second != first
    for route in held:
        route.continue_()
    page.unroute("**/exams/rows")
    page.wait_for_timeout(700)
    expect(page.locator(f"{ROWS} a.number").first).to_have_text(second)


@pytest.mark.parametrize("way", ["next", "previous"])
def test_pages_without_scripts(browser: Browser, many: Site, way: str) -> None:
    """The buttons of pages post the form: the same pages come back whole."""
    page = browser.new_context(java_script_enabled=False).new_page()
    sign_in(page, f"http://127.0.0.1:{many.web}", "tech@example.org", "a good password")
    first = page.locator(f"{ROWS} a.number").all_inner_texts()
    page.click("[data-page=next]")
    second = page.locator(f"{ROWS} a.number").all_inner_texts()
    assert len(second) == 50
    assert not set(first) & set(second)
    if way == "previous":
        page.click("[data-page=previous] >> nth=0")
        assert page.locator(f"{ROWS} a.number").all_inner_texts() == first


def test_long_names_push_nothing_off_the_page(many: Site, visit_many: Visit) -> None:
    """One word of sixty letters, and a long Patient ID, at a desk and on a phone."""
    make_exam(many, "X" * 60 + "^Y", patient_id="PATIENT-ID-OF-ANOTHER-HOSPITAL-" + "9" * 30)
    page = visit_many()
    page.fill("#search", "xxx")
    expect(page.locator(ROWS)).to_have_count(1)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        for selector in ("html", "#rows .scroll"):
            wide = page.locator(selector).evaluate("e => e.scrollWidth - e.clientWidth")
            assert wide <= 0, (width, selector)


def test_a_search_says_how_many_fit(many: Site, visit_many: Visit) -> None:
    """For those who do not see the rows change; what comes by itself says nothing."""
    page = visit_many()
    said, search = page.locator("#fits"), page.locator("#search")
    page.evaluate(
        "new MutationObserver(() => { window.told = (window.told || 0) + 1; })"
        ".observe(document.getElementById('fits'), {childList: true, characterData: true})"
    )
    refresh = "document.body.dispatchEvent(new CustomEvent('refresh'))"
    with page.expect_response("**/exams/rows"):
        page.evaluate(refresh)
    expect(said).to_have_text("")
    for typed, words in (("J119", "1 exam fits."), ("nobody at all", "Nothing fits."),
                         ("", "The first 50 exams; more follow.")):  # fmt: skip
        search.fill(f"DOE {typed}" if typed.startswith("J") else typed)
        expect(said).to_have_text(words)
    page.locator(".filters summary").click()
    page.select_option("#by-modality", "MR")
    expect(said).to_have_text("Nothing fits.")
    expect(page.get_by_role("status").filter(has_text="Nothing fits.")).to_have_count(1)
    told = page.evaluate("window.told")
    for _ in range(2):
        with page.expect_response("**/exams/rows"):
            page.evaluate(refresh)
        page.wait_for_timeout(200)
    assert page.evaluate("window.told") == told

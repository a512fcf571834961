"""A day of each role on one site, in a real browser, with the keyboard alone."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from playwright.sync_api import Browser, Page, expect

from rso.testing.browser import chromium
from rso.testing.fixtures import find_peer
from rso.testing.pacs import Pacs
from rso.testing.site import Site, wait_for
from rso.testing.study import delivered, make_study, missing

PASSWORD = "a good password"
LIVE_MS = 2000  # a request is listed within this
AUDITOR = (
    '[[user]]\nemail = "auditor@example.org"\nrole = "auditor"\npassword = "a good password"\n'
)
# Of what has the focus, or of the label around a hidden file input.
RING = """e => { const seen = (s) => s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2;
  return e.matches(":focus-visible") && (seen(getComputedStyle(e)) || seen(getComputedStyle(e.parentElement))); }"""


@pytest.fixture(scope="module")
def pacs() -> Iterator[Pacs]:
    """The radiologist's."""
    made = Pacs()
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, pacs: Pacs) -> Iterator[Site]:
    """One for every walk."""
    made = Site(tmp_path_factory.mktemp("walk"), pacs.port)
    file = made.folder / "auditor.toml"
    file.write_text(AUDITOR)
    made.rso("load", str(file), "--json")
    made.start()
    yield made
    assert made.stop() == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for every walk."""
    with chromium() as made:
        yield made


def enter(browser: Browser, site: Site, email: str, password: str = PASSWORD) -> Page:
    """Somebody signs in by keyboard; any error of a script fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US")
    page = context.new_page()
    page.on("pageerror", lambda error: pytest.fail(f"script error: {error}"))
    page.goto(f"http://127.0.0.1:{site.web}/sign-in")
    expect(page.locator("#email")).to_be_focused()
    page.keyboard.type(email)
    page.keyboard.press("Tab")
    page.keyboard.type(password)
    page.keyboard.press("Enter")
    page.wait_for_url(f"http://127.0.0.1:{site.web}/")
    return page


def go(page: Page, selector: str, text: str = "") -> None:
    """Tab to it, however far, see that the focus shows, and type."""
    target = page.locator(selector).first
    expect(target).to_be_attached()
    for _ in range(200):
        if target.evaluate("e => e === document.activeElement"):
            break
        page.keyboard.press("Tab")
    expect(target).to_be_focused()
    # Asked of what has the focus now: a live list may come anew meanwhile, and gives it back.
    assert page.evaluate(f"({RING})(document.activeElement)"), (
        f"the focus does not show on {selector}"
    )
    if text:
        page.keyboard.type(text)


def press(page: Page, selector: str, key: str = "Enter") -> None:
    """Tab to it and press."""
    go(page, selector)
    page.keyboard.press(key)


def release(page: Page, reason: str) -> None:
    """From the list of holds to the decision."""
    press(page, "#rows a:has-text('Look and decide')")
    page.wait_for_url(re.compile("/holds/.+"))
    press(page, "[name=exam]", "Space")
    go(page, "[name=reason]", reason)
    press(page, "button[value=release]")


@pytest.mark.timeout(240)
def test_from_request_to_proof(
    site: Site, browser: Browser, samples: Path, tmp_path: Path, pacs: Pacs
) -> None:
    """Asked for, listed live, claimed, uploaded; what is another's is held and released by two; n of n."""
    base = f"http://127.0.0.1:{site.web}"
    technician = enter(browser, site, "tech@example.org")
    first = enter(browser, site, "first@example.org")
    press(first, ".bar a[href='/holds']")
    expect(first.locator("#rows")).to_contain_text("Nothing waits")
    # The customer asks.
    customer = enter(browser, site, "customer@example.org")
    press(customer, ".bar a[href='/exams/new']")
    customer.wait_for_url(f"{base}/exams/new")
    go(customer, "[name=family]", "DOE")
    go(customer, "[name=given]", "JANE")
    go(customer, "[name=birth_date]", "01311970")
    go(customer, "[name=indication]", "fell from a ladder")
    press(customer, "button.main:has-text('Create exam')")
    number = customer.locator("#number").inner_text()
    # The technician sees it at once, and nothing was loaded again.
    expect(technician.locator("#rows")).to_contain_text(number, timeout=LIVE_MS)
    chosen = technician.locator("tr.chosen a.number")
    technician.keyboard.press("j")
    expect(chosen).to_have_text(number)
    assert chosen.evaluate(RING)
    technician.keyboard.press("c")
    expect(technician.locator("tr.chosen .owner")).to_have_text("you")
    technician.keyboard.press("Enter")
    technician.wait_for_url(f"{base}/exams/{number.replace('-', '')}")
    press(technician, "a:has-text('Upload images')")
    technician.wait_for_url(re.compile("/upload$"))
    own = make_study(samples / "CT_small.dcm", tmp_path / "own", 3, PatientName="DOE^JANE",
                     PatientBirthDate="19700131")  # fmt: skip
    other = make_study(samples / "CT_small.dcm", tmp_path / "other", 2,
                       PatientName="ROE^RICHARD", PatientBirthDate="19800131")  # fmt: skip
    # Listened for before the way to the button, so that the browser knows it when the key comes.
    technician.once("filechooser", lambda chooser: chooser.set_files([*own, *other]))
    press(technician, "#pick")
    expect(technician.locator("#said")).to_contain_text("5 images found", timeout=30_000)
    press(technician, "#groups tr:has-text('ROE') input", "Space")
    press(technician, "#start")
    expect(technician.locator("#receipt")).to_contain_text("5 of 5 stored safely", timeout=60_000)
    press(technician, "a:has-text('Back to the exam')")
    expect(technician.locator("#live")).to_contain_text("3 of 3", timeout=30_000)
    # Two coordinators release what is another's; the first sees it come.
    expect(first.locator("#rows")).to_contain_text("1 with an alarm", timeout=15_000)
    release(first, "the facility says so")
    expect(first.locator("main")).to_contain_text("a second person must release it too")
    second = enter(browser, site, "second@example.org")
    press(second, ".bar a[href='/holds']")
    expect(second.locator("#rows")).to_contain_text("the second is awaited")
    release(second, "I asked there too")
    expect(second.locator("#rows")).to_contain_text("Nothing waits")
    # The proof stands on the exam's page, live.
    expect(technician.locator("#live")).to_contain_text("5 of 5", timeout=40_000)
    expect(technician.locator("#live .delivery")).to_contain_text("delivered")
    delivered(site, number.replace("-", ""), 5)
    assert missing(pacs, own) == 0
    assert {str(pydicom.dcmread(f).SOPInstanceUID) for f in other} <= set(pacs.by_uid())
    press(customer, "a:has-text('Open the exam')")
    expect(customer.locator("#live .delivery")).to_contain_text("5 of 5")


def test_the_administrator_sets_up_a_clinic(
    site: Site, browser: Browser, samples: Path, tmp_path: Path, pacs: Pacs
) -> None:
    """A radiologist with a PACS and a facility with a source, from nothing; storescu's images arrive."""
    page = enter(browser, site, site.admin["email"], site.admin["password"])
    press(page, ".bar a[href='/admin']")
    press(page, "a:has-text('Add a radiologist')")
    page.wait_for_url(re.compile("/radiologists/new"))
    go(page, "[name=code]", "WESTREADER")
    for name, value in (("code", "WEST-PACS"), ("ae_title", "PACS"), ("host", "127.0.0.1"),
                        ("port", str(pacs.port))):  # fmt: skip
        go(page, f"[name=destination-01-{name}]", value)
    press(page, "button:has-text('Save')")
    expect(page.locator("main")).to_contain_text("WEST-PACS")
    press(page, "a:has-text('Add a facility')")
    page.wait_for_url(re.compile("/facilities/new"))
    go(page, "[name=code]", "WEST")
    go(page, "[name=source-01-identity]", "WESTCT")
    go(page, "[name=source-01-kind]", "integration")
    go(page, "[name=source-01-networks]", "127.0.0.0/8")
    go(page, "[name=reader-01-code]", "WESTREADER")
    press(page, "button:has-text('Save')")
    expect(page.locator("main")).to_contain_text("WESTCT")
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 3)
    subprocess.run(
        [find_peer("storescu"), "-aet", "WESTCT", "-aec", "RSO", "127.0.0.1", str(site.dicom),
         *map(str, files)],
        check=True, timeout=60,
    )  # fmt: skip
    exam = wait_for(lambda: next((e for e in site.exams() if e["facility"] == "WEST"), None))
    delivered(site, exam["exam_number"], 3)
    # storescu chooses the Transfer Syntax, so the bytes may be others.
    assert {str(pydicom.dcmread(f).SOPInstanceUID) for f in files} <= set(pacs.by_uid())


def test_the_auditor_reads_and_no_more(site: Site, browser: Browser) -> None:
    """Reads, filters and exports the audit; no page has a button that changes anything."""
    base = f"http://127.0.0.1:{site.web}"
    made = site.rso("exam", "create", "--facility", "NORTH", "--patient-name", "ROE^R", "--json")
    page = enter(browser, site, "auditor@example.org")
    for path in ("/", f"/exams/{made['exam_number']}", "/holds", "/deliveries",
                 "/refusals", "/audit"):  # fmt: skip
        page.goto(base + path)
        acts = page.locator(
            "form[method=post]:not([action='/sign-out'], [action^='/audit'], [action^='/views'], #finder)"
        )
        expect(acts).to_have_count(0)
        expect(page.locator("[data-claim], a[href='/exams/new'], a[href='/admin']")).to_have_count(
            0
        )
    go(page, "#action")
    page.keyboard.type("exam created")
    press(page, "button:has-text('Show')")
    expect(page.locator("tbody tr").first).to_contain_text("exam created")
    expect(page.locator("tbody")).not_to_contain_text("signed in")
    go(page, "button:has-text('Export as CSV')")
    with page.expect_download() as got:
        page.keyboard.press("Enter")
    lines = Path(got.value.path()).read_text("utf-8").splitlines()
    assert len(lines) > 1
    assert all("exam created" in line for line in lines[1:])
    csrf = page.locator("body").get_attribute("data-csrf")
    number = made["exam_number"]
    for path in ("/exams/new", f"/exams/{number}/cancel", f"/exams/{number}/notes",
                 f"/exams/{number}/edit", f"/exams/{number}/owner", f"/exams/{number}/documents",
                 "/deliveries/READER-PACS", "/admin/users/save", "/admin/import",
                 "/admin/retention", "/admin/tokens", "/refusals/clear"):  # fmt: skip
        answer = page.request.post(base + path, headers={"X-CSRF-Token": str(csrf)},
                                   form={"reason": "x", "note": "x", "do": "pause"})  # fmt: skip
        assert answer.status == 403, path
    for path in ("/admin", "/dashboard", "/admin/site.toml"):
        assert page.request.get(base + path).status == 403, path


@pytest.mark.alone
def test_a_session_ends_and_says_so_before(tmp_path: Path, browser: Browser, pacs: Pacs) -> None:
    """With limits of seconds: warned, extended by a press, warned of the last end, and out."""
    made = Site(tmp_path, pacs.port, "web.idle_minutes=0.2", "web.session_hours=0.008")
    made.start("web")
    try:
        _watch_a_session(enter(browser, made, "tech@example.org"), f"http://127.0.0.1:{made.web}")
    finally:
        code = made.stop()
    assert code == 0


def _watch_a_session(page: Page, base: str) -> None:
    page.goto(f"{base}/me/security")
    warning = page.locator(".session")
    expect(warning).to_have_count(0)
    expect(warning).to_contain_text("You will be signed out", timeout=12_000)
    expect(warning).to_have_attribute("role", "alert")
    press(page, ".session button")
    expect(warning).to_have_count(0)
    # It can be extended no more when the session's own time is over.
    for _ in range(3):
        expect(warning).to_be_visible(timeout=12_000)
        if page.locator(".session button").is_hidden():
            break
        page.locator(".session button").press("Enter")
        expect(warning.filter(has_text="You will")).to_have_count(0)
    expect(warning).to_contain_text("save your work")
    page.wait_for_url("**/sign-in?next=*", timeout=12_000)
    assert page.request.get(f"{base}/api/exams").status == 401

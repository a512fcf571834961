"""What pages come to when somebody errs, opens or waits: axe is content, nothing hangs over.

Light and dark, at a desk and on a phone, as ``test_pages`` looks at the pages themselves.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pyotp
import pytest
from playwright.sync_api import Browser, Page, expect

from rso.testing.browser import chromium, sign_in
from rso.testing.stage import PASSWORD, Stage, staged
from rso.testing.study import make_study

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
Look = Callable[..., list[str]]
State = Callable[[Page, Stage], None]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One of everything."""
    with staged(tmp_path_factory.mktemp("stage"), SAMPLES) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all of them."""
    with chromium() as made:
        yield made


def press(page: Page, button: str) -> None:
    """As somebody whose browser checks nothing."""
    page.evaluate("document.querySelectorAll('form').forEach((f) => { f.noValidate = true; })")
    page.locator(button).first.click()


def unfold(page: Page) -> None:
    """Everything that can be opened is."""
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")


def exam(page: Page, stage: Stage, more: str = "") -> None:
    """Its page, or one below."""
    page.goto(f"{stage.base}/exams/{stage.known['number'][0]}{more}")


def wrong_password(page: Page, stage: Stage) -> None:
    """Nobody is told which of the two is wrong."""
    page.goto(f"{stage.base}/sign-in")
    page.fill("[name=email]", "nobody@example.org")
    page.fill("[name=password]", "not the password")
    press(page, "main button")
    expect(page.locator("[role=alert]")).to_be_visible()


def second_factor(page: Page, stage: Stage) -> None:
    """Asked for, and a wrong code."""
    page.goto(f"{stage.base}/sign-in")
    page.fill("[name=email]", "second@example.org")
    page.fill("[name=password]", PASSWORD)
    press(page, "main button")
    expect(page.locator("[name=code]")).to_be_focused()


def wrong_code(page: Page, stage: Stage) -> None:
    """A second factor that is none."""
    second_factor(page, stage)
    page.fill("[name=code]", "000000")
    press(page, "main button")
    expect(page.locator("[role=alert]")).to_be_visible()


def forgot_sent(page: Page, stage: Stage) -> None:
    """The same answer for everybody."""
    page.goto(f"{stage.base}/forgot")
    page.fill("[name=email]", "nobody@example.org")
    press(page, "main button")
    expect(page.locator("main")).not_to_contain_text("Forgot your password?")


def reset_refused(page: Page, stage: Stage) -> None:
    """A password that is too short."""
    page.goto(f"{stage.base}/reset/{stage.known['/reset'][0]}")
    page.locator("main input[type=password]").first.fill("short")
    press(page, "main button")
    expect(page.locator("[role=alert], .problem").first).to_be_visible()


def form_with_errors(page: Page, stage: Stage) -> None:
    """A request without a name and without a reason for STAT."""
    page.goto(f"{stage.base}/exams/new")
    page.select_option("#priority", "stat")
    page.fill("#family", "")
    page.fill("#indication", "")
    press(page, "button.main")
    expect(page.locator("#priority_reason")).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".problem")).to_have_count(3)


def duplicate_question(page: Page, stage: Stage) -> None:
    """The same patient has an open exam."""
    page.goto(f"{stage.base}/exams/new")
    page.select_option("#priority", "routine")  # whatever the draft of an earlier state says
    page.fill("#family", "DOE")
    page.fill("#given", "JANE")
    page.fill("#birth_date", "1970-01-31")
    page.fill("#indication", "fell again")
    press(page, "button.main")
    expect(page.locator(".duplicates")).to_contain_text("Is it one of these?")


def refused_document(page: Page, stage: Stage) -> None:
    """A document of a kind that is not taken is refused when it is chosen."""
    page.goto(f"{stage.base}/exams/new")
    page.fill("#family", "ROE")
    page.fill("#indication", "fell")
    page.set_input_files(
        "#documents", {"name": "a.pdf", "mimeType": "application/pdf", "buffer": b"no PDF"}
    )
    expect(page.locator("#documents-problem")).to_be_visible()


def exam_unfolded(page: Page, stage: Stage) -> None:
    """Every part of an exam's page that opens."""
    exam(page, stage)
    unfold(page)
    expect(page.locator("#notifications input[type=checkbox]").first).to_be_visible()


def exam_refused(page: Page, stage: Stage) -> None:
    """A number of images that is none; the exam is not completed with what is there."""
    exam(page, stage)
    page.fill("#expected", "a dozen")
    press(page, "button:has-text('Complete')")
    expect(page.locator("#end-problem")).to_contain_text("at most 6 digits")
    expect(page.locator("#expected")).to_have_value("a dozen")


def edit_refused(page: Page, stage: Stage) -> None:
    """A change that takes the name away."""
    exam(page, stage, "/edit")
    page.fill("#family", "")
    press(page, "button.main")
    expect(page.locator(".problem").first).to_be_visible()


def decision_refused(page: Page, stage: Stage) -> None:
    """A hold released for no reason."""
    page.goto(f"{stage.base}/holds/{stage.known['/holds'][0]}")
    press(page, "button[value=release]")
    expect(page.locator("[role=alert]").first).to_be_visible()
    expect(page.locator("#reason")).to_be_focused()
    expect(page.locator("#reason")).to_have_attribute("aria-invalid", "true")


def keys_dialog(page: Page, stage: Stage) -> None:
    """The keys of the list."""
    page.goto(f"{stage.base}/")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()


def menus_open(page: Page, stage: Stage) -> None:
    """Filters and views of the list, and an exam chosen by the keyboard."""
    page.goto(f"{stage.base}/")
    unfold(page)
    page.locator("#main").focus()
    page.keyboard.press("j")
    expect(page.locator("tr.chosen")).to_be_visible()
    expect(page.locator("#view-name")).to_be_visible()


def nothing_found(page: Page, stage: Stage) -> None:
    """A search without a result."""
    page.goto(f"{stage.base}/")
    page.fill("#search", "zzzz")
    expect(page.locator(".empty")).to_be_visible()


def line_lost(page: Page, stage: Stage) -> None:
    """The line is gone, and a claim failed."""
    page.goto(f"{stage.base}/")
    page.evaluate("window.dispatchEvent(new Event('offline'))")
    page.evaluate(
        "document.dispatchEvent(new CustomEvent('htmx:responseError', {detail: {xhr:"
        ' {status: 409, responseText: \'{"detail": "Somebody else has it."}\'}}}))'
    )
    expect(page.locator("#lost")).to_be_visible()
    expect(page.locator("#said")).to_be_visible()


def session_warning(page: Page, stage: Stage) -> None:
    """A session is about to end."""
    page.goto(f"{stage.base}/me")
    clock = page.request.get(f"{stage.base}/me/session").json() | {"idle_seconds": 90}
    page.route("**/me/session", lambda route: route.fulfill(json=clock))
    page.evaluate(
        "{ const now = Date.now, idle = Number(document.body.dataset.idle) * 1000;"
        " Date.now = () => now() + idle - 90000; }"
    )
    expect(page.locator(".session button")).to_be_visible()


def contact_refused(page: Page, stage: Stage) -> None:
    """A number that is none, and a wrong code."""
    page.goto(f"{stage.base}/me")
    page.fill("#address", "no number")
    press(page, "form[action='/me/contacts'] button")
    expect(page.locator("[role=alert], .problem").first).to_be_visible()


def security_refused(page: Page, stage: Stage) -> None:
    """A wrong old password."""
    page.goto(f"{stage.base}/me/security")
    page.fill("#old", "not the password")
    page.fill("#new", "a new good password")
    press(page, "form[action='/me/security/password'] button")
    expect(page.locator("[role=alert]")).to_be_visible()


def token_shown(page: Page, stage: Stage) -> None:
    """A token, shown once."""
    page.goto(f"{stage.base}/me/security")
    page.fill("#name", "a program")
    press(page, "#tokens form.finder button")
    expect(page.locator(".saved")).to_be_visible()


def source_token_shown(page: Page, stage: Stage) -> None:
    """A source's token, shown once."""
    page.goto(f"{stage.base}/admin/tokens")
    press(page, "form.finder button")
    expect(page.locator(".saved")).to_be_visible()


def facility_refused(page: Page, stage: Stage) -> None:
    """A facility with a source of no channel."""
    page.goto(f"{stage.base}/admin/facilities/edit/NORTH")
    unfold(page)
    page.locator("input[name$=networks]").first.fill("nowhere")
    press(page, "main form button.main")
    expect(page.locator("[role=alert]")).to_be_visible()


def import_shown(page: Page, stage: Stage) -> None:
    """What an import would change."""
    page.goto(f"{stage.base}/admin/import")
    page.locator("textarea:visible").fill('[[facility]]\ncode = "NORTH"\nname = "Another name"\n')
    press(page, "main form button")
    expect(page.locator(".changes")).to_be_visible()


def import_refused(page: Page, stage: Stage) -> None:
    """A document that is none."""
    page.goto(f"{stage.base}/admin/import")
    page.locator("textarea:visible").fill("[[facility")
    press(page, "main form button")
    expect(page.locator("[role=alert]")).to_be_visible()


def route_shown(page: Page, stage: Stage) -> None:
    """Where an exam goes."""
    page.goto(f"{stage.base}/admin/route?facility=NORTH&modality=CT&priority=stat")
    expect(page.locator("main")).to_contain_text("READER")


def destination_tested(page: Page, stage: Stage) -> None:
    """The answer of a test."""
    page.goto(f"{stage.base}/deliveries")
    unfold(page)
    page.locator("form[hx-post$=test] button").first.click()
    expect(page.locator("output .state").first).to_be_visible()


def not_found(page: Page, stage: Stage) -> None:
    """An exam that is not there."""
    page.goto(f"{stage.base}/exams/0000000000")
    expect(page.locator("h1")).to_be_visible()


def upload_in_doubt(page: Page, stage: Stage) -> None:
    """Two patients on one CD."""
    exam(page, stage, "/upload")
    folder = stage.site.folder / "cd"
    if not folder.exists():
        make_study(SAMPLES / "CT_small.dcm", folder, 3, PatientName="DOE^JANE")
        make_study(SAMPLES / "MR_small.dcm", folder / "B", 2, PatientName="ROE^RICHARD")
    page.set_input_files("#folder", str(folder))
    expect(page.locator("#warning")).to_be_visible()
    unfold(page)


OUTSIDE: tuple[State, ...] = (
    wrong_password, second_factor, wrong_code, forgot_sent, reset_refused,
)  # fmt: skip
INSIDE: tuple[State, ...] = (
    form_with_errors, duplicate_question, refused_document, exam_unfolded, exam_refused,
    edit_refused, decision_refused, keys_dialog, menus_open, nothing_found, line_lost,
    session_warning, contact_refused, security_refused, token_shown, source_token_shown,
    facility_refused, import_shown, import_refused, route_shown, destination_tested, not_found,
    upload_in_doubt,
)  # fmt: skip


def enrol(browser: Browser, stage: Stage, look: Look) -> list[str]:
    """Give a person a second factor; what is wrong with the page that shows the codes."""
    # A colour in the middle of its change is none that people read.
    page = browser.new_context(viewport=DESK, reduced_motion="reduce").new_page()
    sign_in(page, stage.base, "second@example.org", PASSWORD)
    page.goto(f"{stage.base}/me/security")
    page.fill("#code", "000000")
    press(page, "form[action='/me/security/begin'] button")
    expect(page.locator("[role=alert]")).to_be_visible()
    secret = page.locator(".number").first.inner_text()
    page.fill("#code", pyotp.TOTP(secret).now())
    press(page, "form[action='/me/security/begin'] button")
    expect(page.locator("main")).to_contain_text("Recovery codes")
    unfold(page)
    found = looked_at(page, "recovery_codes", look)
    page.context.close()
    return found


def looked_at(page: Page, name: str, look: Look) -> list[str]:
    """What is wrong with it as it stands, by day and by night, wide and narrow."""
    wrong: list[str] = []
    for width, size in (("desk", DESK), ("phone", PHONE)):
        page.set_viewport_size(size)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            wrong += [
                f"{name}, {width}, {scheme}: {p}" for p in look(page, colours=scheme == "dark")
            ]
        over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        wrong += [f"{name}, {width}: {over} too wide"] if over > 0 else []
    page.set_viewport_size(DESK)
    return wrong


@pytest.mark.timeout(300)
def test_every_state(stage: Stage, browser: Browser, problems_of: Look) -> None:
    """Errors, questions, dialogs, menus, warnings and what is shown once."""
    wrong = enrol(browser, stage, problems_of)
    outside, inside = (
        browser.new_context(viewport=DESK, reduced_motion="reduce").new_page() for _ in range(2)
    )
    for page in (outside, inside):
        page.on("pageerror", lambda error: wrong.append(f"a script failed: {error}"))
    sign_in(inside, stage.base, stage.site.admin["email"], stage.site.admin["password"])
    for page, states in ((outside, OUTSIDE), (inside, INSIDE)):
        for state in states:
            state(page, stage)
            wrong += looked_at(page, state.__name__, problems_of)
    assert not wrong, "\n".join(wrong)

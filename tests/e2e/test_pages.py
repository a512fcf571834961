"""Every page there is, with markup for names: no script of a stranger's runs, and all can read it.

The pages are found from the application's routes: a new one is looked at too, and one with a
parameter that ``rso.testing.stage`` knows no value for fails.
"""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from playwright.sync_api import Browser, Page, expect

from rso.testing.browser import chromium, sign_in
from rso.testing.stage import Stage, Words, staged
from rso.testing.study import make_study

EVIL = "<img src=x onerror=hit()>\"'><script>hit()</script>"
WORDS = Words(
    source="<img src=x>", stranger="<b>STRANGER</b>", patient="<img src=x onerror=hit()>",
    text=EVIL, indication=EVIL, history=EVIL, note=EVIL, reason=EVIL, view=EVIL[:40], token=EVIL,
    document="<img src=x onerror=hit()>.png",
)  # fmt: skip
SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
# What a stranger's markup would leave in a page, or in the browser.
WATCH = """
window.hits = []; window.hit = () => hits.push("a script ran");
addEventListener("securitypolicyviolation", (e) => hits.push(`${e.violatedDirective} ${e.blockedURI}`));
"""
MARKUP = "[...document.querySelectorAll('img[src=x], [onerror], [onclick], main b, script:not([src])')].map(e => e.outerHTML)"
# On a phone a cell says what it shows, to the left of it and still in the page.
CUT = "[...document.querySelectorAll('.list:not(.exams) td[data-label]')].filter(td => parseFloat(getComputedStyle(td).paddingLeft) + parseFloat(getComputedStyle(td, '::before').marginLeft) < 0).map(td => td.dataset.label)"
Look = Callable[..., list[str]]
OUTSIDE = ("/sign-in", "/forgot", "/reset", "/leave")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One of everything, named as nobody should be."""
    with staged(tmp_path_factory.mktemp("stage"), SAMPLES, words=WORDS) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all of them."""
    with chromium() as made:
        yield made


def watched(browser: Browser, said: list[str]) -> Page:
    """A page whose every complaint is kept."""
    page = browser.new_context(
        viewport={"width": 1280, "height": 900}, reduced_motion="reduce"
    ).new_page()  # fmt: skip
    page.add_init_script(WATCH)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda line: said.append(line.text) if line.type == "error" else None)
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))
    return page


def enter(page: Page, stage: Stage) -> None:
    """Sign in as the administrator."""
    sign_in(page, stage.base, stage.site.admin["email"], stage.site.admin["password"])


@pytest.mark.timeout(240)
def test_every_page(stage: Stage, browser: Browser, problems_of: Look) -> None:
    """By day and by night, at a desk and on a phone: axe is content, nothing runs, nothing hangs over."""
    said: list[str] = []
    page, outside = watched(browser, said), watched(browser, said)
    enter(page, stage)
    shown, wrong = [], []
    for path in stage.pages():
        one = outside if path.startswith(OUTSIDE) else page
        answer = one.request.get(stage.base + path)
        assert answer.status == 200, path
        if not answer.text().startswith("<!doctype html>"):
            continue  # a part of a page
        one.goto(stage.base + path)
        shown.append(path)
        for scheme in ("light", "dark"):
            one.emulate_media(color_scheme=scheme)
            wrong += [(path, scheme, p) for p in problems_of(one, colours=scheme == "dark")]
        wrong += [(path, "markup", m) for m in one.evaluate(MARKUP)]
        wrong += [(path, "ran", h) for h in one.evaluate("hits")]
        one.set_viewport_size({"width": 390, "height": 844})
        wide = one.evaluate("document.documentElement.scrollWidth - innerWidth")
        wrong += [(path, "wider than a phone by", wide)] if wide > 0 else []
        wrong += [(path, "cut off", label) for label in one.evaluate(CUT)]
        one.emulate_media(color_scheme="light")
        one.set_viewport_size({"width": 1280, "height": 900})
        wrong += [(path, "console", s) for s in said]
        said.clear()
    assert not wrong, "\n".join(map(str, wrong))
    assert len(shown) >= 33, shown
    number = stage.known["number"][0]
    for path, text in (
        (f"/exams/{number}", WORDS.source), (f"/exams/{number}", WORDS.document),
        ("/refusals", WORDS.stranger), ("/admin", WORDS.source), ("/audit", WORDS.stranger),
        (f"/exams/{number}/instances", WORDS.source),
    ):  # fmt: skip
        page.goto(stage.base + path)
        expect(page.locator("main")).to_contain_text(text)


def test_names_of_files(stage: Stage, browser: Browser, tmp_path: Path, problems_of: Look) -> None:
    """Of files and of what is in a ZIP: text on the upload page, and to the server no path."""
    said: list[str] = []
    page = watched(browser, said)
    enter(page, stage)
    name = "<img src=x onerror=hit()>"
    files = make_study(SAMPLES / "CT_small.dcm", tmp_path / "s", 2, PatientName=EVIL)
    single = files[0].rename(tmp_path / f"{name}.dcm")
    packed = tmp_path / f"{name}.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(files[1], f"../../{name}<script>hit()<script>.dcm")
        archive.writestr(f"{name}.txt", "no image")
    page.goto(f"{stage.base}/exams/{stage.known['number'][0]}/upload")
    page.set_input_files("#pick", [str(single), str(packed)])
    expect(page.locator("#said")).to_contain_text("2 images found", timeout=30_000)
    page.locator("#groups input[type=checkbox]").first.check()
    page.click("#start")
    expect(page.locator("#receipt")).to_contain_text("stored safely", timeout=60_000)
    page.click("#files summary")
    expect(page.locator("#rows")).to_contain_text(f"{name}.dcm")
    expect(page.locator("#rows")).to_contain_text(f"{name}<script>")
    assert not problems_of(page)
    assert not page.evaluate("hits")
    assert not page.evaluate(MARKUP.replace("main b, ", ""))
    assert not said
    assert not [p for p in stage.site.folder.rglob("*") if "onerror" in p.name]

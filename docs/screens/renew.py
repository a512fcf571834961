"""Takes the manual's pictures anew: ``make screens``; with ``--all DIR`` every page there.

Every page: light and dark, as wide as a desk and as a phone.
"""

import argparse
import io
import tempfile
from pathlib import Path

import pydicom
from PIL import Image
from playwright.sync_api import Browser, Page

from rso.testing.browser import chromium, sign_in
from rso.testing.stage import PASSWORD, Stage, staged
from rso.testing.study import make_study

HERE = Path(__file__).parent
SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
TALLEST = 1800  # pixels of a picture in the manual


def enter(browser: Browser, stage: Stage, email: str, password: str, **how: object) -> Page:
    """The list of somebody who has signed in."""
    page = browser.new_context(**how).new_page()
    sign_in(page, stage.base, email, password)
    return page


def settle(page: Page) -> None:
    """Until every picture on the page is drawn, those further down too."""
    page.wait_for_load_state("load")
    page.evaluate(
        "async () => { for (const i of document.images) { i.loading = 'eager';"
        " await i.decode().catch(() => {}); } }"
    )
    page.wait_for_timeout(250)


def keep(page: Page, file: Path, *, whole: bool = True) -> None:
    """One picture, few colours, so that it is small."""
    settle(page)
    image = Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB")
    image = image.crop((0, 0, image.width, min(image.height, TALLEST)))
    image.quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)


def manual(browser: Browser, stage: Stage) -> None:
    """The pictures that docs/manual.md shows."""
    admin = stage.site.admin["email"], stage.site.admin["password"]
    number, hold = stage.known["number"][0], stage.known["/holds"][0]
    page = enter(browser, stage, *admin, viewport=DESK)
    for name, path, whole in (
        ("request", "/exams/new", True), ("number", f"/exams/{number}/created", False),
        ("list", "/", False), ("exam", f"/exams/{number}", True), ("hold", f"/holds/{hold}", True),
        ("deliveries", "/deliveries", False), ("dashboard", "/dashboard", True),
        ("administration", "/admin", False), ("messages", "/notifications", False),
        ("contacts", "/me", False),
    ):  # fmt: skip
        page.goto(stage.base + path)
        keep(page, HERE / f"{name}.png", whole=whole)
    page.goto(f"{stage.base}/exams/{number}/upload")
    folder = stage.site.folder / "cd"
    make_study(SAMPLES / "CT_small.dcm", folder, 40, PatientName="DOE^JANE",
               PatientBirthDate="19700131")  # fmt: skip
    make_study(SAMPLES / "MR_small.dcm", folder / "B", 3, PatientName="ROE^RICHARD")
    page.set_input_files("#folder", str(folder))
    page.wait_for_selector("#warning:visible")
    keep(page, HERE / "upload.png", whole=False)
    phone = enter(browser, stage, "first@example.org", PASSWORD, viewport=PHONE,
                  color_scheme="dark")  # fmt: skip
    keep(phone, HERE / "phone.png", whole=False)


def everything(browser: Browser, stage: Stage, folder: Path) -> None:
    """Every page, four times."""
    folder.mkdir(parents=True, exist_ok=True)
    admin = stage.site.admin["email"], stage.site.admin["password"]
    page = enter(browser, stage, *admin, viewport=DESK)
    outside = browser.new_context(viewport=DESK).new_page()
    open_to_all = ("/sign-in", "/forgot", "/reset", "/leave")
    for path in stage.pages():
        one = outside if path.startswith(open_to_all) else page
        answer = one.goto(stage.base + path)
        if answer is None or not answer.text().startswith("<!doctype html>"):
            continue
        name = path.strip("/").replace("/", "-").replace(stage.known["number"][0], "N")[:40]
        for scheme in ("light", "dark"):
            for width, size in (("desk", DESK), ("phone", PHONE)):
                one.emulate_media(color_scheme=scheme)
                one.set_viewport_size(size)
                settle(one)
                one.screenshot(
                    path=folder / f"{name or 'list'}-{width}-{scheme}.png", full_page=True
                )


def main() -> None:
    """Make them."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--all", type=Path, metavar="DIR", help="every page, into this folder")
    asked = arguments.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        staged(Path(folder), SAMPLES, 'site.name="North Radiology"') as stage,
        chromium() as browser,
    ):
        if asked.all:
            everything(browser, stage, asked.all)
        else:
            manual(browser, stage)


if __name__ == "__main__":
    main()

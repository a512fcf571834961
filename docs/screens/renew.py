"""Takes the manual's pictures anew, and a sheet of every page: ``make screens``.

Every page is taken four times: light and dark, as wide as a desk and as a phone. A sheet in
``pages`` has the four beside each other; with ``--all DIR`` they are kept there one by one.
"""

import argparse
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pydicom
from PIL import Image
from playwright.sync_api import Browser, Page

from rso.core.number import format_number
from rso.testing.browser import chromium, sign_in
from rso.testing.stage import PASSWORD, Stage, staged
from rso.testing.study import make_study

HERE = Path(__file__).parent
SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
TALLEST = 1800  # pixels of a picture in the manual, and of a sheet
COLOURS = 128
VIEWS = tuple((scheme, width) for width in ("desk", "phone") for scheme in ("light", "dark"))
INDEX = """# Every page

Each picture is one page as an administrator sees it, four times: light and dark at a desk, light
and dark on a phone. Long pages are cut. `one` in an address stands for an exam's number or another
key. `make screens` makes the pictures and this list.

| page | address |
|---|---|
"""


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
    write(Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB"), file)


def write(image: Image.Image, file: Path, colours: int = COLOURS) -> None:
    """The top of a picture."""
    image = image.crop((0, 0, image.width, min(image.height, TALLEST)))
    few = image.quantize(palette=palette(image, colours), dither=Image.Dither.NONE)
    few.save(file, optimize=True)


def palette(image: Image.Image, colours: int) -> Image.Image:
    """Half of the colours are those of most pixels as they are, and half are spread over the rest.

    So grounds are not tinted, and the few pixels of a warning's red are not mixed with the text's.
    """
    counted = image.getcolors(image.width * image.height) or []
    most = [colour for _, colour in sorted(counted, reverse=True)[: colours // 2]]
    spread = image.quantize(colours - len(most), Image.Quantize.MAXCOVERAGE).getpalette() or []
    made = Image.new("P", (1, 1))
    made.putpalette([part for colour in most for part in colour] + spread)  # type: ignore[union-attr]
    return made


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


def everything(browser: Browser, stage: Stage) -> Iterator[tuple[str, str, list[Image.Image]]]:
    """Every page: its address with ``one`` for any key, its title, and its four views."""
    admin = stage.site.admin["email"], stage.site.admin["password"]
    page = enter(browser, stage, *admin, viewport=DESK)
    outside = browser.new_context(viewport=DESK).new_page()
    open_to_all = ("/sign-in", "/forgot", "/reset", "/leave")
    keys = {value for values in stage.known.values() for value in values}
    seen = set[str]()
    for path in stage.pages():
        address = "/".join("one" if part in keys else part for part in path.split("/"))
        one = outside if path.startswith(open_to_all) else page
        if address in seen:
            continue
        answer = one.goto(stage.base + path)
        if answer is None or not answer.text().startswith("<!doctype html>"):
            continue
        seen.add(address)
        views = []
        for scheme, width in VIEWS:
            one.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            one.set_viewport_size(DESK if width == "desk" else PHONE)
            settle(one)
            views.append(Image.open(io.BytesIO(one.screenshot(full_page=True))).convert("RGB"))
        title = one.title().rsplit(" · ", 1)[0]
        for key in keys:  # an example's own number or name says nothing of the page
            title = title.replace(key, "…").replace(format_number(key), "…")
        yield address, title, views


def one_by_one(browser: Browser, stage: Stage, folder: Path) -> None:
    """Each view of each page is a file."""
    folder.mkdir(parents=True, exist_ok=True)
    for address, _, views in everything(browser, stage):
        for (scheme, width), view in zip(VIEWS, views, strict=True):
            view.save(folder / f"{named(address)}-{width}-{scheme}.png")


def named(address: str) -> str:
    """A file's name."""
    return address.strip("/").replace("/", "-") or "list"


def sheets(browser: Browser, stage: Stage, folder: Path) -> None:
    """A page is a picture of its four views beside each other; the index says which is which."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    lines = []
    for address, title, views in everything(browser, stage):
        small = [
            view.resize((round(view.width * by), round(view.height * by)), Image.Resampling.LANCZOS)
            for view, by in zip(views, (0.5, 0.5, 0.6, 0.6), strict=True)
        ]
        gap = 10
        width = sum(view.width + gap for view in small) - gap
        made, at = Image.new("RGB", (width, max(view.height for view in small)), "#888"), 0
        for view in small:
            made.paste(view, (at, 0))
            at += view.width + gap
        write(made, folder / f"{named(address)}.png", 96)
        lines.append(f"| [{title}]({named(address)}.png) | `{address}` |")
    (folder / "README.md").write_text(INDEX + "\n".join(lines) + "\n")


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
            one_by_one(browser, stage, asked.all)
        else:
            manual(browser, stage)
            sheets(browser, stage, HERE / "pages")


if __name__ == "__main__":
    main()

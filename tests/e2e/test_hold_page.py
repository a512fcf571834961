"""A hold in a real browser: it appears by itself, is decided by keyboard alone, and taken back."""

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from rso.testing.modality import send_files
from rso.testing.site import Site
from rso.testing.study import delivered, make_study

EVIL = "<img src=x onerror=alert(1)>"


def test_a_hold_from_arrival_to_recall(
    site: Site, visit: Callable[..., Page], samples: Path, tmp_path: Path
) -> None:
    """Live in the queue; compared by sign and word; released, seen by others, recalled."""
    base = f"http://127.0.0.1:{site.web}"
    made = site.rso("exam", "create", "--facility", "NORTH", "--patient-name", "DOE^JANE",
                    "--birth-date", "1970-01-31", "--json")  # fmt: skip
    number = made["exam_number"]
    page = visit(site.admin["email"], site.admin["password"])
    page.goto(f"{base}/holds")
    expect(page.locator("#rows")).to_contain_text("Nothing waits")
    files = make_study(samples / "CT_small.dcm", tmp_path / "s", 2, PatientID=number,
                       PatientName=EVIL, PatientBirthDate="19700131",
                       SeriesDescription=EVIL)  # fmt: skip
    send_files(files, host="127.0.0.1", port=site.dicom, calling_ae_title="NORTHCT",
               called_ae_title="RSO")  # fmt: skip
    expect(page.locator("#rows")).to_contain_text("1 with an alarm", timeout=15_000)
    page.get_by_role("link", name="Look and decide: mismatch, NORTH").press("Enter")
    main = page.locator("main")
    expect(main).to_contain_text("the number of the patient before was typed")
    expect(main).to_contain_text(EVIL)
    expect(page.locator(".sides tr", has_text="Name")).to_contain_text("≠ differs")
    expect(page.locator(".sides tr", has_text="Born")).to_contain_text("= same")
    url = page.url
    other = page.context.new_page()
    other.goto(url)
    expect(other.locator("main")).to_contain_text("Decide")
    # By keyboard alone: choose the exam, give a reason, release.
    page.locator("[name=exam]").focus()
    page.keyboard.press("Space")
    page.locator("[name=reason]").focus()
    page.keyboard.type("the facility says so")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#rows")).to_contain_text("Nothing waits")
    delivered(site, number, 2)
    other.bring_to_front()
    expect(other.locator("main")).to_contain_text("decided meanwhile: released", timeout=15_000)
    other.get_by_role("link", name="Load it again").click()
    other.locator("summary", has_text="Take it back").press("Enter")
    other.fill("[name=reason]", "wrong after all")
    other.get_by_role("button", name="Stop sending and hold again").click()
    expect(other.locator("main")).to_contain_text("2 images were sent already")
    expect(other.locator("main")).to_contain_text("Nobody could be told: call READER.")
    expect(other.locator("#rows")).to_contain_text("recalled")

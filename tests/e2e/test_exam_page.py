"""The exam's page in a real browser: live images, every attempt, and what a person may do."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from playwright.sync_api import Page, expect

from rso.testing.modality import send_files
from rso.testing.pacs import Pacs, script
from rso.testing.site import Site, wait_for
from rso.testing.study import delivered, make_study


@pytest.fixture
def answers() -> dict[str, list[int]]:
    """What the PACS answers, by SOP Instance UID; filled by the test before it sends."""
    return {}


@pytest.fixture
def pacs(answers: dict[str, list[int]]) -> Iterator[Pacs]:
    """A PACS that answers as it is told."""
    made = Pacs(script(answers))
    made.start()
    yield made
    made.stop()


@pytest.mark.timeout(240)
def test_images_come_and_every_attempt_is_told(
    site: Site, visit: Callable[..., Page], samples: Path, tmp_path: Path, pacs: Pacs,
    answers: dict[str, list[int]],
) -> None:  # fmt: skip
    """Live without a reload: thumbnails, a busy answer, a refusal, a retry, a stop, a resend."""
    made: dict[str, Any] = site.rso("exam", "create", "--facility", "NORTH",
                                    "--patient-name", "DOE^JANE", "--json")  # fmt: skip
    number = made["exam_number"]
    page = visit()
    page.goto(f"http://127.0.0.1:{site.web}/exams/{number}")
    expect(page.locator("#live")).to_contain_text("No images yet")
    files = make_study(samples / "CT_small.dcm", tmp_path / "s", 4, PatientID=number,
                       PatientName="DOE^JANE", SeriesDescription="<b>bold</b>")  # fmt: skip
    uids = [str(pydicom.dcmread(f).SOPInstanceUID) for f in files]
    answers |= {uids[0]: [0xA700, 0], uids[1]: [0xC001, 0]}
    send_files(files, host="127.0.0.1", port=site.dicom, calling_ae_title="NORTHCT",
               called_ae_title="RSO")  # fmt: skip
    live = page.locator("#live")
    expect(live).to_contain_text("4 images received", timeout=15_000)
    expect(live).to_contain_text("3 of 4", timeout=20_000)
    expect(live).to_contain_text("A700")
    expect(live).to_contain_text("C001")
    expect(live).to_contain_text("<b>bold</b>")
    expect(page.locator("#exam-state")).to_contain_text("settled", timeout=20_000)
    # A picture was drawn, and it is one.
    picture = page.locator(".series img").first
    wait_for(lambda: picture.evaluate("i => i.complete && i.naturalWidth"))
    assert picture.evaluate("i => i.naturalWidth") == 128
    # By keyboard alone: what was stopped is tried again.
    page.get_by_role("button", name="Retry what was stopped: READER-PACS").focus()
    page.keyboard.press("Enter")
    delivered(site, number, 4)
    page.get_by_role("button", name="Send all again: READER-PACS").click()
    wait_for(lambda: all(pacs.asked[uid] >= 2 for uid in uids))
    delivered(site, number, 4)
    expect(live).to_contain_text("had been acknowledged", timeout=15_000)
    page.get_by_role("link", name="Every image and attempt").click()
    table = page.locator("main")
    expect(table).to_contain_text(uids[1])
    expect(table).to_contain_text("not taken C001")
    expect(table).to_contain_text("acknowledged, before a resend")
    page.select_option("[name=show]", "undelivered")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("main")).to_contain_text("No image fits")


def test_notes_and_the_end(site: Site, visit: Callable[..., Page]) -> None:
    """A note is kept as it was typed; a cancelled exam says who and why, and sends nothing."""
    made = site.rso("exam", "create", "--facility", "NORTH", "--patient-name",
                    "<script>alert(1)</script>^X", "--json")  # fmt: skip
    page = visit()
    page.goto(f"http://127.0.0.1:{site.web}/exams/{made['exam_number']}")
    expect(page.locator("main")).to_contain_text("<script>alert(1)</script> X")
    page.fill("#own-note", "<img src=x onerror=alert(1)>\ncall me")
    page.get_by_role("button", name="Keep note").click()
    expect(page.locator("#notes")).to_contain_text("<img src=x onerror=alert(1)>")
    page.fill("#cancel-why", "asked twice")
    page.get_by_role("button", name="Cancel the exam").click()
    expect(page.locator("#exam-state")).to_contain_text("cancelled")
    expect(page.locator("#live")).to_contain_text("asked twice")
    expect(page.get_by_role("button", name="Cancel the exam")).to_have_count(0)

"""What people see and do, in a real browser."""

import shutil
import time
from pathlib import Path
from typing import Any

import pydicom
import pyotp
import pytest
import requests
from playwright.sync_api import Browser, Page, Route, expect

from rso.testing.browser import sign_in
from rso.testing.modality import send_files
from rso.testing.pacs import Pacs
from rso.testing.site import Site, wait_for
from rso.testing.study import delivered, make_study, missing


def signed_in(
    browser: Browser, site: Site, email: str = "tech@example.org",
    password: str = "a good password",
) -> Page:  # fmt: skip
    """A page of a person; any error of a script fails the test."""
    page = browser.new_context().new_page()
    page.on("pageerror", lambda error: pytest.fail(f"script error: {error}"))
    sign_in(page, f"http://127.0.0.1:{site.web}", email, password)
    return page


def make_exam(site: Site, **who: str) -> str:
    """An exam's number."""
    words = [word for name, value in who.items() for word in (f"--{name.replace('_', '-')}", value)]
    made: dict[str, Any] = site.rso("exam", "create", "--facility", "NORTH", *words, "--json")
    return str(made["exam_number"])


def test_upload_page(
    site: Site, browser: Browser, samples: Path, tmp_path: Path, pacs: Pacs
) -> None:
    """300 files in nested folders, another patient among them, the line lost and found again."""
    folder = tmp_path / "cd"
    who = {"PatientName": "DOE^JANE", "PatientBirthDate": "19700131"}
    number = make_exam(site, patient_name="Doe^Jane", birth_date="1970-01-31")
    files = make_study(samples / "CT_small.dcm", folder, 300, **who, PatientID="OWN-1")
    make_study(samples / "CT_small.dcm", folder / "other", 3, PatientName="ROE^RICHARD")
    (folder / "readme.txt").write_text("not an image")
    page = signed_in(browser, site)
    page.goto(f"http://127.0.0.1:{site.web}/exams/{number}")
    page.click("text=Upload images")
    page.set_input_files("#folder", str(folder))
    expect(page.locator("#said")).to_contain_text("303 images found", timeout=30_000)
    expect(page.locator("#said")).to_contain_text("1 not DICOM")
    expect(page.locator("#warning")).to_contain_text("2 patients")
    expect(page.locator("#groups")).to_contain_text("name differs from the exam's")
    expect(page.locator("#start")).to_have_text("Send 300 images")
    # The line is lost on the way.
    context = page.context
    page.click("#start")
    expect(page.locator("#numbers")).to_contain_text("of 300 stored safely")
    context.set_offline(True)
    expect(page.locator("#lost-line")).to_be_visible(timeout=20_000)
    context.set_offline(False)
    expect(page.locator("#receipt")).to_contain_text("300 of 300 stored safely", timeout=60_000)
    delivered(site, number, 300)
    wait_for(
        lambda: site.rso("exam", "show", number, "--json")["status"] in {"settled", "delivered"}
    )
    assert missing(pacs, files) == 0
    assert not any("ROE" in str(e) for e in site.exams())
    # A reload, and the folder again: nothing is sent twice.
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    page.set_input_files("#folder", str(folder))
    expect(page.locator("#start")).to_have_text("Send 300 images", timeout=30_000)
    page.keyboard.press("Tab")
    page.locator("#start").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#receipt")).to_contain_text("300 of 300 stored safely", timeout=30_000)
    assert not any(url.endswith("/studies") for url in asked)
    page.click("#files summary")
    expect(page.locator("#rows")).to_contain_text("was there already")


def test_upload_of_a_zip_and_a_large_file(
    site: Site, browser: Browser, samples: Path, tmp_path: Path, pacs: Pacs
) -> None:
    """A ZIP is opened in the browser; what is large goes in pieces, and on behind its own only."""
    number = make_exam(site, patient_name="Doe^Jane")
    files = make_study(samples / "CT_small.dcm", tmp_path / "cd", 5, PatientName="DOE^JANE")
    packed = shutil.make_archive(str(tmp_path / "cd"), "zip", tmp_path / "cd")
    big = pydicom.dcmread(make_study(samples / "CT_small.dcm", tmp_path / "big", 1,
                                     PatientName="DOE^JANE")[0])  # fmt: skip
    big.Rows, big.Columns, big.NumberOfFrames = 1024, 1024, 40
    big.PixelData = bytes(80 << 20)
    big.save_as(tmp_path / "big.dcm")
    # Another version of it was begun once: the same UID and length, other pixels.
    data = (tmp_path / "big.dcm").read_bytes()
    token = site.rso("token", "create", "--user", "tech@example.org", "--json")["token"]
    piece = 16 << 20
    begun = requests.patch(
        f"http://127.0.0.1:{site.web}/api/exams/{number}/uploads/{big.SOPInstanceUID}",
        data[: piece - 9] + b"forgotten",
        headers={"Authorization": f"Bearer {token}", "Upload-Offset": "0",
                 "Upload-Length": str(len(data))}, timeout=60,
    )  # fmt: skip
    assert begun.json() == {"offset": piece, "stored": False}
    page = signed_in(browser, site)
    page.goto(f"http://127.0.0.1:{site.web}/exams/{number}/upload")
    offsets: list[int] = []

    def lose(route: Route) -> None:
        offsets.append(int(route.request.headers["upload-offset"]))
        if len(offsets) == 3:
            route.abort()
        else:
            route.continue_()

    page.route("**/uploads/*", lose)
    page.set_input_files("#pick", [packed, str(tmp_path / "big.dcm")])
    expect(page.locator("#said")).to_contain_text("6 images found", timeout=30_000)
    page.click("#start")
    expect(page.locator("#lost-line")).to_be_visible(timeout=30_000)
    assert offsets[:3] == [0, piece, 2 * piece]
    page.once("dialog", lambda dialog: dialog.accept())
    page.reload()
    page.set_input_files("#pick", [packed, str(tmp_path / "big.dcm")])
    expect(page.locator("#said")).to_contain_text("6 images found", timeout=30_000)
    page.click("#start")
    expect(page.locator("#receipt")).to_contain_text("6 of 6 stored safely", timeout=60_000)
    assert min(offsets[3:]) == 2 * piece
    delivered(site, number, 6)
    assert missing(pacs, [*files, tmp_path / "big.dcm"]) == 0


def test_upload_of_two_under_one_uid(
    site: Site, browser: Browser, samples: Path, tmp_path: Path
) -> None:
    """Other bytes under a UID are sent too, and held; the same bytes once; 429 is waited for."""
    number = make_exam(site, patient_name="Doe^Jane")
    folder = tmp_path / "cd"
    files = make_study(samples / "CT_small.dcm", folder, 3, PatientName="DOE^JANE")
    shutil.copy(files[1], folder / "same.dcm")
    other = pydicom.dcmread(files[0])
    other.StudyDescription = "another"
    other.save_as(folder / "other.dcm")
    page = signed_in(browser, site)
    page.goto(f"http://127.0.0.1:{site.web}/exams/{number}/upload")
    asked: list[float] = []

    def busy(route: Route) -> None:
        asked.append(time.monotonic())
        if len(asked) <= 2:
            route.fulfill(status=429, json={"detail": "too many at once"},
                          headers={"Retry-After": "3"})  # fmt: skip
        else:
            route.continue_()

    page.route("**/studies", busy)
    page.set_input_files("#folder", str(folder))
    expect(page.locator("#said")).to_contain_text("4 images found", timeout=30_000)
    page.click("#start")
    expect(page.locator("#lost-line")).to_contain_text("busy (too many at once); trying again in 3")
    expect(page.locator("#receipt")).to_contain_text("4 of 4 stored safely", timeout=30_000)
    expect(page.locator("#lost-line")).to_be_hidden()
    assert len(asked) == 4  # the three, after two refusals, and then the other
    assert asked[1] - asked[0] > 2.5
    held = wait_for(site.holds)
    assert [(hold["kind"], hold["instances"]) for hold in held] == [("instance", 1)]
    assert site.rso("exam", "show", number, "--json")["expected_instances"] == 3
    # Chosen again, all are known by their bytes.
    page.reload()
    page.set_input_files("#folder", str(folder))
    page.click("#start")
    expect(page.locator("#receipt")).to_contain_text("4 of 4 stored safely", timeout=30_000)
    assert len(asked) == 4


def test_a_lost_line_is_no_refusal(site: Site, browser: Browser) -> None:
    """The first 429 after a long outage is waited for; eleven in a row are believed."""
    number = make_exam(site, patient_name="Doe^Jane")
    page = signed_in(browser, site)
    page.goto(f"http://127.0.0.1:{site.web}/exams/{number}/upload")
    module = page.get_attribute("script[src*='upload.js']", "src")
    assert module is not None
    asked = page.evaluate(
        """async ([module, number]) => {
          const { Sender } = await import(module.replace("upload.js", "send.js"));
          window.setTimeout = (run) => { Promise.resolve().then(run); };
          const answers = { L: 0, B: 429, S: 200 };
          const run = async (script) => {
            let asked = 0;
            window.XMLHttpRequest = class {
              upload = {};
              open() {}
              setRequestHeader() {}
              getResponseHeader() { return "1"; }
              send() {
                this.status = answers[script[asked]];
                asked += 1;
                Promise.resolve().then(() => (this.status ? this.onload() : this.onerror()));
              }
            };
            const sender = new Sender(number, () => "", { lost() {} });
            const end = await sender.persist("POST", "/uploads", "", {}).catch((error) => error);
            return [asked, end.status || end.message];
          };
          return [await run("L".repeat(20) + "BS"), await run("B".repeat(12) + "S"),
                  await run("B".repeat(8) + "L" + "B".repeat(8) + "S")];
        }""",
        [module, number],
    )
    assert asked == [[22, 200], [11, "too many requests"], [18, 200]]


def test_administrator_from_nothing(
    site: Site, browser: Browser, samples: Path, tmp_path: Path, pacs: Pacs
) -> None:
    """A radiologist, a facility and its source are set up by hand, and images arrive."""
    page = signed_in(browser, site, site.admin["email"], site.admin["password"])
    page.click("text=Administration")
    page.click("text=Add a radiologist")
    page.fill("[name=code]", "WESTREADER")
    for name, value in {"code": "WEST-PACS", "ae_title": "PACS", "host": "127.0.0.1",
                        "port": str(pacs.port)}.items():  # fmt: skip
        page.fill(f"[name=destination-01-{name}]", value)
    page.click("text=Save")
    expect(page.locator("main")).to_contain_text("WEST-PACS")
    page.click("text=Add a facility")
    page.fill("[name=code]", "WEST")
    page.fill("[name=source-01-identity]", "WESTCT")
    page.select_option("[name=source-01-kind]", "integration")
    page.select_option("[name=reader-01-code]", "WESTREADER")
    page.click("text=Save")
    expect(page.locator("[role=alert]")).to_contain_text("needs networks")
    page.fill("[name=source-01-networks]", "127.0.0.0/8")
    page.click("text=Save")
    expect(page.locator("main")).to_contain_text("WESTCT")
    page.goto(f"http://127.0.0.1:{site.web}/admin/route?facility=WEST&modality=CT")
    expect(page.locator("main")).to_contain_text("It goes to WEST-PACS")
    page.goto(f"http://127.0.0.1:{site.web}/admin/radiologists/edit/WESTREADER")
    page.click("text=Test")
    expect(page.locator("output")).to_contain_text("✔")
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 3)
    send_files(files, host="127.0.0.1", port=site.dicom, calling_ae_title="WESTCT",
               called_ae_title="RSO")  # fmt: skip
    exam = wait_for(lambda: next((e for e in site.exams() if e["facility"] == "WEST"), None))
    delivered(site, exam["exam_number"], 3)
    page.goto(f"http://127.0.0.1:{site.web}/audit")
    expect(page.locator("main")).to_contain_text("site changed")
    # What is not this person's job is not even shown.
    technician = signed_in(browser, site)
    for path in ("/admin", "/admin/users/new", "/admin/site.toml", "/audit", "/audit.csv"):
        answer = technician.goto(f"http://127.0.0.1:{site.web}{path}")
        assert answer is not None
        assert answer.status == 403


def test_second_factor(site: Site, browser: Browser) -> None:
    """Enrolled by hand; signing in asks for a code, each good once; a lost phone is no end."""
    page = signed_in(browser, site)
    base = f"http://127.0.0.1:{site.web}"
    page.goto(f"{base}/me/security")
    totp = pyotp.TOTP(page.locator("p .number").inner_text())
    page.fill("#code", "000000")
    page.click("text=Turn on")
    expect(page.locator("[role=alert]")).to_contain_text("not right")
    now = time.time()
    page.fill("#code", totp.at(now))
    page.click("text=Turn on")
    recovery = page.locator("ul.number li").first.inner_text()
    stranger = browser.new_context().new_page()
    for code, lets_in in ((totp.at(now), False), (totp.at(now + 30), True), (recovery, True),
                          (recovery, False)):  # fmt: skip
        stranger.context.clear_cookies()
        stranger.goto(f"{base}/sign-in")
        stranger.fill("[name=email]", "tech@example.org")
        stranger.fill("[name=password]", "a good password")
        stranger.keyboard.press("Enter")
        stranger.wait_for_selector("[name=code]")
        # The ticket between password and code is no session.
        ticket = stranger.locator("[name=ticket]").input_value()
        peek = requests.get(f"{base}/", cookies={"rso_session": ticket}, timeout=20,
                            allow_redirects=False)  # fmt: skip
        assert peek.status_code in {302, 401}
        stranger.fill("[name=code]", code)
        stranger.click("text=Go on")
        if lets_in:
            stranger.wait_for_url(f"{base}/")
        else:
            expect(stranger.locator("[role=alert]")).to_contain_text("not right")
    page.goto(f"{base}/me/security")
    page.click("text=End all others")
    stranger.goto(f"{base}/")
    expect(stranger).to_have_url(f"{base}/sign-in")

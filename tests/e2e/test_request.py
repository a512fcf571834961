"""Asking for an exam in a real browser: draft, duplicates, documents, unknown patients, paper."""

from collections.abc import Callable
from pathlib import Path

import requests
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from rso.testing.browser import sign_in, wait_held
from rso.testing.site import Site, free_port

Visit = Callable[..., Page]


def test_a_draft_outlives_the_session(site: Site, visit: Visit) -> None:
    """Typed, signed out, signed in: it is there; nobody else sees it; the browser keeps nothing."""
    base = f"http://127.0.0.1:{site.web}"
    page = visit()
    page.goto(f"{base}/exams/new")
    page.fill("[name=family]", "DRAFTED")
    page.fill("[name=indication]", "pain since <b>Monday</b>")
    expect(page.locator("#kept")).to_have_text("Draft kept.", timeout=10_000)
    stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert "DRAFTED" not in stored
    page.click("text=Sign out")
    other = visit("customer@example.org")
    other.goto(f"{base}/exams/new")
    expect(other.locator("[name=family]")).to_have_value("")
    again = visit()
    again.goto(f"{base}/exams/new")
    expect(again.locator("#draft-note")).to_be_visible()
    expect(again.locator("[name=family]")).to_have_value("DRAFTED")
    expect(again.locator("[name=indication]")).to_have_value("pain since <b>Monday</b>")
    again.click("#drop-draft")
    expect(again.locator("#draft-note")).to_have_count(0)
    expect(again.locator("[name=family]")).to_have_value("")


def test_the_whole_request(site: Site, visit: Visit, tmp_path: Path) -> None:
    """By keyboard: every field, a document, the number; the same patient again is asked about."""
    base = f"http://127.0.0.1:{site.web}"
    hostile = tmp_path / "<img src=x onerror=alert(1)>.png"
    Image.new("RGB", (20, 20), "red").save(hostile)
    page = visit("customer@example.org")
    page.goto(f"{base}/exams/new")
    page.locator("[name=family]").focus()
    for text in ("MUSTER", "ERIKA", "M"):
        page.keyboard.type(text)
        page.keyboard.press("Tab")
    page.fill("[name=birth_date]", "1970-01-31")
    page.select_option("[name=sex]", "F")
    page.select_option("[name=modality]", "CT")
    page.fill("[name=body_part]", "KNEE")
    page.select_option("[name=laterality]", "left")
    page.fill("[name=indication]", "<script>alert(1)</script>\nfell")
    page.fill("[name=allergies]", "iodine")
    page.select_option("[name=pregnancy]", "not pregnant")
    expect(page.locator("[name=priority_reason]")).to_be_hidden()
    page.select_option("[name=priority]", "stat")
    expect(page.locator("[name=priority_reason]")).to_be_visible()
    page.set_input_files("[name=documents]", str(hostile))
    page.get_by_role("button", name="Create exam").press("Enter")
    expect(page.locator("[aria-invalid]")).to_be_focused()
    page.keyboard.type("fell from a ladder")
    page.set_input_files("[name=documents]", str(hostile))
    page.get_by_role("button", name="Create exam").press("Enter")
    shown = page.locator("#number").inner_text()
    number = shown.replace("-", "")
    expect(page.locator("main")).to_contain_text("Enter this as Patient ID")
    page.get_by_role("link", name="Worksheet").click()
    for text in (shown, "MUSTER ERIKA M", "left", "iodine", "<script>alert(1)</script>", "STAT"):
        expect(page.locator(".worksheet")).to_contain_text(text)
    page.goto(f"{base}/exams/{number}")
    expect(page.locator(".documents")).to_contain_text("<img src=x onerror=alert(1)>.png")
    link = page.locator(".documents a").get_attribute("href")
    with page.expect_download() as got:
        page.locator(".documents a").click()
    assert Path(got.value.path()).read_bytes() == hostile.read_bytes()
    cookies = {c["name"]: c["value"] for c in page.context.cookies()}
    answer = requests.get(f"{base}{link}", cookies=cookies, timeout=20)
    assert answer.headers["content-type"].startswith("image/png")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    names = [
        p.name for p in (site.folder / "site" / "data" / "documents").rglob("*") if p.is_file()
    ]
    assert len(names) == 1
    assert names[0].isalnum()
    # The same patient once more.
    page.goto(f"{base}/exams/new")
    for name, text in (("family", "Muster"), ("given", "Erika"), ("middle", "M"),
                       ("birth_date", "1970-01-31"), ("indication", "again")):  # fmt: skip
        page.fill(f"[name={name}]", text)
    page.get_by_role("button", name="Create exam").click()
    expect(page.locator(".duplicates")).to_contain_text(shown)
    page.get_by_role("button", name="Create another exam all the same").click()
    assert page.locator("#number").inner_text() != shown


def test_documents_are_chosen_once(site: Site, visit: Visit, tmp_path: Path) -> None:
    """Kept as they are chosen: after signing out they are there, and go with the exam."""
    base = f"http://127.0.0.1:{site.web}"
    for name in ("one.png", "two.png", "three.png"):
        Image.new("RGB", (20, 20), "red").save(tmp_path / name)
        with (tmp_path / name).open("ab") as file:
            file.write(name.encode())
    (tmp_path / "notes.txt").write_text("no document")
    page = visit()
    page.goto(f"{base}/exams/new")
    page.fill("[name=family]", "CHOSEN")
    page.set_input_files("#documents", [tmp_path / "one.png", tmp_path / "notes.txt"])
    listed = page.locator("#papers li:has([name=remove])")
    expect(listed).to_have_count(1)
    expect(page.locator("#documents-problem")).to_contain_text("notes.txt: a document is a PDF")
    expect(page.locator("#kept")).to_contain_text("Not every document was kept")
    # One after the other, faster than they are kept.
    page.set_input_files("#documents", tmp_path / "two.png")
    page.set_input_files("#documents", tmp_path / "three.png")
    expect(listed).to_have_count(3)
    expect(page.locator("#documents-problem")).to_have_count(0)
    expect(page.locator("#documents")).to_have_value("")
    expect(page.locator("[name=family]")).to_have_value("CHOSEN")
    # A refusal stays said when the next choice waited for it.
    held: list[Route] = []
    # Playwright looks into handlers, and cannot into a built-in one.
    page.route("**/exams/new/documents", lambda route: held.append(route), times=1)  # noqa: PLW0108
    page.set_input_files("#documents", tmp_path / "notes.txt")
    expect(page.locator("#kept")).to_contain_text("Keeping the documents")
    first = wait_held(page, held)
    (tmp_path / "four.png").write_bytes((tmp_path / "one.png").read_bytes() + b"4")
    page.set_input_files("#documents", tmp_path / "four.png")
    first.continue_()
    expect(listed).to_have_count(4)
    expect(page.locator("#documents-problem")).to_contain_text("notes.txt: a document is a PDF")
    page.get_by_role("button", name="Remove four.png").press("Enter")
    expect(listed).to_have_count(3)
    expect(page.locator("#documents-problem")).to_have_count(0)
    # By keyboard, and what is typed meanwhile stays.
    page.fill("[name=given]", "JANE")
    page.get_by_role("button", name="Remove two.png").press("Enter")
    expect(listed).to_have_count(2)
    expect(page.locator("#documents")).to_be_focused()
    expect(page.locator("[name=given]")).to_have_value("JANE")
    page.click("text=Sign out")
    again = visit()
    again.goto(f"{base}/exams/new")
    expect(again.locator("#papers li")).to_have_count(2)
    again.fill("[name=indication]", "pain")
    # Enter in a field makes the exam; it presses no button of a document.
    again.locator("[name=body_part]").press("Enter")
    number = again.locator("#number").inner_text().replace("-", "")
    again.goto(f"{base}/exams/{number}")
    expect(again.locator(".documents li")).to_have_count(2)
    again.goto(f"{base}/exams/new")
    expect(again.locator("#papers li")).to_have_count(0)
    expect(again.locator("[name=family]")).to_have_value("")


def test_documents_without_a_script(site: Site, visit: Visit, tmp_path: Path) -> None:
    """Buttons keep and remove; the rest of the form stays; sent while they are kept, they go."""
    base = f"http://127.0.0.1:{site.web}"
    for name in ("one.png", "two.png"):
        Image.new("RGB", (20, 20), "red").save(tmp_path / name)
    page = visit()
    state = page.context.storage_state()
    plain = page.context.browser.new_context(java_script_enabled=False, storage_state=state)
    page = plain.new_page()
    page.goto(f"{base}/exams/new")
    page.fill("[name=family]", "PLAIN")
    page.set_input_files("#documents", [tmp_path / "one.png", tmp_path / "two.png"])
    page.get_by_role("button", name="Keep them now").press("Enter")
    expect(page.locator("#papers li")).to_have_count(2)
    page.fill("[name=indication]", "pain")
    page.get_by_role("button", name="Remove one.png").press("Enter")
    expect(page.locator("#papers li")).to_have_count(1)
    assert page.url.endswith("#papers")
    expect(page.locator("[name=indication]")).to_have_value("pain")
    page.goto(f"{base}/exams/new")
    page.get_by_role("button", name="Begin anew").press("Enter")
    expect(page.locator("[name=family]")).to_have_value("")
    expect(page.locator("#papers li")).to_have_count(0)
    page.fill("[name=family]", "PLAIN")
    page.fill("[name=indication]", "pain")
    page.set_input_files("#documents", tmp_path / "one.png")
    page.locator("[name=family]").press("Enter")
    number = page.locator("#number").inner_text().replace("-", "")
    page.goto(f"{base}/exams/{number}")
    expect(page.locator(".documents li")).to_have_count(1)


def test_people_of_the_chosen_facility(tmp_path: Path, browser: Browser) -> None:
    """Those of another one are out of sight and are not sent, ticked or not."""
    made = Site(
        tmp_path, free_port(), f"plugins.email.url=mailto://127.0.0.1:{free_port()}?from=a@b.org"
    )
    people = tmp_path / "people.toml"
    for name, role, at in (
        ("n", "technician", '"NORTH"'), ("s", "technician", '"SOUTH"'), ("all", "coordinator", ""),
    ):  # fmt: skip
        with people.open("a") as file:
            file.write(
                f'[[user]]\nemail = "{name}@example.org"\nrole = "{role}"\nfacilities = [{at}]\n'
                f'contacts = [{{ channel = "email", address = "{name}@example.org" }}]\n'
            )
    made.rso("load", str(people), "--json")
    made.start("web")
    page = browser.new_page()
    sign_in(page, f"http://127.0.0.1:{made.web}", made.admin["email"], made.admin["password"])
    page.goto(f"http://127.0.0.1:{made.web}/exams/new")
    north, south = (page.locator(f"[name='notify:{who}@example.org:email']") for who in ("n", "s"))
    page.select_option("#facility", "SOUTH")
    expect(north).to_be_hidden()
    south.check()
    page.select_option("#facility", "NORTH")
    expect(south).to_be_hidden()
    expect(page.locator("[name='notify:all@example.org:email']")).to_be_visible()
    north.check()
    page.fill("[name=family]", "DOE")
    page.fill("[name=indication]", "pain")
    page.click("button.main:has-text('Create exam')")
    expect(page.locator(".saved")).to_have_text("Told: n@example.org.")
    expect(page.locator("[role=alert]")).to_have_count(0)
    assert made.stop() == 0


def test_a_draft_says_why_it_is_not_kept(site: Site, visit: Visit) -> None:
    """A token of a session before is renewed unseen; signed out, or a lost line, is said."""
    page = visit()
    page.goto(f"http://127.0.0.1:{site.web}/exams/new")
    kept = page.locator("#kept")
    page.evaluate(
        "() => { document.body.dataset.csrf = 'old';"
        " document.querySelectorAll('[name=_csrf]').forEach((field) => { field.value = 'old'; }); }"
    )
    page.fill("[name=family]", "DOE")
    expect(kept).to_have_text("Draft kept.")
    page.context.set_offline(True)
    page.fill("[name=family]", "DOE2")
    expect(kept).to_contain_text("the line may be down")
    page.context.set_offline(False)
    page.context.clear_cookies()
    page.fill("[name=family]", "DOE3")
    expect(kept).to_contain_text("you are signed out")
    expect(page.locator("[name=family]")).to_have_value("DOE3")


def test_copying_over_plain_http(site: Site, visit: Visit) -> None:
    """Where a page has no clipboard the number is selected, and the key is said."""
    page = visit()
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.goto(f"http://127.0.0.1:{site.web}/exams/new")
    page.fill("[name=family]", "DOE")
    page.fill("[name=indication]", "pain")
    page.click("button.main:has-text('Create exam')")
    for _ in range(2):
        page.click("[data-copy]")
    expect(page.locator("[data-copy]")).to_have_text("Press Ctrl+C")
    number = page.locator("#number").inner_text().replace("-", "")
    assert page.evaluate("getSelection().toString()") == number
    expect(page.locator("input.copy")).to_have_count(1)

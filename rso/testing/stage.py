"""A running site with one of everything to look at: for tests of every page, and for pictures.

Everything comes in by the doors that people and machines use; only what time alone would bring
(an exam past its target, a link in a mail) is written into the ledger.
"""

import asyncio
import json
import re
import threading
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pydicom
import requests
from msgspec import Struct

from rso.app import create_app
from rso.core.errors import TransportError
from rso.engine.context import Engine, open_engine
from rso.ledger.contacts import add_contact, confirm_contact, contacts_of
from rso.ledger.exams import now
from rso.ledger.resets import begin_reset
from rso.settings import load_settings
from rso.testing.modality import send_files
from rso.testing.pacs import Pacs, script
from rso.testing.site import Site, free_port, wait_for
from rso.testing.study import make_study

__all__ = ["PASSWORD", "Stage", "Words", "staged"]

PASSWORD = "a good password"  # noqa: S105  (of people who do not exist)
_PATIENTS = (
    ("GARCÍA LÓPEZ^MARÍA", "19520419", "F", "CT", "ABDOMEN", "urgent"),
    ("OKAFOR^CHINWE", "19660117", "M", "CR", "CHEST", "routine"),
    ("NGUYEN THI^LAN", "19430913", "F", "MR", "HEAD", "routine"),
    ("MÜLLER^JÜRGEN", "19881202", "M", "US", "ABDOMEN", "routine"),
    ("HADDAD^LEILA", "20010630", "F", "CR", "HAND", "urgent"),
    ("TANAKA^HIROSHI", "19390208", "M", "CT", "CHEST", "stat"),
)


class Words(Struct, frozen=True, kw_only=True):
    """What strangers write; a test of markup puts some in.

    Attributes:
        source: The AE title of a source.
        stranger: An AE title that no source has.
        patient: A family name.
        text: The description of a Study or Series.
        indication: Why an exam is asked for.
        history: What is known of the patient.
        note: For those who are told, and on the exam's page.
        reason: Why a hold is released: how it is known whose images they are.
        view: The name of a view of the list.
        token: What an API token is for.
        document: The name of a document.
    """

    source: str = "NORTHMR"
    stranger: str = "OLDWORKSTATION"
    patient: str = "DOE"
    text: str = "Head without contrast"
    indication: str = "Headache and vomiting after a fall from a ladder"
    history: str = "Takes anticoagulants"
    note: str = "Waits in room 2; please call when it is read"
    reason: str = "Called NORTH: the modality still showed the patient before; wristband checked"
    view: str = "Night CT"
    token: str = "Upload from the reading room"  # noqa: S105  (what it is for)
    document: str = "referral.png"


class _Provider:
    """Takes messages over HTTP as Apprise's ``json://`` sends them; a fax number is unknown."""

    def __init__(self) -> None:
        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(404 if self.path.startswith("/fax") else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = HTTPServer(("127.0.0.1", free_port()), Answer)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        """Listen."""
        self._thread.start()

    def stop(self) -> None:
        """No more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def settings(self) -> list[str]:
        """For rso.toml."""
        port = self._server.server_port
        return [
            f'plugins.{name}.url="json://127.0.0.1:{port}/{name}/{{address}}"'
            for name in ("sms", "email", "fax")
        ]


_MORE = """
[[facility]]
code = "NORTH"
retention_days = 1
escalate_minutes = 5
on_call = [ {{ person = "first@example.org" }}, {{ person = "second@example.org", hours = [ {{ start = "18:00", end = "07:00", time_zone = "Europe/Berlin" }} ] }} ]
sources = [
  {{ channel = "dicom_scp", identity = "NORTHCT", kind = "technician", networks = ["127.0.0.0/8"] }},
  {{ channel = "dicom_scp", identity = {source}, kind = "technician", networks = ["127.0.0.0/8"] }},
  {{ channel = "dicom_scp", identity = "NORTHPACS", kind = "integration", networks = ["127.0.0.1/32"] }},
  {{ channel = "ftp", identity = "north", kind = "technician", password = "north's password" }},
  {{ channel = "http_upload", identity = "north-gateway", kind = "integration", password = "north's password" }},
]
radiologists = [ {{ code = "READER" }} ]

[[user]]
email = "auditor@example.org"
role = "auditor"
password = "{password}"
"""  # noqa: E501


class Stage:
    """One of everything on a started site.

    Args:
        site: Started, with a provider of messages and a scripted PACS.
        pacs: Its PACS; what it refuses is set here.
        refused: The statuses that the PACS answers, by SOP Instance UID; filled here.
        samples: The folder of pydicom's sample files.
        words: What strangers write.
    """

    def __init__(
        self, site: Site, pacs: Pacs, refused: dict[str, list[int]], samples: Path,
        words: Words = Words(),  # noqa: B008  (frozen)
    ) -> None:  # fmt: skip
        self.site, self.pacs, self.words = site, pacs, words
        self.base = f"http://127.0.0.1:{site.web}"
        self.known: dict[str, list[str]] = {}
        self._refused, self._samples = refused, samples
        more = site.folder / "more.toml"
        source = json.dumps(words.source)
        more.write_text(_MORE.format(source=source, password=PASSWORD), "utf-8")
        site.rso("load", str(more), "--json")

    def session(self, email: str, password: str = PASSWORD) -> tuple[requests.Session, str]:
        """A browser's session, and its CSRF token."""
        session = requests.Session()
        body = {"email": email, "password": password}
        shown = session.post(f"{self.base}/sign-in", body, timeout=20).text
        found = re.search(r'data-csrf="([^"]+)"', shown)
        assert found is not None, "not signed in"
        return session, found[1]

    def furnish(self) -> dict[str, list[str]]:
        """Fill it; the values of every parameter, by its name, or by how its path begins."""
        words = self.words
        self._boss, self._csrf = self.session(self.site.admin["email"], self.site.admin["password"])
        main = self._exam(
            f"{words.patient}^JANE", "19700131", "F", "CT", "HEAD", "stat",
            indication=words.indication, history=words.history,
            referrer="Dr. Grace Hopper", callback="+12025550123",
            allergies="iodine", notify={"tech@example.org": ["sms", "email", "fax"]},
            note=words.note,
        )  # fmt: skip
        others = [self._exam(*patient) for patient in _PATIENTS]
        self._images(main, others)
        self._refusals()
        self._papers(main)
        _run(self._inside(main, others))
        wait_for(lambda: self.site.rso("notify", "list", main, "--json")["notifications"])
        return self.known

    def post(self, path: str, **form: str) -> None:
        """What a form of the administrator's sends."""
        answer = self._boss.post(self.base + path, {"_csrf": self._csrf, **form}, timeout=20)
        # A release that a second person must make too is noted, and says so.
        assert answer.status_code < 400 or "a second person must" in answer.text, answer.text

    def _exam(
        self, name: str, born: str, sex: str, modality: str, part: str, priority: str, **more: Any
    ) -> str:
        body = {
            "facility": "NORTH", "patient_name": name, "sex": sex, "modality": modality,
            "birth_date": f"{born[:4]}-{born[4:6]}-{born[6:]}", "body_part": part,
            "priority": priority, "indication": "fell", **more,
            **({"priority_reason": "fell from a ladder"} if priority == "stat" else {}),
        }  # fmt: skip
        answer = self._boss.post(f"{self.base}/api/exams", json=body, timeout=20,
                                 headers={"X-CSRF-Token": self._csrf})  # fmt: skip
        assert answer.status_code == 201, answer.text
        return str(answer.json()["exam_number"])

    def _study(self, sample: str, count: int, **changes: Any) -> list[Path]:
        folder = self.site.folder / f"study-{len(list(self.site.folder.glob('study-*')))}"
        return make_study(self._samples / sample, folder, count, **changes)

    def _send(self, files: list[Path], source: str) -> None:
        send_files(files, host="127.0.0.1", port=self.site.dicom, calling_ae_title=source,
                   called_ae_title="RSO")  # fmt: skip

    def _images(self, main: str, others: list[str]) -> None:
        """Some delivered, some refused by the PACS, some held."""
        words = self.words
        who = {"PatientName": f"{words.patient}^JANE", "PatientBirthDate": "19700131",
               "PatientSex": "F", "StudyDescription": words.text}  # fmt: skip
        ct = self._study("CT_small.dcm", 6, PatientID=main, SeriesDescription="Axial", **who)
        mr = self._study("MR_small.dcm", 3, PatientID=main, SeriesDescription=words.text, **who)
        for file, status in zip(ct, (0xC001, 0xA700), strict=False):
            uid = str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)
            self._refused[uid] = [status] * 50 if status == 0xC001 else [status, 0]
        self._send(ct, "NORTHCT")
        self._send(mr, words.source)
        done = self._study("CT_small.dcm", 4, PatientID=others[0],
                           PatientName="GARCÍA LÓPEZ^MARÍA", PatientBirthDate="19520419",
                           SpecificCharacterSet="ISO_IR 100")  # fmt: skip
        self._send(done, "NORTHCT")
        # The number of the patient before: two people must release it.
        self._send(
            self._study("CT_small.dcm", 2, PatientID=main, PatientName=f"{words.patient}^RICHARD",
                        PatientBirthDate="19800131", PatientSex="M", SeriesDescription=words.text),
            words.source,
        )  # fmt: skip
        holds = wait_for(self.site.holds)
        self.known["/holds"] = [str(h["id"]) for h in holds]
        for hold in self.known["/holds"][:1]:
            self.post(f"/holds/{hold}", decision="release", exam=main, identity="exam",
                      reason=words.reason)  # fmt: skip

    def _refusals(self) -> None:
        """One who is not known, and one who is not known so often that it is banned."""
        file = self._study("CT_small.dcm", 1)
        for name in (self.words.stranger, *["NOBODY"] * 20):
            try:
                self._send(file, name)
            except TransportError:
                continue
            raise AssertionError("a stranger was let in")

    def _papers(self, main: str) -> None:
        """A document, a note, a claim, a view, a draft, tokens, a completed exam."""
        from PIL import Image  # noqa: PLC0415

        words = self.words
        picture = self.site.folder / "picture.png"
        Image.new("RGB", (200, 80), "white").save(picture)
        with picture.open("rb") as file:
            self._boss.post(
                f"{self.base}/exams/{main}/documents", {"_csrf": self._csrf}, timeout=20,
                files={"documents": (words.document, file, "image/png")},
            )  # fmt: skip
        self.post(f"/exams/{main}/notes", note=words.note)
        self.post(f"/exams/{main}/owner", to="me")
        self.post("/views/save", name=words.view, modality="CT")
        self.post(
            "/exams/new/draft", family=words.patient, given="JANE", indication=words.indication
        )
        self.post("/me/security/token", name=words.token)
        self.post("/admin/tokens", source="north-gateway", name=words.token)
        self.post(f"/exams/{main}/notify", **{"notify:tech@example.org:fax": "on"})

    async def _inside(self, main: str, others: list[str]) -> None:
        """What takes time, or comes in a mail."""
        async with open_engine(load_settings(self.site.config)) as engine:
            ledger, owner = engine.ledger, self.site.admin["email"]
            for channel, address in (("email", owner), ("sms", "+12025550199")):
                code = await add_contact(ledger, owner, channel, address)
                contacts = await contacts_of(ledger, owner)
                if channel == "email":
                    await confirm_contact(ledger, owner, str(contacts[0]["id"]), code)
            at = now()
            await ledger.execute("UPDATE exam SET due_at = ? WHERE number IN (?, ?)",
                                 at - timedelta(minutes=19), others[1], others[5])  # fmt: skip
            for hours, number in enumerate(others[1:5], 1):
                await ledger.execute(
                    "UPDATE exam SET created_at = ? WHERE number = ?",
                    at - timedelta(hours=hours, minutes=7 * hours), number,
                )  # fmt: skip
            reset = await begin_reset(ledger, "customer@example.org")
            rows = await ledger.fetch("SELECT leave_key FROM contact WHERE leave_key <> ''")
            self.known |= {
                "number": [main], "/leave": [rows[0]["leave_key"]], "/reset": [str(reset)],
                "facilities": ["NORTH"], "radiologists": ["READER"],
                "users": ["tech@example.org"],
                "/acknowledge": [await _matter(engine)],
            }  # fmt: skip

    def pages(self) -> list[str]:
        """The paths of everything that can be asked for without changing it, parameters filled in.

        Raises:
            AssertionError: A route has a parameter that nothing is known for.
        """
        found: list[str] = _run(self._pages())
        return found

    async def _pages(self) -> list[str]:
        async with open_engine(load_settings(self.site.config)) as engine:
            app = create_app(engine, None, [])
            found: list[str] = []
            for route in app.routes:
                if "GET" in getattr(route, "methods", ()):
                    found += self._filled(str(getattr(route, "path_format", "")))
        return sorted(set(found))

    def _filled(self, path: str) -> list[str]:
        begins = "/" + path.split("/")[1]
        if begins in {
            "/static",
            "/upload-static",
            "/schema",
            "/api",
            "/events",
            "/health",
            "/metrics",
            "/sms",
        } or re.search(r"thumbnails|documents|\.zip$|\.csv$|\.toml$", path):
            return []  # not a page, as the test that asks for it sees too
        if "{kind}" in path:
            kinds = ("facilities", "radiologists", "users")
            return [path.format(kind=kind, key=key) for kind in kinds for key in self.known[kind]]
        names = re.findall(r"{(\w+)}", path)
        values = self.known.get(begins) or self.known.get(names[0] if names else "", [""])
        assert len(names) <= 1, f"nothing is known of the parameters of {path}"
        assert not names or values != [""], f"nothing is known of the parameters of {path}"
        return [path.format(**dict.fromkeys(names, value)) for value in values]


@contextmanager
def staged(
    folder: Path,
    samples: Path,
    *settings: str,
    words: Words = Words(),  # noqa: B008  (frozen)
) -> Iterator[Stage]:
    """A furnished site that runs, with its PACS and its provider; all of it ends in any case."""
    refused: dict[str, list[int]] = {}
    with ExitStack() as stack:
        pacs, provider = Pacs(script(refused)), _Provider()
        pacs.start()
        stack.callback(pacs.stop)
        provider.start()
        stack.callback(provider.stop)
        site = Site(folder, pacs.port, *settings, *provider.settings())
        site.start()
        stack.callback(site.stop)
        made = Stage(site, pacs, refused, samples, words)
        made.furnish()
        yield made
        assert site.stop() == 0, "RSO did not end in order"


async def _matter(engine: Engine) -> str:
    """What needs a person: the STAT request, once it was looked at."""
    for _ in range(100):
        rows = await engine.ledger.fetch("SELECT id FROM outbox WHERE kind = 'matter'")
        if rows:
            return str(rows[0]["id"])
        await asyncio.sleep(0.2)
    raise AssertionError("nothing needs a person")


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run it in a thread: a browser of Playwright's has the loop of this one."""
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(asyncio.run(work)))
    thread.start()
    thread.join()
    assert done, "it failed"
    return done[0]

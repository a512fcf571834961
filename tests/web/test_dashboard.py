"""Dashboard, health and metrics in this process."""

import re
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from litestar import Litestar, Request
from litestar.testing import AsyncTestClient

from rso.app import create_app
from rso.core.exam import Patient, Priority
from rso.engine import disk
from rso.engine.context import Engine
from rso.engine.exams import create_exam
from rso.engine.faults import Fault
from rso.ledger.exams import now
from rso.ledger.figures import add_received
from rso.ledger.people import Person
from rso.ledger.sessions import create_session
from rso.settings import Web
from rso.web import monitoring
from rso.web.charts import Series, bars_svg, range_svg
from rso.web.client import may_watch

# The test client has a loop of its own, which PostgreSQL's pool would not survive.
ONE_LOOP = pytest.mark.parametrize("ledger", ["sqlite"], indirect=True)


@pytest.fixture
async def client(clinics: Engine) -> AsyncIterator[AsyncTestClient[Litestar]]:
    """The application, in this process."""
    async with AsyncTestClient(
        create_app(clinics, None, []), raise_server_exceptions=False
    ) as made:
        yield made


async def see(
    engine: Engine, client: AsyncTestClient[Litestar], role: str, *facilities: str, path: str = ""
) -> tuple[int, str]:
    """What a person is answered."""
    email = "lead@example.org"
    text = str(list(facilities)).replace("'", '"')
    await engine.ledger.execute(
        "UPDATE user_account SET role = ?, facilities = ? WHERE email = ?", role, text, email
    )
    person = Person(email=email, name="", role=role, facilities=facilities or None)
    secret = await create_session(engine.ledger, person)
    answer = await client.get(
        f"/dashboard{path}", headers={"Cookie": f"rso_session={secret}", "Accept": "text/html"}
    )
    return answer.status_code, answer.text


async def deliver(engine: Engine, facility: str, minutes: int) -> None:
    """A STAT exam that was delivered after so many minutes."""
    exam = await create_exam(
        engine, facility=facility, patient=Patient(name="SECRET^NAME"), priority=Priority.STAT,
        actor="t",
    )  # fmt: skip
    await engine.ledger.execute(
        "UPDATE exam SET status = 'delivered', created_at = ?, delivered_at = ? WHERE id = ?",
        now() - timedelta(minutes=minutes), now(), exam.id,
    )  # fmt: skip


@ONE_LOOP
async def test_dashboard(clinics: Engine, client: AsyncTestClient[Litestar]) -> None:
    """Turnaround against the target, of one's facilities; nobody's name; plots that are XML."""
    await deliver(clinics, "NORTH", 20)
    await deliver(clinics, "NORTH", 90)
    await deliver(clinics, "SOUTH", 2000)
    status, text = await see(clinics, client, "coordinator", "NORTH")
    assert status == 200
    assert "90 % within" in text
    assert "50 %" in text
    assert "SOUTH" not in text
    assert "SECRET" not in text
    assert "33 h" not in text
    for plot in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(plot)
    _, everything = await see(clinics, client, "coordinator", path="?hours=48")
    assert "33 %" in everything
    assert "last 48 hours" in everything
    assert (await see(clinics, client, "technician", "NORTH"))[0] == 403
    assert (await see(clinics, client, "auditor"))[0] == 403
    assert (await see(clinics, client, "customer", "NORTH", path="/figures"))[0] == 403


def test_plots() -> None:
    """Bars are as high as their values; words of others do no harm; nothing is no division by zero."""
    plot = bars_svg("k", "<b>&", "what", ["00", "01"], [Series(name="received", values=[1, 2])])
    tree = ET.fromstring(plot)
    heights = [float(r.attrib["height"]) for r in tree.iter("rect")]
    assert heights[1] == pytest.approx(2 * heights[0])
    assert next(tree.iter("title")).text == "<b>&"
    assert tree.attrib["aria-labelledby"] == "k-title k-text"
    ET.fromstring(bars_svg("k", "t", "d", [], [Series(name="received", values=[])]))
    ET.fromstring(range_svg("k", "t", "d", half=0, most=0, target=0))


@ONE_LOOP
async def test_health(
    clinics: Engine, client: AsyncTestClient[Litestar], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alive without the database; ready only with it and with room on the disk."""
    assert (await client.get("/health")).json()["status"] == "ok"
    assert (await client.get("/health/ready")).json() == {
        "status": "ok", "reasons": [], "checks": {"database": True, "space": True, "volumes": True},
    }  # fmt: skip
    full = disk.Volume(holds="data", free=10, size=1000, low_water=20)
    monkeypatch.setattr(monitoring, "volumes", lambda _settings: [full])
    for path in ("/health", "/health/ready"):
        answer = await client.get(path)
        assert answer.status_code == 503
        assert answer.json() == {
            "status": "unavailable",
            "checks": {"database": True, "space": False, "volumes": True},
            "reasons": ["data: 0 MB free, nothing is taken in below 0 MB"],
        }
    assert (await client.get("/health/live")).status_code == 200


@ONE_LOOP
async def test_health_says_what_is_not_trusted(
    clinics: Engine, client: AsyncTestClient[Litestar], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spool that failed makes RSO not ready, with the reason, for as long as it stands."""
    fault = Fault(clinics.settings.data_dir / "faults" / "spool receive-0")
    assert (await client.get("/health")).status_code == 200
    fault.say("sync failed: Input/output error")
    answer = await client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["checks"] == {"database": True, "space": True, "volumes": False}
    assert answer.json()["reasons"] == ["spool receive-0: sync failed: Input/output error"]
    monkeypatch.setattr(monitoring, "may_watch", lambda _request: True)
    assert "rso_faults 1.0" in (await client.get("/metrics")).text
    fault.close()
    assert (await client.get("/health")).status_code == 200


@ONE_LOOP
async def test_what_is_set_aside_is_counted(
    clinics: Engine, client: AsyncTestClient[Litestar], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each note is one for Prometheus; the site is ready all the same, for it can take work."""
    monkeypatch.setattr(monitoring, "may_watch", lambda _request: True)
    assert "rso_set_aside 0.0" in (await client.get("/metrics")).text
    folder = clinics.settings.data_dir / "set-aside"
    folder.mkdir(parents=True)
    (folder / "a.json").touch()
    assert "rso_set_aside 1.0" in (await client.get("/metrics")).text
    assert (await client.get("/health")).status_code == 200


@ONE_LOOP
async def test_metrics(
    clinics: Engine, client: AsyncTestClient[Litestar], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every figure is there, requests are counted by route, and no patient or number is in it."""
    exam = await create_exam(
        clinics, facility="NORTH", patient=Patient(name="SECRET^NAME"), actor="t"
    )
    await add_received(clinics.ledger, "ftp", 7, 700)
    await client.get(f"/exams/{exam.number}")
    await client.get("/nowhere/at/all")
    # A machine within, or who may see the whole site; nobody through a proxy unknown to RSO.
    assert (await client.get("/metrics")).status_code == 401
    monkeypatch.setattr(monitoring, "may_watch", lambda _request: True)
    text = (await client.get("/metrics")).text
    for line in (
        'rso_exams{status="requested"} 1.0', "rso_exams_overdue 0.0", "rso_open_holds 0.0",
        'rso_received_instances_total{channel="ftp"} 7.0',
        'rso_received_bytes_total{channel="ftp"} 700.0', "rso_spool_bytes 0.0",
        'rso_outbox{kind="hook",state="queued"} 1.0',
    ):  # fmt: skip
        assert line in text
    assert "rso_volume_free_bytes" in text
    assert 'rso_http_requests_total{app_name="rso",method="GET",path="/exams/{number}"' in text
    assert exam.number not in text
    assert "SECRET" not in text
    assert "NORTH" not in text
    assert "nowhere" not in text


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "may"),
    [
        ("127.0.0.1", "", (), True),
        ("::1", "", (), True),
        ("192.0.2.1", "", (), False),
        ("127.0.0.1", "192.0.2.1", (), False),
        ("127.0.0.1", "127.0.0.1", (), False),
        ("127.0.0.1", "192.0.2.1", ("127.0.0.0/8",), False),
        ("192.0.2.7", "127.0.0.1", ("192.0.2.0/24",), True),
    ],
)
def test_who_may_read_metrics_unasked(
    peer: str, forwarded: str, trusted: tuple[str, ...], may: bool
) -> None:
    """A peer within; never a stranger who says so, nor one whom a proxy brings."""
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    settings = SimpleNamespace(web=Web(trusted_proxies=trusted))
    app = SimpleNamespace(state=SimpleNamespace(engine=SimpleNamespace(settings=settings)))
    request: Request[Any, Any, Any] = Request(
        {"type": "http", "client": (peer, 1), "headers": headers, "litestar_app": app, "app": app}  # type: ignore[typeddict-item, typeddict-unknown-key]
    )
    assert may_watch(request) is may

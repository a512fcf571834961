"""The audit's page, its export and its API: by time, in parts, whatever is typed."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from httpx import ASGITransport, AsyncClient

import rso.ledger.audit_search
from rso.app import create_app
from rso.core.errors import ConfigError
from rso.engine.context import Engine
from rso.ledger import audit
from rso.ledger.tokens import create_token
from rso.settings import load_settings
from rso.web.admin_on_call import on_call_of

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
async def lead(clinics: Engine) -> AsyncIterator[AsyncClient]:
    """A coordinator's client, in the loop of the test; ten entries, a minute apart."""
    for number in range(10):
        await audit.append(clinics.ledger, actor=f"who{number}", action="did something")
    await clinics.ledger.execute_many(
        "UPDATE audit SET at = ? WHERE id = ?",
        [(START + timedelta(minutes=number), number + 1) for number in range(10)],
    )
    token = await create_token(clinics.ledger, email="lead@example.org")
    async with AsyncClient(
        transport=ASGITransport(app=create_app(clinics, None, []), raise_app_exceptions=False),  # type: ignore[arg-type]
        base_url="http://rso.example",
        headers={"Authorization": f"Bearer {token}", "Accept": "text/html"},
    ) as made:
        yield made


def whom(text: str) -> str:
    """The numbers of those whose entries a page has."""
    return "".join(str(number) for number in range(10) if f"who{number}" in text)


async def test_entries_of_a_time(lead: AsyncClient) -> None:
    """The page says the zone and keeps what was asked; its export and the API are of that time."""
    form = {"since": "2026-03-01T12:03", "until": "2026-03-01T12:06"}
    page = (await lead.post("/audit", data=form)).text
    assert whom(page) == "345"
    assert page.count('value="2026-03-01T12:03"') == 2  # the field, and the export's
    assert "From (UTC)" in page
    assert whom((await lead.post("/audit.csv", data=form)).text) == "345"
    for since in ("2026-03-01T12:03:00", "2026-03-01T13:03:00+01:00"):
        told = {"since": since, "until": "2026-03-01T12:06:00Z"}
        answer = await lead.get("/api/audit", params=told)
        assert [entry["actor"] for entry in answer.json()["entries"]] == ["who5", "who4", "who3"]


async def test_nothing_is_cut_off_an_export(
    clinics: Engine, lead: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every entry, once, the newest first, in parts that the memory holds."""
    monkeypatch.setattr(rso.ledger.audit_search, "_CHUNK", 3)
    sizes, fetch = list[int](), clinics.ledger.fetch

    async def counted(sql: str, *values: object) -> list[dict[str, object]]:
        rows = await fetch(sql, *values)
        sizes.append(len(rows))
        return rows

    monkeypatch.setattr(clinics.ledger, "fetch", counted)
    lines = (await lead.get("/audit.csv")).text.splitlines()
    assert [line.split(",")[0] for line in lines] == ["id", *map(str, range(10, 0, -1))]
    assert max(sizes) <= 3


@pytest.mark.parametrize(
    ("field", "typed", "status"),
    [("before", "9" * 5000, 200), ("before", "٣" * 30, 200), ("since", "yesterday", 400),
     ("since", "0001-01-01T00:00+14:00", 200), ("until", "9999-12-31T23:59-14:00", 200),
     ("since", "9999-12-31T23:59-14:00", 200), ("until", "0001-01-01T00:00+14:00", 200)],
)  # fmt: skip
async def test_whatever_is_typed_is_answered(
    lead: AsyncClient, field: str, typed: str, status: int
) -> None:
    """A number of any length, and times at either end of time."""
    for path in ("/audit", "/audit.csv"):
        assert (await lead.post(path, data={field: typed})).status_code == status


def test_the_order_of_those_on_call_is_any_text() -> None:
    """A number of any length, or none, is the last."""
    typed = {"a@x": "9" * 5000, "b@x": "2", "c@x": "soon", "d@x": "1"}
    rows = [{"order": order, "person": person} for person, order in typed.items()]
    assert [entry["person"] for entry in on_call_of(rows)] == ["d@x", "b@x", "a@x", "c@x"]


@pytest.mark.parametrize("name", ["trusted_proxies", "metrics_from"])
def test_networks_are_checked_at_the_start(tmp_path: Path, name: str) -> None:
    """A typing error names its place, and fails no request later."""
    file = tmp_path / "rso.toml"
    file.write_text(f'[web]\n{name} = ["10.0.0.0/8", "10.0.0.1/8"]\n')
    with pytest.raises(ConfigError, match=rf"10\.0\.0\.1/8.*\$\.web\.{name}"):
        load_settings(file)

"""Fixtures of the tests of the web application in this process."""

from pathlib import Path
from typing import Any

import pytest

from rso.engine.archive import LocalArchive
from rso.engine.context import Engine
from rso.ledger import Ledger
from rso.ledger.site import load_site
from rso.plugins import load_plugins
from rso.settings import load_settings

CLINICS: dict[str, Any] = {
    "facility": [{"code": "NORTH"}, {"code": "SOUTH"}],
    "user": [
        {"email": "tech@north.example", "role": "technician", "facilities": ["NORTH"]},
        {"email": "other@north.example", "role": "technician", "facilities": ["NORTH"]},
        {"email": "tech@south.example", "role": "technician", "facilities": ["SOUTH"]},
        {"email": "lead@example.org", "role": "coordinator"},
    ],
}


@pytest.fixture
async def clinics(ledger: Ledger, tmp_path: Path) -> Engine:
    """Two facilities with their technicians, and a coordinator of both."""
    file = tmp_path / "rso.toml"
    file.write_text("")
    settings = load_settings(file)
    await load_site(ledger, CLINICS)
    return Engine(
        ledger=ledger,
        plugins=load_plugins(settings),
        settings=settings,
        archive=LocalArchive(tmp_path / "archive"),
    )

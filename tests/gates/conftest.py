"""One running RSO for the gates that do not need their own, with facilities of their own in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rso.testing.chaos import ChaosProxy
from rso.testing.pacs import Pacs
from rso.testing.site import Site, facility
from rso.testing.storage import Orthanc, Ours, Storage, Storescp

MANY = 20  # destinations of the facility MANY


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long forms are long; every gate measures."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.alone)
        if item.get_closest_marker("proof"):
            item.add_marker(pytest.mark.timeout(1200))


def _pacs() -> Pacs:
    made = Pacs()
    made.start()
    return made


@pytest.fixture(scope="session")
def reader() -> Iterator[Pacs]:
    """The PACS behind the facility NORTH."""
    made = _pacs()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def modes() -> Iterator[dict[str, Pacs]]:
    """The three PACS behind the facility EAST, by egress mode."""
    made = {mode: _pacs() for mode in ("passthrough", "qualify", "restore")}
    yield made
    for pacs in made.values():
        pacs.stop()


@pytest.fixture(scope="session")
def many() -> Iterator[list[tuple[Pacs, ChaosProxy]]]:
    """The PACS behind the facility MANY, each behind a proxy."""
    made = [_pacs() for _ in range(MANY)]
    pairs = [(pacs, ChaosProxy(pacs.port)) for pacs in made]
    for _, proxy in pairs:
        proxy.start()
    yield pairs
    for pacs, proxy in pairs:
        proxy.stop()
        pacs.stop()


@pytest.fixture(scope="session")
def far() -> Iterator[tuple[Pacs, ChaosProxy]]:
    """The PACS behind the facility WEST and the proxy before it."""
    pacs = _pacs()
    proxy = ChaosProxy(pacs.port)
    proxy.start()
    yield pacs, proxy
    proxy.stop()
    pacs.stop()


@pytest.fixture(scope="session")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    reader: Pacs,
    modes: dict[str, Pacs],
    many: list[tuple[Pacs, ChaosProxy]],
    far: tuple[Pacs, ChaosProxy],
) -> Iterator[Site]:
    """RSO with all roles; its FTP speaks in the clear, so that a trace can be read."""
    made = Site(tmp_path_factory.mktemp("gates"), reader.port, 'plugins.ftp.tls="off"')
    more = made.folder / "more.toml"
    more.write_text(
        facility("EAST", {f"EAST-{mode}": (pacs.port, mode) for mode, pacs in modes.items()})
        + facility("MANY", {f"MANY-{i}": (p.port, "") for i, (_, p) in enumerate(many)})
        + facility("WEST", {"WEST-PACS": (far[1].port, "")})
    )
    made.rso("load", str(more), "--json")
    made.start()
    yield made
    assert made.stop() == 0


@pytest.fixture
def ours(running: Site) -> Ours:
    """RSO as a storage."""
    return Ours(running)


@pytest.fixture(params=[Orthanc, Storescp], ids=["Orthanc", "storescp"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """Another storage, to compare with."""
    made = request.param(tmp_path / "other")
    made.start()
    yield made
    made.stop()

"""R8 and R9: everybody sends the same at once, and links break at every PDU."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rso.core.errors import RsoError
from rso.testing.chaos import Chaos, ChaosProxy
from rso.testing.pacs import Pacs
from rso.testing.storage import Ours, Storage, Verdict, judge, pixels_of, running_with
from rso.testing.study import make_study, missing, other_bytes

pytestmark = pytest.mark.peers


def steady(storage: Storage, uids: set[str], pause: float = 1.5) -> dict[str, list[bytes]]:
    """The copies once all of these are there and nothing more comes; after a minute, as it is."""
    until = time.monotonic() + 60
    before: Any = None
    while time.monotonic() < until:
        found = storage.copies()
        counts = {uid: len(copies) for uid, copies in found.items()}
        if counts == before and uids <= found.keys():
            break
        before = counts
        time.sleep(pause)
    return found


def storm(storage: Storage, files: list[Path], associations: int) -> list[dict[str, int]]:
    """The answers of so many associations that send the same files at once."""

    def one(_: int) -> dict[str, int]:
        answers: dict[str, int] = {}
        try:
            storage.send(files, answers)
        except RsoError as exc:
            answers[""] = 0xFFFF
            print(storage.name, exc)
        return answers

    with ThreadPoolExecutor(associations) as pool:
        return list(pool.map(one, range(associations)))


@pytest.mark.parametrize(
    ("count", "associations"), [(50, 6), pytest.param(500, 20, marks=pytest.mark.proof)]
)
def test_many_send_the_same_at_once(
    ours: Ours, tmp_path: Path, samples: Path, reader: Pacs, count: int, associations: int
) -> None:
    """One stored copy each and every answer 0000; other bytes of one UID are kept and held."""
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", count)
    twin = other_bytes(files[0], tmp_path / "twin")
    before = len(ours.site.holds())
    began = time.monotonic()
    answers = storm(ours, files, associations)
    seconds = time.monotonic() - began
    assert {status for one in answers for status in one.values()} == {0}
    assert all(len(one) == count for one in answers)
    copies = steady(ours, set(answers[0]))
    verdict = judge(copies, files, answers[0])
    print(f"RSO: {count} x {associations} in {seconds:.0f} s, {verdict}")
    assert (verdict.lost, verdict.torn, verdict.twice) == (0, 0, 0)
    assert missing(reader, files) == 0
    assert {status for one in storm(ours, [twin], 3) for status in one.values()} == {0}
    uid, pixels = pixels_of(twin.read_bytes())
    until = time.monotonic() + 20
    while len(found := ours.copies()[uid]) < 2 and time.monotonic() < until:
        time.sleep(0.2)
    assert sorted(found) == sorted([pixels, *copies[uid]])
    held = ours.site.holds()
    assert len(held) == before + 1
    assert "instance" in {hold["kind"] for hold in held}


@pytest.mark.proof
def test_many_send_the_same_to_others(other: Storage, tmp_path: Path, samples: Path) -> None:
    """The same storm elsewhere: measured, and nothing promised."""
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 500)
    answers = storm(other, files, 20)
    refused = sum(status != 0 for one in answers for status in one.values())
    acknowledged = {uid: 0 for one in answers for uid, status in one.items() if status == 0}
    verdict = judge(steady(other, set(), 3), files, acknowledged)
    print(f"{other.name}: 500 x 20, {refused} not acknowledged, {verdict}")
    twin = other_bytes(files[0], tmp_path / "twin")
    answer: dict[str, int] = {}
    other.send([twin], answer)
    uid, pixels = pixels_of(twin.read_bytes())
    kept = other.copies()[uid]
    print(f"{other.name}: other bytes of one UID, answered {answer}, copies {len(kept)},"
          f" the newcomer {'kept' if pixels in kept else 'dropped'}")  # fmt: skip


def resets(
    storage: Storage, files: list[Path], each: int, revive: Callable[[], None]
) -> tuple[Verdict, int]:
    """Break an association of ``each`` instances at each of its PDUs.

    Returns:
        The verdict, and how many instances are visible that had not arrived whole.
    """
    proxy = ChaosProxy(storage.port)
    port = proxy.start()
    answers: dict[str, int] = {}
    unfinished: set[str] = set()
    try:
        whole = pdus_of(storage, proxy, files[:each], port, answers)
        groups = [files[i : i + each] for i in range(each, len(files), each)]
        assert len(groups) >= whole
        for cut, group in zip(range(whole), groups, strict=False):
            proxy.to_server = Chaos(reset_at_pdu=cut)
            uids = [pixels_of(file.read_bytes())[0] for file in group]
            try:
                storage.send(group, answers, port=port)
            except RsoError:
                revive()
            # The first PDU associates and the last releases; the others carry the instances.
            arrived = max(cut - 1, 0) // ((whole - 2) // each)
            unfinished |= set(uids[arrived:])
    finally:
        proxy.stop()
    copies = steady(storage, {uid for uid, status in answers.items() if status == 0})
    early = sum(uid in copies for uid in unfinished)
    return judge(copies, files, answers), early


def pdus_of(
    storage: Storage, proxy: ChaosProxy, files: list[Path], port: int, answers: dict[str, int]
) -> int:
    """How many PDUs an association has that sends these."""
    storage.send(files, answers, port=port)
    time.sleep(0.2)
    return proxy.pdus


def study(folder: Path, samples: Path, each: int, side: int, groups: int) -> list[Path]:
    """Enough files for a broken association at each PDU."""
    return make_study(samples / "CT_small.dcm", folder / "study", each * groups, side=side)


# Two instances of three PDUs; then one of fourteen MB, which goes into a file of its own.
@pytest.mark.parametrize(
    ("each", "side", "groups"),
    [(2, 0, 8), pytest.param(3, 600, 20, marks=pytest.mark.proof),
     pytest.param(1, 2600, 60, marks=pytest.mark.proof)],
)  # fmt: skip
def test_reset_at_each_pdu(
    ours: Ours, tmp_path: Path, samples: Path, reader: Pacs, each: int, side: int, groups: int
) -> None:
    """Acknowledged is durable; what had not arrived whole is nowhere to be seen."""
    files = study(tmp_path, samples, each, side, groups)
    verdict, early = resets(ours, files, each, lambda: None)
    print(f"RSO: reset at each PDU, {verdict}, unfinished and visible {early}")
    assert (verdict.lost, verdict.torn, verdict.twice, early) == (0, 0, 0, 0)
    spool = ours.site.folder / "site" / "data" / "spool"
    assert not list(spool.rglob("*.part"))


@pytest.mark.proof
def test_reset_at_each_pdu_of_others(other: Storage, tmp_path: Path, samples: Path) -> None:
    """The same at other storages: measured, and nothing promised."""
    files = study(tmp_path, samples, 3, 300, 70)  # their PDUs are smaller
    verdict, early = resets(other, files, 3, other.revive)
    print(f"{other.name}: reset at each PDU, {verdict}, unfinished and visible {early}")


HALF_IS_WHOLE = """
from rso.dicom.association import AcceptedAssociation
from rso.dicom.wire import WireError
real = AcceptedAssociation.run
def keeps(self):
    try:
        real(self)
    except WireError:
        if self._request is not None and self._used:
            syntax = next(iter(self._contexts.values()))
            self._handler.store(self._request, syntax, self._dataset())
        raise
AcceptedAssociation.run = keeps
"""


@pytest.mark.proof
def test_r9_finds_what_had_not_arrived(tmp_path: Path, samples: Path, reader: Pacs) -> None:
    """R9 is able to fail: what had come of an instance when the link broke is kept."""
    with running_with(HALF_IS_WHOLE, tmp_path / "defect", reader.port) as ours:
        verdict, early = resets(ours, study(tmp_path, samples, 3, 600, 20), 3, lambda: None)
    assert early + verdict.torn > 0

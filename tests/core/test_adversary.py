"""No wrong patient, in many thousand pairs that invite one."""

import importlib.util
import os
from pathlib import Path

import pytest

from rso.core import matching, matching_evidence
from rso.core.matching import Action, decide
from rso.core.names import Likeness

_spec = importlib.util.spec_from_file_location(
    "adversary", Path(__file__).with_name("adversary.py")
)
assert _spec is not None
assert _spec.loader is not None
adversary = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(adversary)

SEED = int(os.environ.get("RSO_SEED", "20261124"))


def wrong_matches(count: int) -> int:
    """How many of the adversary's pairs match by themselves."""
    pairs = adversary.wrong_pairs(count, SEED)
    return sum(decide(study, found).action is Action.AUTO for study, found in pairs)


def held_honest(count: int) -> float:
    """Which part of honest pairs is held."""
    pairs = adversary.honest_pairs(count, SEED)
    return sum(decide(study, found).action is Action.HOLD for study, found in pairs) / count


def test_few() -> None:
    """Five thousand pairs: none matches, and honest ones seldom wait."""
    assert wrong_matches(5_000) == 0
    assert held_honest(2_000) <= 0.05


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_three_hundred_thousand() -> None:
    """The promise: 0 of 300,000, and at most one honest Study in twenty is held."""
    assert wrong_matches(300_000) == 0
    assert held_honest(50_000) <= 0.05


def test_a_looser_table_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adversary can win: with names that never differ it does."""
    for module in (matching, matching_evidence):
        monkeypatch.setattr(module, "compare_names", lambda *_, **__: Likeness.EXACT)
    assert wrong_matches(5_000) > 0

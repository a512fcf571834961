"""One line of the results: what was compared, the ratio of medians, and the goal it is held to."""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

__all__ = ["Row", "alternate", "speed"]


class Row(Struct, frozen=True, kw_only=True):
    """A result. ``ratio`` is what ``goal`` speaks of; ``detail`` says what it is made of."""

    what: str
    ratio: float
    goal: float
    detail: str
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal

    def line(self) -> str:
        """As it is printed and written."""
        sign, mark = ("≤" if self.at_most else "≥"), ("yes" if self.met else "**no**")
        return (
            f"| {self.what} | {self.ratio:.2f} | {sign} {self.goal:.3g} | {mark} | {self.detail} |"
        )

    def show(self) -> "Row":
        """Print it, and return it."""
        sys.stdout.write(self.line() + "\n")
        sys.stdout.flush()
        return self


def alternate(
    runs: int, work: Mapping[str, Callable[[], float]], between: Sequence[Callable[[], None]] = ()
) -> dict[str, float]:
    """Median seconds of each, run in turn so that a noisy moment meets all; one run is thrown away.

    ``between`` is called after each run, outside what is measured.
    """
    taken: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(runs + 1):
        for name, one in work.items():
            seconds = one()
            if turn:
                taken[name].append(seconds)
            for clean in between:
                clean()
    return {name: statistics.median(times) for name, times in taken.items()}


def speed(
    what: str, goal: float, medians: Mapping[str, float], ours: str, theirs: str, count: int
) -> Row:
    """How many times as fast one is as the other."""
    return Row(
        what=what,
        ratio=medians[theirs] / medians[ours],
        goal=goal,
        detail=f"{ours} {count / medians[ours]:.0f}/s, {theirs} {count / medians[theirs]:.0f}/s",
    ).show()

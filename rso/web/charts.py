"""Plots as SVG, made here: a title and a description for who cannot see them, colours by class."""

from collections.abc import Sequence

from markupsafe import Markup
from msgspec import Struct

__all__ = ["Series", "bars_svg", "range_svg"]

_WIDTH, _HEIGHT = 720, 180
_LEFT, _TOP, _BOTTOM = 46, 18, 30


class Series(Struct, frozen=True, kw_only=True):
    """Values of one colour; ``name`` is also its class."""

    name: str
    values: Sequence[int]


def _nice(value: float) -> int:
    """The next round number: 1, 2 or 5 times a power of ten."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if step * factor >= value:
                return step * factor
        step *= 10


def _short(value: float) -> str:
    """``500``, ``2k``, ``1.5M``."""
    for size, sign in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:g}{sign}"
    return f"{value:.0f}"


def bars_svg(
    key: str, title: str, description: str, labels: Sequence[str], series: Sequence[Series]
) -> Markup:
    """Bars side by side for each label; every third label is written.

    Args:
        key: Makes the ids on the page unique.
        title: What is shown.
        description: What it says, in a sentence.
        labels: Below the bars.
        series: As many values each as there are labels.
    """
    top = _nice(max((v for s in series for v in s.values), default=0) or 1)
    plot = _HEIGHT - _TOP - _BOTTOM
    slot = (_WIDTH - _LEFT) / max(len(labels), 1)
    width = slot * 0.8 / max(len(series), 1)
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = _TOP + plot * (1 - share)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if share in {0.0, 1.0} or top % 2 == 0:
            said = _short(top * share)
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{said}</text>')
    for i, label in enumerate(labels):
        x = _LEFT + i * slot + slot * 0.1
        for j, one in enumerate(series):
            high = plot * one.values[i] / top
            parts.append(
                f'<rect class="{one.name}" x="{x + j * width:.1f}" y="{_TOP + plot - high:.1f}"'
                f' width="{width:.1f}" height="{high:.1f}" rx="1"/>'
            )
        if (len(labels) - 1 - i) % 3 == 0:
            parts.append(
                f'<text x="{x + slot * 0.4:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">'
                f"{Markup.escape(label)}</text>"
            )
    return _svg(key, title, description, _WIDTH, _HEIGHT, parts)


def range_svg(
    key: str, title: str, description: str, *, half: float, most: float, target: float
) -> Markup:
    """From the median to the 90th percentile, with the target as a line; all in one unit."""
    width, height = 240, 22
    scale = width / (max(most, target) * 1.15 or 1)
    word = "late" if most > target else "good"
    parts = [
        f'<line class="grid" x1="0" x2="{width}" y1="11" y2="11"/>',
        f'<rect class="{word}" x="{half * scale:.1f}" y="6" rx="3"'
        f' width="{max((most - half) * scale, 4):.1f}" height="10"/>',
        f'<path class="target" d="M{target * scale:.1f} 1v20"/>',
    ]
    return _svg(key, title, description, width, height, parts)


def _svg(
    key: str, title: str, description: str, width: int, height: int, parts: Sequence[str]
) -> Markup:
    inside = "".join(parts)
    return Markup(  # noqa: S704  (every text in it is escaped)
        f'<svg class="plot" role="img" viewBox="0 0 {width} {height}"'
        f' aria-labelledby="{key}-title {key}-text"><title id="{key}-title">'
        f'{Markup.escape(title)}</title><desc id="{key}-text">{Markup.escape(description)}</desc>'
        f"{inside}</svg>"
    )

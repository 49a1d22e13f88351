"""Small charts as SVG: axes, lines that are named at their ends, points; their colours follow the page's scheme."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

_LABEL_HEIGHT = 13  # what a line of text needs, in the chart's units


@dataclass(frozen=True)
class Scale:
    """Maps values to positions, linearly or by their logarithm.

    Attributes:
        low, high: The values at the ends.
        start, end: Their positions.
        log: Whether to take logarithms.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values between the ends, at most about so many."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
                values = [step * 10.0**decade for decade in decades for step in steps]
                if len(found := [v for v in values if self.low <= v <= self.high]) <= most:
                    break
            return found
        step = _round_step((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _round_step(rough: float) -> float:
    decade = 10.0 ** math.floor(math.log10(rough))
    return next(step * decade for step in (1, 2, 5, 10) if step * decade >= rough * (1 - 1e-9))


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: At its end; empty for none.
        colour: Such as `#4e96bc`; empty for the grey of the background.
        points: x and y; a y that is not finite leaves a gap.
        style: Empty; or `d` or `d2` for dashes, of which the ones show in the gaps of the others; or `f` for faint.
    """

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    style: str = ""


@dataclass
class Chart:
    """A chart under construction: frame first, then what stands in it."""

    x: Scale
    y: Scale
    x_title: str
    y_title: str
    width: int = 460
    height: int = 280
    parts: list[str] = field(default_factory=list)

    def frame(
        self,
        x_text: Callable[[float], str] = "{:g}".format,
        y_text: Callable[[float], str] = "{:g}".format,
        below: float = 0,
    ) -> None:
        """Grid lines, ticks and titles of both axes; the x axis stands `below` the end of the y axis."""
        left, right, bottom, top = self.x.start, self.x.end, self.y.start + below, self.y.end
        for value in self.y.ticks():
            y = self.y(value)
            self.parts.append(f'<path class="g" d="M{left:.1f} {y:.1f}H{right:.1f}"/>')
            self.text(left - 6, y + 4, y_text(value), "end")
        for value in self.x.ticks():
            x = self.x(value)
            self.parts.append(f'<path class="a" d="M{x:.1f} {bottom:.1f}v4"/>')
            self.text(x, bottom + 17, x_text(value), "middle")
        self.parts.append(f'<path class="a" d="M{left:.1f} {bottom:.1f}H{right:.1f}"/>')
        self.text((left + right) / 2, bottom + 34, self.x_title, "middle", "t")
        self.text(2, top - 12, self.y_title, "start", "t")

    def level(self, value: float, name: str) -> None:
        """A dotted line at one height, named above its right end."""
        y = self.y(value)
        self.parts.append(f'<path class="l" d="M{self.x.start:.1f} {y:.1f}H{self.x.end:.1f}"/>')
        self.text(self.x.end - 2, y - 6, name, "end", "t")

    def line(self, line: Line) -> None:
        """A line with its gaps."""
        path, pen = "", "M"
        for x, y in line.points:
            if math.isfinite(y):
                path += f"{pen}{self.x(x):.1f} {self.y(y):.1f}"
                pen = "L"
            else:
                pen = "M"
        kind = f"{'s' if line.colour else 'b'} {line.style}".rstrip()
        self.parts.append(f'<path class="{kind}" {_colour(line.colour)} d="{path}"/>')
        if line.colour and len(line.points) == 1 and path:
            self.dot(self.x(line.points[0][0]), self.y(line.points[0][1]), line.colour)

    def bar(self, x: float, low: float, high: float, colour: str) -> None:
        """A vertical bar for an interval, at these positions."""
        self.parts.append(f'<path class="e" {_colour(colour)} d="M{x:.1f} {low:.1f}V{high:.1f}"/>')

    def dot(self, x: float, y: float, colour: str, hollow: bool = False, name: str = "") -> None:
        """A point at this position; a pointer on it shows its name."""
        kind = "o" if hollow else "p"
        circle = f'<circle class="{kind}" {_colour(colour)} cx="{x:.1f}" cy="{y:.1f}" r="4"'
        self.parts.append(f"{circle}><title>{escape(name)}</title></circle>" if name else f"{circle}/>")

    def names(self, lines: Sequence[Line]) -> None:
        """The lines' names at the right, one below the other, each joined to the end of its line."""
        ends = []
        for line in lines:
            finite = [(x, y) for x, y in line.points if math.isfinite(y)]
            if line.name and finite:
                ends.append((self.y(finite[-1][1]), self.x(finite[-1][0]), line))
        ends.sort(key=lambda end: end[0])
        heights = spread([y for y, _, _ in ends], self.y.end, self.y.start)
        for (y, x, line), height in zip(ends, heights, strict=True):
            right = self.x.end
            colour = _colour(line.colour)
            path = f"M{x:.1f} {y:.1f}L{right:.1f} {y:.1f}L{right + 12:.1f} {height:.1f}"
            self.parts.append(f'<path class="n" {colour} d="{path}"/>')
            self.parts.append(f'<path class="s" {colour} d="M{right + 12:.1f} {height:.1f}h10"/>')
            self.text(right + 26, height + 4, line.name, "start")

    def text(self, x: float, y: float, text: str, anchor: str, kind: str = "") -> None:
        """A text; what it says is escaped."""
        attributes = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text{attributes} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def svg(self, description: str) -> str:
        """The whole chart; the description is for those who cannot see it."""
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(description)}">'
            f"{''.join(self.parts)}</svg>"
        )


def spread(heights: Sequence[float], top: float, bottom: float, gap: float = _LABEL_HEIGHT) -> list[float]:
    """Move sorted heights, as little as need be, to be `gap` apart and, if they fit, between top and bottom."""
    placed: list[list[float]] = []  # groups that touch: their wanted heights
    starts: list[float] = []

    def start(group: list[float]) -> float:
        centre = sum(group) / len(group) - (len(group) - 1) * gap / 2
        return max(min(centre, bottom - (len(group) - 1) * gap), top)

    for height in heights:
        placed.append([height])
        starts.append(start(placed[-1]))
        while len(placed) > 1 and starts[-1] < starts[-2] + len(placed[-2]) * gap:
            group = placed.pop()
            starts.pop()
            placed[-1] += group
            starts[-1] = start(placed[-1])
    return [first + i * gap for first, group in zip(starts, placed, strict=True) for i in range(len(group))]


def _colour(colour: str) -> str:
    return f'style="--c:{colour}"' if colour else ""

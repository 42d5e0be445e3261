"""What all figures share: colours, a frame with labelled axes, a key above it, and PNG bytes. Nothing
global is touched."""

import io
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import StrMethodFormatter
from matplotlib.typing import LineStyleType

# Okabe and Ito's colours, which people with any colour vision tell apart; black and yellow are left out.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK, FAINT, GRID = "#1f2328", "#59636e", "#e4e8ec"
DOTS_PER_INCH = 200
MOST_POINTS, MOST_MARKERS = 4000, 50
PLOT = (4.6, 2.6)  # inches inside the axes of a chart
ROOM = 318.0  # points for a title, or for a line of a key
HEADING = FontProperties(size=13, weight="bold")
TITLE, TEXT = FontProperties(size=10, weight="bold"), FontProperties(size=8)
HANDLE, BETWEEN = 20.0, 10.0  # points: what stands before the text of an entry, and between two entries


class Entry(NamedTuple):
    """A line of a key: its text, and how the lines that it explains look."""

    text: str
    colour: str
    style: LineStyleType = "-"
    marker: str = ""
    width: float = 1.6


def colour_of(index: int) -> str:
    """The colour of the run (or line) with this number."""
    return COLOURS[index % len(COLOURS)]


def single() -> tuple[Figure, Axes]:
    """A figure of one chart, readable alone on a phone; `level` makes room around its plot."""
    figure = Figure(figsize=PLOT, dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.add_axes((0, 0, 1, 1))


def level(figures: Iterable[Figure]) -> None:
    """Give figures of one chart the same size and place of the plot, and room for all that stands around."""
    figures = list(figures)
    if not figures:
        return
    left, bottom, right, top = np.max([_around(figure) for figure in figures], axis=0) + 0.06
    width, height = left + PLOT[0] + right, bottom + PLOT[1] + top
    for figure in figures:
        figure.set_size_inches(width, height)
        figure.axes[0].set_position((left / width, bottom / height, PLOT[0] / width, PLOT[1] / height))


def _around(figure: Figure) -> tuple[float, float, float, float]:
    """Inches that title, key, ticks and labels take left of, below, right of and above the plot."""
    figure.draw_without_rendering()
    inner, outer = figure.axes[0].bbox, figure.axes[0].get_tightbbox() or figure.bbox
    sides = (inner.x0 - outer.x0, inner.y0 - outer.y0, outer.x1 - inner.x1, outer.y1 - inner.y1)
    left, bottom, right, top = (max(float(side), 0.0) / figure.dpi for side in sides)
    return left, bottom, right, top


def panels(
    rows: int, columns: int, title: str, size: tuple[float, float] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure of several charts under one title. `size`: in inches, where it is not by their number."""
    layout = ConstrainedLayoutEngine(wspace=0.05, hspace=0.06)
    size = size or (5.0 * columns, 3.5 * rows + 0.4)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    text = plain(fitting(title, 0.98 * 72 * size[0], HEADING))
    figure.suptitle(text, x=0.006, ha="left", fontproperties=HEADING, color=INK)
    return figure, list(np.ravel(figure.subplots(rows, columns)))


def frame(axes: Axes, title: str, x_label: str, y_label: str, entries: Iterable[Entry] = ()) -> None:
    """Title, labels, a quiet grid, and the key between title and plot."""
    entries = list(entries)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=FAINT, labelcolor=INK, labelsize=8, length=3)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(x_label, fontsize=8.5, color=INK)
    axes.set_ylabel(y_label, fontsize=8.5, color=INK)
    axes.margins(x=0.01)
    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if max(limits) >= 1000:
            axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    lines = _key(axes, entries) if entries else 0
    text = plain(fitting(title, ROOM, TITLE))
    axes.set_title(text, loc="left", fontproperties=TITLE, color=INK, pad=8 + 11 * lines)


def _key(axes: Axes, entries: list[Entry]) -> int:
    """Draw the key above the plot; returns how many lines it takes."""
    entries = [entry._replace(text=fitting(entry.text, ROOM - HANDLE)) for entry in entries]
    columns = _key_columns([HANDLE + BETWEEN + width_of(entry.text) for entry in entries])
    handles = [
        Line2D(
            [],
            [],
            color=colour,
            linestyle=style,
            marker=marker,
            linewidth=width,
            markersize=3.5,
            label=plain(text),
        )
        for text, colour, style, marker, width in entries
    ]
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        handlelength=1.6,
        columnspacing=1.2,
        borderaxespad=0.1,
        borderpad=0.1,
        labelspacing=0.3,
    )
    return -(-len(entries) // columns)


def width_of(text: str, font: FontProperties = TEXT) -> float:
    """Points that a text takes."""
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def fitting(text: str, room: float, font: FontProperties = TEXT) -> str:
    """The text, without so much of its middle as takes more than `room` points."""
    for letters in range(len(text), 1, -1):
        tail = letters // 3
        short = text if letters == len(text) else f"{text[: letters - tail]}…{text[len(text) - tail :]}"
        if width_of(short, font) <= room:
            return short
    return text[:1]


def plain(text: str) -> str:
    """A text that is drawn as it is: no formula between dollars, and not hidden for its leading
    underscore."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def _key_columns(widths: list[float]) -> int:
    """The most columns, filled one after the other, that fit beside each other; widths in points."""
    fitting = (
        columns
        for columns in range(len(widths), 1, -1)
        if sum(float(column.max()) for column in np.array_split(widths, columns)) <= ROOM + BETWEEN
    )
    return next(fitting, 1)


def marker_for(count: int) -> str:
    """A dot at every point of a short line."""
    return "o" if count <= MOST_MARKERS else ""


def thin(count: int, most: int = MOST_POINTS) -> np.ndarray:
    """Indices of at most `most` of `count` points, evenly spread, the first and the last among them."""
    return (
        np.arange(count)
        if count <= most
        else np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))
    )


def png(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes every time."""
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None}
    figure.savefig(buffer, format="png", metadata=metadata)
    return buffer.getvalue()

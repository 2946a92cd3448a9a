"""The common parts of all figures: size, fonts and colours, texts that fit, and the bytes of a file.

Every function here and in the other modules imports matplotlib itself: the import takes half a second, and most
programs that read results draw nothing. `pyplot` is never used, because it would keep figures in memory.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from data_pipeline.user_error import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Numbers = npt.NDArray[np.floating[Any]]

Format = Literal["pdf", "svg", "png"]

FORMATS: tuple[Format, ...] = get_args(Format)

COLUMN_IN = 3.5
"""The width of a column of a paper, inches."""

BLACK = "#000000"

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", BLACK, "#F0E442")
"""Okabe & Ito, Color Universal Design (2008), the darker ones first: distinguishable with any colour blindness."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""A marker for each colour, for prints in grey."""

CORRECTED, UNCORRECTED, LABEL = COLOURS[0], COLOURS[1], BLACK

COLOUR_MAP = "viridis"
"""The colour map for numbers: its lightness rises evenly, so it is readable in grey too."""

TEXT_PT = 8.0
SMALL_PT = 7.0
TINY_PT = 6.0

_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],  # included in matplotlib: the same picture on every machine
    "font.size": TEXT_PT,
    "axes.labelsize": TEXT_PT,
    "axes.titlesize": TEXT_PT,
    "xtick.labelsize": SMALL_PT,
    "ytick.labelsize": SMALL_PT,
    "legend.fontsize": SMALL_PT,
    "legend.frameon": False,
    "legend.labelspacing": 0.3,
    "text.parse_math": False,  # names of options may contain a dollar sign
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "lines.dashdot_pattern": [3.0, 1.2, 1.0, 1.2],  # short enough to be visible in a legend
    "hatch.linewidth": 0.5,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,  # TrueType, which journals accept
    "svg.fonttype": "path",  # outlines: an SVG cannot contain a font, and would look different without it
    "svg.hashsalt": "posetune",
}

DOTS_PER_INCH = 300
"""The resolution of a PNG, and of parts of a PDF or SVG that are drawn as pixels because of too many shapes."""

_POINTS_OF_AN_INCH = 72
_LINE = 1.5  # relative to the size of the font


class FigureError(UserError):
    """There is nothing to draw, or too much for a figure."""


@contextmanager
def paper_style() -> Iterator[None]:
    """Sets the style of figures, independently of the user's matplotlibrc, and restores the previous settings.

    It decorates each function that draws. matplotlib's settings belong to the process, so two threads must not draw at
    the same time.
    """
    import matplotlib.style

    with matplotlib.style.context(_STYLE, after_reset=True):
        yield


@paper_style()
def save(figure: "Figure", format: Format, *, dpi: int = DOTS_PER_INCH) -> bytes:
    """Returns a figure as the content of a file: the same bytes for the same figure.

    A PDF contains its TrueType fonts; an SVG contains texts as outlines, with the text itself in a comment.
    """
    dates: dict[Format, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, dpi=dpi, metadata=dates[format])
    return buffer.getvalue()


def new_figure(width_in: float, height_in: float) -> "Figure":
    """Returns an empty figure without a window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in))


def add_legend(figure: "Figure", entries: Sequence[tuple[str, Any]]) -> None:
    """Adds a legend below everything and makes the figure higher by its height."""
    labels = fitting_all([label for label, _ in entries], figure.get_figwidth() * _POINTS_OF_AN_INCH - 40, SMALL_PT)
    columns = 1
    widest = max(text_width(label, SMALL_PT) for label in labels)
    while columns < len(labels) and (columns + 1) * (widest + 34) < figure.get_figwidth() * _POINTS_OF_AN_INCH:
        columns += 1
    figure.legend([drawn for _, drawn in entries], labels, loc="outside lower center", ncols=columns)
    n_lines = -(-len(labels) // columns)
    _heighten(figure, n_lines, SMALL_PT)


def add_note(figure: "Figure", sentences: Iterable[str]) -> None:
    """Adds sentences in small print above everything and makes the figure higher by their height."""
    text = " ".join(sentences)
    if not text:
        return
    lines = _wrapped(text, figure.get_figwidth() * _POINTS_OF_AN_INCH - 8, TINY_PT)
    figure.suptitle("\n".join(lines), x=4 / (figure.get_figwidth() * _POINTS_OF_AN_INCH), ha="left", fontsize=TINY_PT)
    _heighten(figure, len(lines), TINY_PT)


def fitting(text: str, width_pt: float, size_pt: float) -> str:
    """Returns a text on one line, at most `width_pt` wide: if it is too long, its middle is left out.

    Characters that the font does not have become �.
    """
    text = _printable(text)
    if text_width(text, size_pt) <= width_pt:
        return text
    low, high = 0, len(text)  # numbers of characters to keep: `low` fit, `high` do not
    while high - low > 1:
        kept = (low + high) // 2
        low, high = (kept, high) if text_width(_shortened(text, kept), size_pt) <= width_pt else (low, kept)
    return _shortened(text, low)


def fitting_all(texts: Sequence[str], width_pt: float, size_pt: float) -> list[str]:
    """Returns texts that fit, see `fitting`; if some become equal, all are numbered."""
    fitted = [fitting(text, width_pt, size_pt) for text in texts]
    if len(set(fitted)) == len(set(texts)):
        return fitted
    return [fitting(f"{n}: {text}", width_pt, size_pt) for n, text in enumerate(texts, 1)]


def text_width(text: str, size_pt: float) -> float:
    """Returns the width of a line of text, in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size_pt)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width)


def n_text(n: int, n_planned: int | None) -> str:
    """Returns the number of repetitions: 'n = 3', or 'n = 2 of 3' if more were planned."""
    return f"n = {n}" if n_planned is None or n >= n_planned else f"n = {n} of {n_planned}"


def _heighten(figure: "Figure", n_lines: int, size_pt: float) -> None:
    figure.set_figheight(figure.get_figheight() + (n_lines * size_pt * _LINE + 4) / _POINTS_OF_AN_INCH)


def _wrapped(text: str, width_pt: float, size_pt: float) -> list[str]:
    lines: list[str] = []
    for word in _printable(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size_pt) <= width_pt:
            lines[-1] = longer
        else:
            lines.append(fitting(word, width_pt, size_pt))
    return lines


def _shortened(text: str, kept: int) -> str:
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


def _printable(text: str) -> str:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(character if ord(character) in known else "�" for character in " ".join(text.split()))

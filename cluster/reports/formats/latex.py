r"""A table as LaTeX, in the packages booktabs and multirow, for any engine and any encoding: all of it is ASCII.

\usepackage{booktabs,multirow}
\input{tables/my_sweep.tex}

On a page with one column, a table with more rows than fit on it is a `longtable`, from the package of this name.
LaTeX cannot break a table of a page with two columns.
"""

import re
from collections.abc import Sequence
from typing import Literal

from cluster.reports.formats.grid import Cell, Grid
from cluster.reports.formats.latex_escape import breakable, escaped
from cluster.results.names import ChoiceError

Fit = Literal["page", "column", "columns"]
"""The place of a table: a page with one column, or one or both columns of a page with two."""

Size = Literal["normalsize", "small", "footnotesize", "scriptsize"]
"""The size of a table's font, as LaTeX names it."""

_LINE: dict[Size, int] = {"normalsize": 90, "small": 100, "footnotesize": 110, "scriptsize": 125}
"""The number of characters in a line of a table that is as wide as a page."""

_COLUMN = 0.49
"""The width of a column of a page with two, relative to the page: about 84 mm, as in IEEE's and CVPR's papers."""

_LONG_LABEL = 1 / 3
"""Labels longer than this part of a line of normal size are broken if a table is too wide."""

_NARROWEST_LABEL = 0.15
"""The smallest width of a broken label, relative to a line."""

_PAGE_HEIGHT = 40
"""The number of rows on a page."""

_NUMBER = re.compile(r"[-+]?\d[\d.]*(e[-+]?\d+)?( ± [\d.]+)?( \[[-+\d., ]+\])?( \(.*\))?")
_UNIT = re.compile(r" (?=\([^()]*\)(?: [↓↑])?$)")
"""The space before the unit in a header."""

_POWER = re.compile(r"(?P<factor>[-+]?[\d.]+)e(?P<exponent>[+-]\d+)")
"""How Python writes a number that is very large or very small."""


def latex(grid: Grid, *, standalone: bool, fit: Fit = "page", size: Size | None = None) -> str:
    """Returns a table as a `table`, `table*` or `longtable` environment, or as a whole document.

    Its second table is an environment of its own.

    Args:
        grid: The table.
        standalone: Whether to return a whole document.
        fit: Where the table must fit.
        size: The size of its font; None for the largest of `normalsize`, `footnotesize` and `scriptsize` that fits.

    Raises:
        ChoiceError: If the table has more rows than a page with two columns.
    """
    grids = [grid] if grid.below is None else [grid, grid.below]
    lines = [line for one in grids for line in _environment(one, fit, size)]
    packages = "booktabs,multirow" + ",longtable" * any(map(_is_long, grids))
    if not standalone:
        lines = [f"% Needs \\usepackage{{{packages}}}", *lines]
    else:
        lines = [
            f"\\documentclass{'' if fit == 'page' else '[twocolumn]'}{{article}}",
            "\\usepackage[margin=2cm]{geometry}",
            f"\\usepackage{{{packages}}}",
            "\\pagestyle{empty}",
            "\\begin{document}",
            *lines,
            "\\end{document}",
        ]
    return "\n".join(lines) + "\n"


def _is_long(grid: Grid) -> bool:
    return len(grid.rows) > _PAGE_HEIGHT


def _environment(grid: Grid, fit: Fit, size: Size | None) -> list[str]:
    is_long = _is_long(grid)
    if is_long and fit != "page":
        raise ChoiceError(
            f"LaTeX cannot break a table on a page with two columns, and {len(grid.rows)} rows do not fit on one page; "
            f"show at most {_PAGE_HEIGHT} (such as --best {_PAGE_HEIGHT}), or leave out --fit"
        )
    size = size or _size_that_fits(grid, fit)
    columns = _columns(grid, fit, size)
    lines = _long_table(grid, columns, size) if is_long else _table(grid, columns, fit, size)
    if not _fits(grid, fit, size):
        lines.insert(0, "% It may be too wide: try fewer columns, a smaller size, or another fit.")
    return lines


def _table(grid: Grid, columns: Sequence[str], fit: Fit, size: Size) -> list[str]:
    # `table*` is as wide as the page. It cannot be placed here or at the bottom.
    name, places = ("table*", "tp") if fit == "columns" else ("table", "htbp")
    return [
        f"\\begin{{{name}}}[{places}]",
        "  \\centering",
        "  \\setlength{\\belowcaptionskip}{6pt}",
        f"  \\caption{{{escaped(grid.caption)}}}",
        f"  \\label{{tab:{_label(grid.name)}}}",
        *_font(size),
        *(["  \\setlength{\\tabcolsep}{4pt}"] if fit == "column" else []),
        "  \\renewcommand{\\arraystretch}{1.15}",
        f"  \\begin{{tabular}}{{{''.join(columns)}}}",
        *_head(grid, columns, fit),
        *_body(grid, columns),
        "    \\bottomrule",
        "  \\end{tabular}",
        # A separate paragraph below the table, as wide as the text.
        *([f"  \\par\\smallskip{{\\footnotesize {_notes(grid)}\\par}}"] if grid.notes else []),
        f"\\end{{{name}}}",
    ]


def _long_table(grid: Grid, columns: Sequence[str], size: Size) -> list[str]:
    return [
        "\\begingroup",
        *_font(size),
        "  \\setlength{\\LTcapwidth}{\\linewidth}",
        "  \\renewcommand{\\arraystretch}{1.15}",
        f"  \\begin{{longtable}}{{{''.join(columns)}}}",
        f"    \\caption{{{escaped(grid.caption)}}}\\label{{tab:{_label(grid.name)}}} \\\\",
        *_head(grid, columns, "page"),
        "    \\endfirsthead",
        *_head(grid, columns, "page"),
        "    \\endhead",
        "    \\bottomrule",
        "    \\endfoot",
        *_body(grid, columns),
        "  \\end{longtable}",
        *([f"  \\noindent{{\\footnotesize {_notes(grid)}\\par}}"] if grid.notes else []),
        "\\endgroup",
    ]


def _size_that_fits(grid: Grid, fit: Fit) -> Size:
    """Returns the largest size; labels are broken only if the normal size is too large."""
    if sum(_widths(grid, fit)) <= _line(fit, "normalsize"):
        return "normalsize"
    return "footnotesize" if _fits(grid, fit, "footnotesize") else "scriptsize"


def _columns(grid: Grid, fit: Fit, size: Size) -> list[str]:
    """The type of each column: 'l' or 'r', or a paragraph of fixed width if labels are too long for a line."""
    are_broken, share = _broken_labels(grid, fit, size)
    broken = f"p{{{max(_NARROWEST_LABEL, share):.2f}\\linewidth}}"
    return [broken if is_so else c for c, is_so in zip(grid.alignments, are_broken, strict=True)]


def _fits(grid: Grid, fit: Fit, size: Size) -> bool:
    are_broken, share = _broken_labels(grid, fit, size)
    return share >= _NARROWEST_LABEL if any(are_broken) else sum(_widths(grid, fit)) <= _line(fit, size)


def _broken_labels(grid: Grid, fit: Fit, size: Size) -> tuple[list[bool], float]:
    """Returns which columns have labels that must be broken, and the part of a line that is left for each of them."""
    widths, line = _widths(grid, fit), _line(fit, size)
    longest = _LONG_LABEL * _line(fit, "normalsize")
    are_long = [i < grid.n_labels and width > longest for i, width in enumerate(widths)]
    if sum(widths) <= line or not any(are_long):
        return [False] * len(widths), 0.0
    others = sum(width for width, is_long in zip(widths, are_long, strict=True) if not is_long)
    return are_long, (0.97 - others / line) / sum(are_long)


def _font(size: Size) -> list[str]:
    return [] if size == "normalsize" else [f"  \\{size}"]


def _line(fit: Fit, size: Size) -> float:
    """The number of characters in a line."""
    return _LINE[size] * (_COLUMN if fit == "column" else 1)


def _widths(grid: Grid, fit: Fit) -> list[int]:
    """The width of each column in characters, including the space between two columns."""
    headers = [max(map(len, lines)) for lines in _header_lines(grid, fit)]
    return [max([width, *(len(row[i].text) for row in grid.rows)]) + 2 for i, width in enumerate(headers)]


def _header_lines(grid: Grid, fit: Fit) -> list[list[str]]:
    """Returns the lines of each header: in a column of a page with two, the unit has its own."""
    return [_UNIT.split(header, 1) if fit == "column" else [header] for header in grid.headers]


def _head(grid: Grid, columns: Sequence[str], fit: Fit) -> list[str]:
    lines, start = ["    \\toprule"], 1
    headers = [_header(*of_column) for of_column in zip(_header_lines(grid, fit), columns, strict=True)]
    if grid.spans:
        titles, rules = "", []
        for title, n in grid.spans:
            titles += f"\\multicolumn{{{n}}}{{c}}{{{escaped(title)}}} & " if title else "& " * n
            if title:
                rules.append(f"    \\cmidrule(lr){{{start}-{start + n - 1}}}")
                # The headers may be values of an option.
                headers[start - 1 : start + n - 1] = map(_value, grid.headers[start - 1 : start + n - 1])
            start += n
        lines += [f"    {titles.removesuffix('& ')}\\\\", *rules]
    return [*lines, f"    {' & '.join(headers)} \\\\", "    \\midrule"]


def _header(lines: Sequence[str], column: str) -> str:
    """Returns a header whose last line is on the row's line."""
    if column not in "lr":
        return f"\\parbox[b]{{\\hsize}}{{\\raggedright {breakable(' '.join(lines))}}}"
    rows = " \\\\ ".join(map(escaped, lines))
    return rows if len(lines) == 1 else f"\\begin{{tabular}}[b]{{@{{}}r@{{}}}}{rows}\\end{{tabular}}"


def _body(grid: Grid, columns: Sequence[str]) -> list[str]:
    lines, rows = [], iter(grid.rows)
    are_grouped = len(grid.groups) < len(grid.rows)
    for i, n in enumerate(grid.groups):
        if i and are_grouped:
            lines.append("    \\midrule")
        for j in range(n):
            first, *others = (_cell(cell, column) for cell, column in zip(next(rows), columns, strict=True))
            if n > 1 and j:
                first = ""
            elif n > 1 and columns[0] == "l":  # a broken label makes its own row higher
                first = f"\\multirow[t]{{{n}}}{{*}}{{{first}}}"
            lines.append(f"    {' & '.join([first, *others])} \\\\")
    return lines


def _notes(grid: Grid) -> str:
    return escaped(" ".join(grid.notes))


def _cell(cell: Cell, column: str) -> str:
    if column not in "lr":
        # \raggedright redefines the end of a line, which would not end a row.
        text = _value(cell.text) if cell.is_number else breakable(cell.text)
        return f"\\raggedright\\let\\\\\\tabularnewline {text}"
    text = _value(cell.text) if cell.is_number else escaped(cell.text)
    if cell.mark == "best":
        return f"{{\\boldmath\\bfseries {text}}}"
    return f"\\underline{{{text}}}" if cell.mark == "second" else text


def _value(text: str) -> str:
    return _number(text) if _NUMBER.fullmatch(text) else escaped(text)


def _number(text: str) -> str:
    number, bracket, aside = text.partition(" (")
    power = _POWER.fullmatch(number)
    if power is not None:
        factor = "" if power["factor"] == "1" else f"{power['factor']} \\cdot "
        number = f"{factor}10^{{{int(power['exponent'])}}}"
    number = number.replace("±", "\\pm").replace(" [", "\\ [")
    return f"${number}${'~' * bool(bracket)}{escaped(bracket + aside)}"


def _label(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "results"

r"""A table as LaTeX, in the packages booktabs and multirow, for any engine and any encoding: all of it is ASCII.

\usepackage{booktabs,multirow}
\input{tables/my_sweep.tex}

A table with more rows than fit on a page is a `longtable`, from the package of this name.
"""

import re
from collections.abc import Sequence

from cluster.reports.formats.grid import Cell, Grid
from cluster.reports.formats.latex_escape import breakable, escaped

_PAGE_WIDTH = 90
"""The number of characters in a line of a table that is as wide as a page."""

_SMALL_PAGE_WIDTH = 110
"""The same in small print."""

_MAX_LABEL = 30
"""Longer labels are broken if a table is too wide."""

_PAGE_HEIGHT = 40
"""The number of rows on a page."""

_NUMBER = re.compile(r"[-+]?\d[\d.]*(e[-+]?\d+)?( ± [\d.]+)?( \[[-+\d., ]+\])?( \(.*\))?")
_POWER = re.compile(r"(?P<factor>[-+]?[\d.]+)e(?P<exponent>[+-]\d+)")
"""How Python writes a number that is very large or very small."""


def latex(grid: Grid, *, standalone: bool) -> str:
    """Returns a table as a `table` or `longtable` environment, or as a whole document."""
    is_long = len(grid.rows) > _PAGE_HEIGHT
    packages = "booktabs,multirow" + ",longtable" * is_long
    lines = _long_table(grid) if is_long else _table(grid)
    if not standalone:
        lines = [f"% Needs \\usepackage{{{packages}}}", *lines]
    else:
        lines = [
            "\\documentclass{article}",
            "\\usepackage[margin=2cm]{geometry}",
            f"\\usepackage{{{packages}}}",
            "\\pagestyle{empty}",
            "\\begin{document}",
            *lines,
            "\\end{document}",
        ]
    return "\n".join(lines) + "\n"


def _table(grid: Grid) -> list[str]:
    columns = _columns(grid)
    return [
        "\\begin{table}[htbp]",
        "  \\centering",
        "  \\setlength{\\belowcaptionskip}{6pt}",
        f"  \\caption{{{escaped(grid.caption)}}}",
        f"  \\label{{tab:{_label(grid.name)}}}",
        *(["  \\footnotesize"] if _is_wide(grid) else []),
        "  \\renewcommand{\\arraystretch}{1.15}",
        f"  \\begin{{tabular}}{{{''.join(columns)}}}",
        *_head(grid),
        *_body(grid, columns),
        "    \\bottomrule",
        "  \\end{tabular}",
        # A separate paragraph below the table, as wide as the text.
        *([f"  \\par\\smallskip{{\\footnotesize {_notes(grid)}\\par}}"] if grid.notes else []),
        "\\end{table}",
    ]


def _long_table(grid: Grid) -> list[str]:
    columns = _columns(grid)
    return [
        "\\begingroup",
        *(["  \\footnotesize"] if _is_wide(grid) else []),
        "  \\setlength{\\LTcapwidth}{\\linewidth}",
        "  \\renewcommand{\\arraystretch}{1.15}",
        f"  \\begin{{longtable}}{{{''.join(columns)}}}",
        f"    \\caption{{{escaped(grid.caption)}}}\\label{{tab:{_label(grid.name)}}} \\\\",
        *_head(grid),
        "    \\endfirsthead",
        *_head(grid),
        "    \\endhead",
        "    \\bottomrule",
        "    \\endfoot",
        *_body(grid, columns),
        "  \\end{longtable}",
        *([f"  \\noindent{{\\footnotesize {_notes(grid)}\\par}}"] if grid.notes else []),
        "\\endgroup",
    ]


def _columns(grid: Grid) -> list[str]:
    """The type of each column: 'l' or 'r', or a paragraph of fixed width if labels are too long for the page."""
    widths, columns = _widths(grid), list(grid.alignments)
    is_long = [i < grid.n_labels and width > _MAX_LABEL for i, width in enumerate(widths)]
    if sum(widths) <= _SMALL_PAGE_WIDTH or not any(is_long):
        return columns
    others = sum(width for width, is_so in zip(widths, is_long, strict=True) if not is_so)
    share = max(0.15, (0.97 - others / _SMALL_PAGE_WIDTH) / sum(is_long))
    return [f"p{{{share:.2f}\\linewidth}}" if is_so else c for c, is_so in zip(columns, is_long, strict=True)]


def _is_wide(grid: Grid) -> bool:
    return sum(_widths(grid)) > _PAGE_WIDTH


def _widths(grid: Grid) -> list[int]:
    """The width of each column in characters, including the space between two columns."""
    return [max(len(header), *(len(row[i].text) for row in grid.rows)) + 2 for i, header in enumerate(grid.headers)]


def _head(grid: Grid) -> list[str]:
    lines, start = ["    \\toprule"], 1
    headers = list(map(escaped, grid.headers))
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
        return f"\\raggedright\\let\\\\\\tabularnewline {breakable(cell.text)}"
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

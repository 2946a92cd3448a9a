"""Tables as a workbook for Excel and LibreOffice."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from cluster.results.rows import Row

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""The first characters of texts that a spreadsheet may take for a formula."""

Style = Literal["plain", "decimals", "share"]
"""How a workbook shows numbers: as they are, with some decimals, or a share in %."""

_MAX_TEXT = 32_767  # characters in a cell
_MAX_EXACT = 10**15  # programs show 15 digits of a number
_MAX_WIDTH = 50
_N_MEASURED = 100  # rows that determine the width of a column
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # in XML


class Sheet(NamedTuple):
    """A sheet of a workbook.

    Attributes:
        name: The text on its tab.
        rows: Its rows, all with the same columns.
        styles: How the numbers of some columns are shown; other numbers are shown as they are.
    """

    name: str
    rows: Sequence[Row]
    styles: Mapping[str, Style]


def workbook(sheets: Sequence[Sheet], precision: int) -> bytes:
    """Returns a workbook: numbers are numbers with 16 digits, shown with some decimals; texts are texts.

    A text never becomes a formula, not even when someone edits its cell. An integer with more digits than a spreadsheet
    keeps, such as a seed, is a text.
    """
    import xlsxwriter  # not at the top: the other formats do without it

    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer, {"in_memory": True}) as book:
        decimals = f"0.{'0' * precision}" if precision else "0"
        bold = book.add_format({"bold": True, "bottom": 1, "quote_prefix": True})
        quoted = book.add_format({"quote_prefix": True})
        formats = {
            "decimals": book.add_format({"num_format": decimals}),
            "share": book.add_format({"num_format": f"{decimals}%"}),
        }
        for name, rows, styles in sheets:
            sheet = book.add_worksheet(name)
            columns = list(rows[0])
            sheet.freeze_panes(1, 0)
            for i, column in enumerate(columns):
                sheet.write_string(0, i, _text(column), bold)
                shown = [len(column), *(len(_shown(row[column], styles.get(column))) for row in rows[:_N_MEASURED])]
                sheet.set_column(i, i, min(_MAX_WIDTH, max(shown) + 2))
                style = formats.get(styles.get(column, "plain"))
                for j, row in enumerate(rows, 1):
                    _write(sheet, j, i, row[column], style, quoted)
            sheet.autofilter(0, 0, len(rows), len(columns) - 1)
    return buffer.getvalue()


def _write(sheet: Any, row: int, column: int, value: Any, style: Any, quoted: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool):
        sheet.write_boolean(row, column, value)
    elif isinstance(value, int | float) and not _is_long(value) and math.isfinite(value):
        sheet.write_number(row, column, value, style)
    else:
        text = _text(str(value))
        sheet.write_string(row, column, text, quoted if text.startswith(FORMULA_STARTS) else None)


def _is_long(value: Any) -> bool:
    return isinstance(value, int) and abs(value) >= _MAX_EXACT


def _text(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)[:_MAX_TEXT]


def _shown(value: Any, style: Style | None) -> str:
    return "" if value is None else f"{value:.2f}" if style and isinstance(value, float) else str(value)

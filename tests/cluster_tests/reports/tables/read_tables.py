"""Reads tables that were written for people, with code that is independent of the code that wrote them."""

import re
from html.parser import HTMLParser


def markdown_rows(text):
    """Returns the cells of each row of the only table in GitHub's Markdown, header first, as they are displayed."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.findall(r"\|((?:\\.|[^|\\])*)(?=\|)", line)] for line in lines]
    assert set("".join(rows[1])) <= set(":-")
    return [[unescaped(cell) for cell in row] for row in (rows[0], *rows[2:])]


def unescaped(text):
    """Returns the displayed text of Markdown with escapes; bold and similar marks stay as they are."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)


class HtmlTable(HTMLParser):
    """A table of HTML.

    Attributes:
        caption: Its caption.
        head: The texts of the last row of its header.
        rows: The texts of each row of its bodies; a cell that spans several rows is in each of them.
        marked: The texts in marking elements, by the element's name.
        foot: The text below it.
    """

    def __init__(self, text):
        super().__init__()
        self.caption, self.foot, self.marked = "", "", {"strong": [], "u": []}
        self._open, self._lines = [], {"thead": [], "tbody": [], "tfoot": []}
        self.feed(text)
        self.close()
        assert not self._open
        self.head = [cell["text"] for cell in self._lines["thead"][-1]]
        self.rows, spans = [], {}
        for line in self._lines["tbody"]:
            left, row = iter(line), []
            while len(row) < len(self.head):
                n_more, text = spans.get(len(row), (0, ""))
                if not n_more:
                    cell = next(left)
                    n_more, text = int(cell["rowspan"]), cell["text"]
                spans[len(row)] = n_more - 1, text
                row.append(text)
            assert not list(left)
            self.rows.append(row)
        assert not any(n_more for n_more, _ in spans.values())

    def handle_starttag(self, tag, attrs):
        self._open.append(tag)
        if tag == "tr":
            self._lines[self._open[-2]].append([])
        elif tag in ("th", "td"):
            self._lines[self._open[-3]][-1].append({"rowspan": 1, "text": "", **dict(attrs)})

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "caption" in self._open:
            self.caption += data
        elif "tfoot" in self._open:
            self.foot += data
        elif "td" in self._open or "th" in self._open:
            self._lines[self._open[1]][-1][-1]["text"] += data
        if self._open and self._open[-1] in self.marked:
            self.marked[self._open[-1]].append(data)

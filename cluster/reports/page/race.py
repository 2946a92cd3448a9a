"""The section on a race: how far each combination got, which ones stayed at each rung, and what the race cost."""

from collections.abc import Iterator, Sequence

import numpy as np

from cluster.reports.formats.grid import Cell, Grid
from cluster.reports.formats.html import Markup, tag
from cluster.reports.formats.html_table import html_table
from cluster.reports.page.charts import Axis, Chart, figure, key, within_fence
from cluster.reports.page.data import MAX_DATA_GROUPS, PageData
from cluster.reports.page.sections import scrolling, section
from cluster.reports.page.sentences import name_of
from cluster.results.choice.race_course import Piece, RaceCourse, RungOutcome, race_courses
from cluster.results.statistics import Array
from data_pipeline.words import count, listed

_MAX_DROPPED = 200
_MAX_STAYING = 40
"""More curves could not be distinguished, and would make the page large."""

_TOP = 30
_CAPTION = "Combinations at each rung."
_COLUMNS = (
    "“Only close”: not among the best, but so close to the first that the difference may be noise. “Epochs so far”: "
    "what the race takes up to the rung, in all repetitions. “Best”: the lowest mean validation error so far. Rank "
    "correlation (Spearman): 1 if combinations are in the same order at the next rung, 0 if the two orders are "
    "unrelated; in brackets, how many combinations it covers. It covers only those that stayed. They are similar, so "
    "it is lower than it would be over all, and a low value does not mean that the wrong ones were dropped."
)


def race(data: PageData) -> list[Markup]:
    """Returns the section; empty if no race has decided anything."""
    courses = race_courses(data.table, data.logged.curves)
    if not courses:
        return []
    parts: list[Markup] = []
    for number, course in enumerate(courses[:MAX_DATA_GROUPS]):
        if len(courses) > 1:
            parts.append(tag("h3", _title(course)))
        parts += _course(data, course, explained=number > 0)
    if len(courses) > MAX_DATA_GROUPS:
        parts.append(tag("p", f"And {count(len(courses) - MAX_DATA_GROUPS, 'other race')}, all in race/."))
    return [section("race", "The race", *parts)]


def _title(course: RaceCourse) -> str:
    first = course.decisions[0]
    size = "" if first.size is None else f" (first {first.size:,})"
    return f"{first.data}{size}{f', bracket {first.bracket + 1}' if first.bracket else ''}"


def _course(data: PageData, course: RaceCourse, *, explained: bool) -> Iterator[Markup]:
    yield tag("p", " ".join(_words(course)))
    if any(np.isfinite(rung.best_mm) for rung in course.rungs):
        yield _Picture(data, course).drawn()
    rows = [*map(_row, course.rungs), *_end(course)]
    headers = ["epoch", "combinations", "repetitions", "stayed", "only close", "diverged", "epochs so far", "best, mm"]
    headers.append("rank correlation")
    caption = _CAPTION if explained else f"{_CAPTION} {_COLUMNS}"
    yield scrolling(html_table(Grid("race", caption, headers, rows, n_labels=1)), "Rungs of the race")


def _words(course: RaceCourse) -> Iterator[str]:
    n, n_grid = course.n_epochs, course.n_epochs_of_grid
    stayed = f"{len(course.staying):,} of {count(len(course.last), 'combination')}"
    if course.guests:
        stayed += f", {len(course.guests & course.last.keys()):,} of them finalists of earlier brackets,"
    share = f"{n:,} of the {n_grid:,} epochs that training all would take ({100 * n / max(1, n_grid):.0f} %)"
    if course.is_decided:
        yield f"{stayed} stayed to the end. Counting each of the others up to its last rung, the race takes {share}."
    else:
        epoch = course.rungs[-1].epochs[1]
        yield f"{stayed} continue after epoch {epoch:,}; the race is still open. If these all stay, it takes {share}."
    if course.completed:
        dropped = count(len(course.completed), "dropped combination")
        yield f"{dropped} trained to the end without the race, before or after it."
    if course.n_epochs_to_confirm and course.is_decided:
        yield f"The fresh repetitions that confirm its finalists take {course.n_epochs_to_confirm:,} more."
    if course.n_epochs_in_vain:
        yield (
            f"Dropped combinations were trained for {course.n_epochs_in_vain:,} epochs beyond that, in vain: ahead of "
            "a decision, or before the race."
        )


def _row(rung: RungOutcome) -> list[Cell]:
    texts = [
        _range(rung.epochs),
        *(f"{n:,}" for n in (rung.n, rung.n_repetitions, rung.n_stay, rung.n_close, rung.n_diverged, rung.n_epochs)),
        f"{rung.best_mm:.2f}" if np.isfinite(rung.best_mm) else "–",
        "–" if rung.correlation is None else f"{rung.correlation:.2f} ({rung.n_correlated:,})".replace("-", "−"),
    ]
    return [Cell(text, is_number=True) for text in texts]


def _end(course: RaceCourse) -> Iterator[list[Cell]]:
    """Yields the row of the finalists once all of them are trained."""
    errors = [mm for key in course.staying if (mm := course.at_the_end(key)) is not None]
    if not course.is_decided or not errors or len(errors) < len(course.staying):
        return
    epochs = [course.last[key].num_epochs for key in course.staying]
    texts = [_range(epochs), f"{len(errors):,}", f"{course.n_repetitions:,}"]
    texts += ["–", "–", "–", f"{course.n_epochs:,}", f"{min(errors):.2f}", "–"]
    yield [Cell(text, is_number=True) for text in texts]


def _range(epochs: Sequence[int]) -> str:
    return "–".join(f"{epoch:,}" for epoch in sorted({min(epochs), max(epochs)}))


class _Picture:
    """The course of each combination of a bracket, as a curve."""

    def __init__(self, data: PageData, course: RaceCourse) -> None:
        self.course = course
        self.names = {row["key"]: name_of(data.table, row) for row in data.table.summary if row["key"] in course.last}
        stay = [row["key"] for row in data.table.ranked if row["key"] in set(course.staying)]
        dropped = [key for key, competitor in course.last.items() if not competitor.stays]
        places = np.unique(np.linspace(0, len(dropped) - 1, min(len(dropped), _MAX_DROPPED)).round().astype(int))
        self.staying, self.n_staying = stay[:_MAX_STAYING], len(stay)
        self.dropped, self.n_dropped = [dropped[place] for place in places], len(dropped)
        self.pieces = {key: course.pieces(key) for key in (*self.dropped, *self.staying)}
        self.chart = Chart(self._x_axis(), self._y_axis(), _TOP)

    def drawn(self) -> Markup:
        """Returns the picture with its caption."""
        first, *others = self.staying or [""]
        rungs = [
            self.chart.rule(self._rung_x(place), f"{rung.n_stay:,}") for place, rung in enumerate(self.course.rungs)
        ]
        curves = [self._curve(key, "dropped") for key in reversed(self.dropped)]
        curves += [self._curve(key, "finalist") for key in reversed(others)]
        curves += [self._curve(first, "best")] if first else []
        title = f"Best validation error so far of {count(len(self.pieces), 'combination')}, as far as each was trained."
        return figure(self.chart.drawn(title, *rungs, *curves), *self._caption(first))

    def _caption(self, first: str) -> Iterator[str]:
        course = self.course
        yield "The best validation error so far, mean over repetitions. Above each rung: how many combinations stayed. "
        if first:
            yield key("best", self.names[first])
            yield ", "
            yield key("finalist", "others trained to the end" if course.is_decided else "others still in the race")
            yield ", "
        yield key("dropped", "dropped where its curve ends")
        if any(rung.n_close for rung in course.rungs):
            yield ", "
            yield key("before", "stayed only because it was close to the best")
        if any(rung.n_diverged for rung in course.rungs):
            yield ", "
            yield key("cross", "diverged")
        yield ". Point at the end of a curve to see its options and the reason."
        yield from self._left_out()
        yield from self._breaks()
        if any(piece.best_mm.max() > self.chart.y.high for pieces in self.pieces.values() for piece in pieces):
            yield " Errors above the chart are drawn at its edge."

    def _left_out(self) -> Iterator[str]:
        left_out = []
        if len(self.dropped) < self.n_dropped:
            left_out.append(f"{len(self.dropped):,} of {self.n_dropped:,} dropped combinations (evenly over all ranks)")
        if len(self.staying) < self.n_staying:
            left_out.append(f"the best {len(self.staying):,} of {self.n_staying:,} others")
        if left_out:
            yield f" The chart shows only {listed(left_out)}."
        if self.course.results.folds:
            yield " Lines between rungs are straight, because the error of a race over folds is known only at rungs."

    def _breaks(self) -> Iterator[str]:
        rungs, decision = self.course.rungs, self.course.decisions[0]
        n_first, n_later = rungs[0].n_repetitions, decision.n_repetitions
        if n_first != n_later:
            yield (
                f" Means are over {count(n_first, 'repetition')} up to the first rung, and over {n_later} from there: "
                "curves break there, and their parts cannot be compared."
            )

    def _x(self, epochs: Array | float, num_epochs: Array | float) -> Array:
        """Returns the positions of epochs, for combinations with these numbers of epochs."""
        share = 1.0 if self.course.have_equal_epochs else 100 / np.maximum(1, num_epochs)
        return np.asarray(np.maximum(epochs, 0.5) * share)

    def _rung_x(self, place: int) -> float:
        of = [(competitor.epoch, competitor.num_epochs) for competitor in self.course.decisions[place].combinations]
        return float(np.median(self._x(*np.array(of, dtype=np.float64).T)))

    def _x_axis(self) -> Axis:
        ends = np.array([competitor.num_epochs for competitor in self.course.decisions[0].combinations])
        starts = [
            float(self._x(pieces[0].epochs[0], self.course.last[key].num_epochs))
            for key, pieces in self.pieces.items()
            if pieces
        ]
        rungs = [self._rung_x(place) for place in range(len(self.course.rungs))]
        high = float(self._x(ends, ends).max())
        low = min([*starts, *rungs, high / 2])
        texts = {x: f"{x:,.3g}" for x in (*rungs, high)}
        if low < 0.7 * rungs[0]:
            texts[low] = f"{low:,.3g}"
        title = "epochs" if self.course.have_equal_epochs else "epochs, % of each combination’s own"
        return Axis.around(title, np.array([low, high]), is_log=True)._replace(texts=texts)

    def _y_axis(self) -> Axis:
        values = [c.mean_mm for decision in self.course.decisions for c in decision.combinations]
        values += [mm for key in self.staying if (mm := self.course.at_the_end(key)) is not None]
        return Axis.around("best validation error so far, mm", within_fence(np.array(values)))

    def _curve(self, combination: str, kind: str) -> Markup:
        """Returns the curve of a combination and the marks on it, with a text that appears under the pointer."""
        course, chart = self.course, self.chart
        last = course.last[combination]
        lines = []
        for piece in _joined(self.pieces[combination]):
            xs, ys = self._x(piece.epochs, last.num_epochs), piece.best_mm
            # The error only falls. Errors above the chart would be a level line at its edge.
            start = max(0, int((ys > chart.y.high).sum()) - 1)
            lines.append(chart.line(xs[start:], ys[start:], "line"))
        marks = [
            chart.mark(float(self._x(c.epoch, c.num_epochs)), c.mean_mm, "before", r=4)
            for c in course.competitors(combination)
            if c.reason == "close to the best"
        ]
        end = course.at_the_end(combination) if last.stays else last.mean_mm
        x = float(self._x(last.num_epochs if last.stays else last.epoch, last.num_epochs))
        if last.reason == "diverged":
            marks.append(chart.crosses(np.array([x]), "cross"))
        elif end is not None:
            marks.append(chart.mark(x, end, "end", r=3))
        return tag("g", tag("title", self._text(combination)), *lines, *marks, class_=kind)

    def _text(self, combination: str) -> str:
        course = self.course
        last = course.last[combination]
        end = course.at_the_end(combination)
        if last.reason == "diverged":
            words = f"dropped at epoch {last.epoch:,}: it diverged"
        elif not last.stays:
            words = f"dropped at epoch {last.epoch:,} with {last.mean_mm:.2f} mm: it was behind"
        elif end is None and course.has_diverged(combination):
            words = f"diverged after epoch {last.epoch:,}, where it had {last.mean_mm:.2f} mm"
        elif end is None:
            words = f"continues after epoch {last.epoch:,} with {last.mean_mm:.2f} mm"
        else:
            words = f"trained to the end, {end:.2f} mm"
        close = [f"{c.epoch:,}" for c in course.competitors(combination) if c.reason == "close to the best"]
        also = f"; at epoch {listed(close)} it stayed only because it was close to the best" if close else ""
        return f"{self.names[combination]}: {words}{also}"


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Joins successive pieces that are means over the same repetitions."""
    found: list[Piece] = []
    for piece in pieces:
        if found and found[-1].n_repetitions == piece.n_repetitions:
            before = found.pop()
            epochs, best = (np.append(before[i], piece[i]) for i in (0, 1))
            piece = Piece(epochs, best, piece.n_repetitions)
        found.append(piece)
    return found

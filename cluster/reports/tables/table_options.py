"""The options of a table, and the errors if they contradict each other."""

from dataclasses import dataclass

from cluster.reports.formats.latex import Fit, Size
from cluster.results.names import ChoiceError, named
from cluster.results.rows import METRICS


@dataclass(frozen=True)
class TableOptions:
    """What a table shows. Options may be named by their last parts: 'lr' for 'optimizer_args.lr'.

    Attributes:
        columns: The columns in order; empty for the default of the format. They can be options; 'n', 'failed',
            'diverged' and 'key'; 'before', 'after', 'change' and 'change_percent' of the metric; with folds, 'folds'
            for the spread over them; and numbers in the trials' table, such as 'test_max_distance_mm' or
            'train_seconds'. Tables of trials also have the numbers of single subsets, such as 'test_distance_mm[A]'.
        sort: The column to sort by, with '-' in front from high to low; None for the best in validation first.
        best: The number of combinations to show, best in validation; None for all.
        best_for_each: An option: only the best combination for each of its values is shown; None for all.
        precision: Decimals of the numbers that are rounded for reading.
        metric: The metric of 'before', 'after' and 'change'.
        split: 'val' or 'test'; None for the test set if there is one.
        trials: Whether there is a row for each trial instead of each combination.
        rows: The option of the rows of a pivot table; None for no pivot table.
        columns_of: The option of its columns.
        standalone: Whether LaTeX is a whole document.
        fit: Where a table of LaTeX must fit: 'page', 'column' for one column of a page with two, or 'columns' for both.
        size: The size of its font: 'normalsize', 'small', 'footnotesize' or 'scriptsize'; None for the one that fits.
        intervals: Whether changes of the distance have 95 % intervals over frames.
    """

    columns: tuple[str, ...] = ()
    sort: str | None = None
    best: int | None = None
    best_for_each: str | None = None
    precision: int = 2
    metric: str = "distance"
    split: str | None = None
    trials: bool = False
    rows: str | None = None
    columns_of: str | None = None
    standalone: bool = False
    fit: Fit = "page"
    size: Size | None = None
    intervals: bool = False

    def __post_init__(self) -> None:
        named(self.metric, METRICS, "metric")
        if not 0 <= self.precision <= 15:
            raise ChoiceError(f"a number cannot have {self.precision} decimals; choose 0 to 15")
        if self.best is not None and self.best < 1:
            raise ChoiceError(f"the number of best combinations cannot be {self.best}; choose 1 or more")
        if self.best is not None and self.best_for_each is not None:
            raise ChoiceError("a table shows either the best combinations or the best for each value; choose one")
        if self.intervals and (self.metric != "distance" or self.trials or self.rows is not None):
            raise ChoiceError("only changes of the distance have intervals; leave out metric, trials and pivot options")
        if (self.rows is None) != (self.columns_of is None):
            raise ChoiceError("a pivot table needs two options: one for its rows and one for its columns")
        if self.rows is not None and (self.trials or self.columns or self.sort or self.best or self.best_for_each):
            raise ChoiceError(
                "a pivot table shows all values of its two options; leave out columns, sort, best, trials"
            )

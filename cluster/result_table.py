"""The results of an experiment in Python, with all their export formats."""

import io
import os
from importlib.util import find_spec
from typing import Any

import pyarrow.parquet as pq

from cluster.reports.formats.terminal import terminal_width
from cluster.reports.tables.export import export
from cluster.reports.tables.summary import summary_html, summary_text
from cluster.reports.tables.table_options import TableOptions
from cluster.results.combination_logs import read_combination_logs
from cluster.results.learning_curves import Curve
from cluster.results.lookup import find_combination
from cluster.results.results import Results
from cluster.results.rows import Row
from cluster.storage.examples import FollowedExamples
from cluster.storage.filesystem import Storage, StorageError
from cluster.storage.folders import ExperimentFolder
from data_pipeline.user_error import UserError


def read_results(location: str | os.PathLike[str]) -> "ResultTable":
    """Reads the results of an experiment, without its script and at any time during a run.

    Args:
        location: The experiment's folder, or its URI.

    Raises:
        NoResultsError: If there is no experiment, or if its description is broken.
        StorageError: If a file cannot be read.
    """
    return ResultTable.read(ExperimentFolder(Storage(location)))


class ResultTable(Results):
    """What `run()` returns: the results, with a method for each export format.

    `print` shows the table that a run prints; in a notebook, it is an HTML table.

    CSV, JSON, Parquet and XLSX are for programs: they hold all digits (XLSX 16) and have separate columns for means,
    standard deviations, intervals and p-values. Markdown, LaTeX and HTML are for reading: they hold rounded numbers, a
    caption, and marks of the best.
    Each of these methods takes the same options and raises `ChoiceError` if the table does not have what was chosen.
    """

    def __str__(self) -> str:
        return summary_text(self, width=terminal_width())

    __repr__ = __str__  # the rows of all trials would be very long

    def _repr_html_(self) -> str:
        """Returns what a notebook shows."""
        return summary_html(self)

    @property
    def best(self) -> Row:
        """The row of the summary that is best in validation.

        Raises:
            ChoiceError: If the combinations were measured on several sets of data; `by_data` has a table for each.
        """
        return find_combination(self, "best")

    def learning_curves(self) -> dict[str, Curve]:
        """Reads the learning curve of each trial that logged any, by its id: KEY/REPETITION.

        With folds, a curve is the mean over the folds.

        Raises:
            StorageError: If a file cannot be read.
        """
        return read_combination_logs(
            self.files, self, self.summary, split=self.split, is_metric=lambda name: False
        ).curves

    def examples(self) -> dict[str, FollowedExamples]:
        """Reads the examples (`val_example_indices`) of each trial that has any, by its id: KEY/REPETITION.

        With folds, these are the ids of `single_folds.trials`.

        Raises:
            StorageError: If a file is broken or cannot be read.
        """
        found = {}
        for row in self.single_folds.trials:
            trial_id = f"{row['key']}/{row['repetition']}"
            try:
                examples = FollowedExamples.read(self.files.trial(trial_id))
            except ValueError as error:
                raise StorageError(f"{self.files.storage.location}: trial {trial_id}: {error}") from error
            if examples is not None:
                found[trial_id] = examples
        return found

    def to_pandas(self, table_options: TableOptions | None = None) -> Any:
        """Returns the table as a `pandas.DataFrame` with the columns of `to_parquet`.

        Raises:
            UserError: If pandas is not installed.
        """
        if find_spec("pandas") is None:
            raise UserError("to_pandas needs pandas, which is not installed; install it: pip install pandas")
        return pq.read_table(io.BytesIO(self.to_parquet(table_options))).to_pandas()

    def to_csv(self, table_options: TableOptions | None = None) -> str:
        """Returns the table as CSV: missing values are empty fields."""
        return export(self, "csv", table_options or TableOptions()).decode()

    def to_json(self, table_options: TableOptions | None = None) -> str:
        """Returns the table as a JSON list of objects: missing values are null."""
        return export(self, "json", table_options or TableOptions()).decode()

    def to_parquet(self, table_options: TableOptions | None = None) -> bytes:
        """Returns the table as the content of a Parquet file."""
        return export(self, "parquet", table_options or TableOptions())

    def to_md(self, table_options: TableOptions | None = None) -> str:
        """Returns the table as Markdown."""
        return export(self, "md", table_options or TableOptions()).decode()

    def to_latex(self, table_options: TableOptions | None = None) -> str:
        """Returns the table as LaTeX: a table for a document, or with `standalone` a whole document.

        With `fit`, it is for one or both columns of a page with two columns.
        """
        return export(self, "latex", table_options or TableOptions()).decode()

    def to_html(self, table_options: TableOptions | None = None) -> str:
        """Returns the table as an HTML element."""
        return export(self, "html", table_options or TableOptions()).decode()

    def to_xlsx(self, table_options: TableOptions | None = None) -> bytes:
        """Returns the content of a workbook with two sheets: the summary and the trials."""
        return export(self, "xlsx", table_options or TableOptions())

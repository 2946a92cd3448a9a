"""The results of an experiment with all their export formats."""

from cluster.reports.tables.choices import Choices
from cluster.reports.tables.export import export
from cluster.results.results import Results


class ResultTable(Results):
    """What `run()` returns: the results, with a method for each export format.

    CSV, JSON, Parquet and XLSX are for programs: they hold all digits (XLSX 16) and have separate columns for means,
    standard deviations, intervals and p-values. Markdown, LaTeX and HTML are for reading: they hold rounded numbers, a
    caption, and marks of the best.
    Each method takes the same choices and raises `ChoiceError` if the table does not have what was chosen.
    """

    def to_csv(self, choices: Choices | None = None) -> str:
        """Returns the table as CSV: missing values are empty fields."""
        return export(self, "csv", choices or Choices()).decode()

    def to_json(self, choices: Choices | None = None) -> str:
        """Returns the table as a JSON list of objects: missing values are null."""
        return export(self, "json", choices or Choices()).decode()

    def to_parquet(self, choices: Choices | None = None) -> bytes:
        """Returns the table as the content of a Parquet file."""
        return export(self, "parquet", choices or Choices())

    def to_md(self, choices: Choices | None = None) -> str:
        """Returns the table as Markdown."""
        return export(self, "md", choices or Choices()).decode()

    def to_latex(self, choices: Choices | None = None) -> str:
        """Returns the table as LaTeX: a table for a document, or with `standalone` a whole document."""
        return export(self, "latex", choices or Choices()).decode()

    def to_html(self, choices: Choices | None = None) -> str:
        """Returns the table as an HTML element."""
        return export(self, "html", choices or Choices()).decode()

    def to_xlsx(self, choices: Choices | None = None) -> bytes:
        """Returns the content of a workbook with two sheets: the summary and the trials."""
        return export(self, "xlsx", choices or Choices())

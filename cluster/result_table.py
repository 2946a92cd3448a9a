"""The results of an experiment with all their export formats."""

from cluster.reports.tables.export import export
from cluster.reports.tables.table_options import TableOptions
from cluster.results.results import Results


class ResultTable(Results):
    """What `run()` returns: the results, with a method for each export format.

    CSV, JSON, Parquet and XLSX are for programs: they hold all digits (XLSX 16) and have separate columns for means,
    standard deviations, intervals and p-values. Markdown, LaTeX and HTML are for reading: they hold rounded numbers, a
    caption, and marks of the best.
    Each method takes the same options and raises `ChoiceError` if the table does not have what was chosen.
    """

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

"""All trials of an experiment as one table that is read, asked, and written in the forms that others read."""

from cluster.reports.tables.export import export
from cluster.reports.tables.table_options import TableOptions
from cluster.results.results import Results


class ResultTable(Results):
    """What `run()` returns: the results, and every form in which they leave the house.

    For programs, CSV, JSON and Parquet hold all digits, XLSX 16 of them, and all three means, deviations, intervals and
    p-values in columns of their own. For reading, Markdown, LaTeX and HTML hold rounded numbers, a caption, and marks
    of the best.
    Each takes the same choices and raises `ChoiceError` where the table does not have what was chosen.
    """

    def to_csv(self, choices: TableOptions | None = None) -> str:
        """Returns the table as CSV: an empty field for what is missing."""
        return export(self, "csv", choices or TableOptions()).decode()

    def to_json(self, choices: TableOptions | None = None) -> str:
        """Returns the table as a JSON list of objects: null for what is missing."""
        return export(self, "json", choices or TableOptions()).decode()

    def to_parquet(self, choices: TableOptions | None = None) -> bytes:
        """Returns the table as the content of a Parquet file."""
        return export(self, "parquet", choices or TableOptions())

    def to_md(self, choices: TableOptions | None = None) -> str:
        """Returns the table as Markdown."""
        return export(self, "md", choices or TableOptions()).decode()

    def to_latex(self, choices: TableOptions | None = None) -> str:
        """Returns the table as LaTeX: a table to be put into a document, or with `standalone` a document."""
        return export(self, "latex", choices or TableOptions()).decode()

    def to_html(self, choices: TableOptions | None = None) -> str:
        """Returns the table as an HTML element."""
        return export(self, "html", choices or TableOptions()).decode()

    def to_xlsx(self, choices: TableOptions | None = None) -> bytes:
        """Returns the content of a workbook of two sheets: the summary and the trials."""
        return export(self, "xlsx", choices or TableOptions())

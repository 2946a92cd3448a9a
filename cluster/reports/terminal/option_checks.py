"""Rejects command-line options that would have no effect.

Otherwise a user would misread the figure or table.
"""

import argparse

from cluster.reports.tables.table_options import TableOptions
from data_pipeline.user_error import UserError

_OF_FIGURES = {
    **dict.fromkeys(("measure", "other", "labels", "format"), "success"),
    **dict.fromkeys(("rows", "columns"), "heatmap"),
    **dict.fromkeys(("examples", "log_points"), "hands"),
}
_OF_ALL_COMBINATIONS = ("heatmap", "parallel")
_OF_TABLES = (
    *("columns", "rows", "sort", "best", "best_for_each", "trials", "by_joint", "precision", "metric", "split"),
    "standalone",
)


class CommandLineError(UserError):
    """Arguments contradict each other; the text says which are valid."""


def refuse_idle_figure_options(given: argparse.Namespace) -> None:
    """Looks at the arguments of `figure`.

    Raises:
        CommandLineError: If one of them would do nothing for this figure.
    """
    for name, figure in _OF_FIGURES.items():
        if getattr(given, name) not in (None, []) and given.figure != figure:
            flag = name.replace("_", "-")
            raise CommandLineError(f"--{flag} applies only to the figure {figure}; leave it out for {given.figure}")
    if given.labels is not None and not given.other:
        raise CommandLineError(
            "--labels is for other methods' predictions: name a file of them (--other LABEL=FILE), or leave it out"
        )
    if given.format is not None and given.labels is None:
        raise CommandLineError(
            "--format is for files of poses: name the true ones (--labels FILE) and predicted ones (--other LABEL=FILE)"
        )
    if given.rows is not None and given.columns is not None and _are_one(given.rows, given.columns):
        raise CommandLineError(
            f"--rows {given.rows} and --columns {given.columns} are the same option; a heat map has two"
        )
    if given.figure in _OF_ALL_COMBINATIONS and len(given.combination) > 1:
        raise CommandLineError(
            f"{given.figure} shows all combinations that were measured on the same data; --combination is for one of "
            f"those, not for {len(given.combination)}"
        )


def refuse_idle_table_options(given: argparse.Namespace, format: str) -> None:
    """Looks at the arguments of `export` for a table.

    Raises:
        CommandLineError: If one of them would do nothing for a table in this format.
    """
    if given.standalone and format != "latex":
        raise CommandLineError(f"--standalone is for LaTeX (--format latex), not for {format}")


def refuse_table_options(given: argparse.Namespace) -> None:
    """Looks at the arguments of `export` for another tool.

    Raises:
        CommandLineError: If one of them is of tables.
    """
    for name in _OF_TABLES:
        if getattr(given, name) not in (None, getattr(TableOptions, name, False)):
            flag = name.replace("_", "-")
            raise CommandLineError(f"--{flag} is for a table; --to {given.to} writes all trials, so leave it out")


def _are_one(option: str, other: str) -> bool:
    """Tells whether two names are of one option, of which one may be the last part of the other."""
    return f".{option}".endswith(f".{other}") or f".{other}".endswith(f".{option}")

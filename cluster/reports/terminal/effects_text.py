"""Effects of options for a terminal and for a script."""

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from tabulate import tabulate

from cluster.reports.formats.grid import Grid
from cluster.reports.tables.choices import Choices
from cluster.reports.tables.effects import Effects, MeanTable, interaction_table
from cluster.results.option_effects import GroupMeans, Interaction
from cluster.results.results import Results

_MAX_ROWS = 100
_MAX_WIDTH = 120
_MAX_CELL = 50


def effects_text(results: Results, effects: Sequence[Effects], choices: Choices) -> str:
    """Returns the means of each option's values, and the interactions of all pairs of options, as text.

    Args:
        results: The experiment's results.
        effects: As of `effects_of`.
        choices: The metric, the split and the precision.
    """
    parts = [f"{results.name}: effects of options", _grid_text(MeanTable(results, effects, choices).grid())]
    if any(of_data.interactions for of_data in effects):
        # What is to be known besides stands below the means.
        parts.append(_grid_text(replace(interaction_table(results, effects, choices).grid(), notes=())))
    return "\n\n\n".join(parts)


def effects_json(effects: Sequence[Effects]) -> list[dict[str, Any]]:
    """Returns the effects on each data for a script, with all digits: shares from 0 to 1, distances in mm."""
    return [
        {
            "data": of_data.data or None,
            "metric": of_data.metric,
            "options": [
                {"option": path, "importance": of_data.importances.shares.get(path), **_means_json(means)}
                for path, means in of_data.means.items()
            ],
            "importance": {
                "combinations": len(of_data.importances.averaged),
                "combinations_planned": len(of_data.importances.means.groups),
                "repetitions": of_data.importances.means.basis.repetitions,
            },
            "interactions": [_interaction_json(found) for found in of_data.interactions],
        }
        for of_data in effects
    ]


def _grid_text(grid: Grid) -> str:
    """Returns a table with its caption above it and its notes below, the rows of an option together."""
    shown = [[cell.text for cell in row] for row in grid.rows[:_MAX_ROWS]]
    labels = [row[: grid.n_labels - 1] for row in shown]
    lines = shown[:1]
    for (before, own), row in zip(pairwise(labels), shown[1:], strict=True):
        if own == before:
            row = ["" for _ in own] + row[len(own) :]
        lines.append(row)
    alignment = ["left" if one == "l" else "right" for one in grid.alignments]
    widths = [None if one == "right" else _MAX_CELL for one in alignment]
    parts = [
        _wrapped(grid.caption),
        tabulate(
            lines,
            grid.headers,
            tablefmt="simple",
            disable_numparse=True,
            colalign=alignment,
            maxcolwidths=widths,
        ),
    ]
    if len(grid.rows) > _MAX_ROWS:
        parts.append(f"and {len(grid.rows) - _MAX_ROWS} more rows; --json has all")
    if grid.notes:
        parts.append("\n".join(map(_wrapped, grid.notes)))
    return "\n\n".join(parts)


def _wrapped(sentence: str) -> str:
    width = min(shutil.get_terminal_size().columns, _MAX_WIDTH)
    return textwrap.fill(sentence, width, break_long_words=False, break_on_hyphens=False)


def _means_json(means: GroupMeans) -> dict[str, Any]:
    basis = means.basis
    values = {
        path: list({repr(setting[place]): setting[place] for setting in basis.settings}.values())
        for place, path in enumerate(basis.paths)
    }
    return {
        "averaged_over": {
            "values": values,
            "settings": len(basis.settings),
            "settings_planned": len(basis.settings) + len(basis.left_out),
            "repetitions": basis.repetitions,
            "repetitions_planned": len(basis.repetitions) + len(basis.repetitions_left_out),
        },
        "means": [
            {
                "values": list(cell.values),
                "mean": cell.estimate.mean,
                "std": cell.estimate.std,
                "low": None if cell.estimate.interval is None else cell.estimate.interval.low,
                "high": None if cell.estimate.interval is None else cell.estimate.interval.high,
                "n": cell.estimate.n,
                "trials_averaged": cell.n_averaged,
                "trials_finished": cell.n_finished,
                "trials_planned": cell.n_planned,
            }
            for cell in means.groups
        ],
    }


def _interaction_json(found: Interaction) -> dict[str, Any]:
    return {"options": list(found.means.paths), "share": found.share, "size": found.size, **_means_json(found.means)}

"""Effects of options as text for the terminal and as JSON."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cluster.reports.formats.terminal import terminal
from cluster.reports.tables.effects import Effects, MeanTable, interaction_table
from cluster.reports.tables.table_options import TableOptions
from cluster.results.option_effects import GroupMeans, Importances, Interaction
from cluster.results.results import Results


def effects_text(results: Results, effects: Sequence[Effects], table_options: TableOptions) -> str:
    """Returns the means of each option's values, and the interactions of all pairs of options, as text.

    Args:
        results: The experiment's results.
        effects: The result of `effects_of`.
        table_options: The metric, the split and the precision.
    """
    parts = [f"{results.name}: effects of options", terminal(MeanTable(results, effects, table_options).grid())]
    if any(of_data.interactions for of_data in effects):
        # The notes are below the means.
        parts.append(terminal(replace(interaction_table(results, effects, table_options).grid(), notes=())))
    return "\n\n\n".join(parts)


def effects_json(effects: Sequence[Effects]) -> list[dict[str, Any]]:
    """Returns the effects on each data set for a script, with all digits: shares from 0 to 1, distances in mm."""
    return [
        {
            "data": of_data.data or None,
            "metric": of_data.metric,
            "at": of_data.at or None,
            "options": [
                {"option": path, **_importance_json(of_data.importances, path), **_means_json(means)}
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


def _importance_json(found: Importances, path: str) -> dict[str, Any]:
    chance = found.chances.get(path)
    return {
        "importance": found.shares.get(path),
        "importance_by_chance": None if chance is None else {"mean": chance.mean, "high": chance.high},
        "importance_is_above_chance": found.is_above_chance(path),
    }


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
        "dependent_options": list(basis.dependents),
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

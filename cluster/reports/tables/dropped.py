"""The table of the combinations that a race dropped: how far they and the leader had got at the rung."""

from cluster.reports.formats.grid import Cell, Grid, number_cell, option_cells
from cluster.results.names import short_names
from cluster.results.results import Results

_OF_FOLDS = " All folds of a combination race together, so a single fold has no distances here."


def dropped_grid(results: Results, precision: int = 2) -> Grid | None:
    """Returns the combinations that the race dropped, grouped by data; None if it dropped none.

    Their numbers are those at a rung, so they have a table of their own: they cannot be compared with results at the
    end of the training.

    Args:
        results: The experiment's results.
        precision: Decimals of the distances.
    """
    if not results.dropped:
        return None
    parts = results.by_data().values()
    rows = [row for part in parts for row in part.not_ranked]
    paths = results.distinguishing_paths
    # Texts that also distinguish them from the ranked ones.
    columns = [option_cells([row[path] for row in (*rows, *results.ranked)])[: len(rows)] for path in paths]
    headers = [*short_names(paths).values(), "n", "epoch", "validation (mm)", "leader (mm)", "reason"]
    found = [results.dropped[row["key"]] for row in rows]
    columns += [
        [Cell(str(at.repetitions), is_number=True) for at in found],
        [Cell(str(at.epoch), is_number=True) for at in found],
        [number_cell(at.val_distance_mm, precision=precision) for at in found],
        [number_cell(at.leader_val_distance_mm, precision=precision) for at in found],
        [Cell(at.reason) for at in found],
    ]
    combinations = f"{len(rows):,} combinations" if len(rows) > 1 else "combination"
    are_folds = any(at.leader_val_distance_mm is None and at.reason == "behind" for at in found)
    order = f", {'grouped by data, ' if len(parts) > 1 else ''}the latest rung first" if len(rows) > 1 else ""
    return Grid(
        name=f"{results.name} dropped",
        caption=(
            f"The {combinations} that the race dropped{order}: the best validation distance up to the epoch of the "
            "rung, mean over n repetitions, and that of the leader at the same rung. These are not final results, so "
            f"they have no p-values.{_OF_FOLDS if are_folds else ''}"
        ),
        headers=headers,
        rows=list(zip(*columns, strict=True)),
        n_labels=len(paths),
        keys=[row["key"] for row in rows],
    )

"""The table of the combinations that a race dropped: what they and the leader had reached at the rung."""

from cluster.reports.formats.grid import Cell, Grid, number_cell, option_cells
from cluster.results.names import short_names
from cluster.results.results import Results

_OF_FOLDS = " All folds of a combination race together, so a single one has no distances here."


def dropped_grid(results: Results, precision: int = 2) -> Grid | None:
    """Returns the combinations that the race dropped, those on the same data together; None without any.

    Their numbers are of the epoch of a rung, so they have a table of their own: nothing in it can be compared with
    results at the end of the training.

    Args:
        results: The experiment's results.
        precision: Decimals of the distances.
    """
    if not results.dropped:
        return None
    parts = results.by_data().values()
    rows = [row for part in parts for row in part.not_ranked]
    paths = results.distinguishing_paths
    # The texts that also distinguish them from the others.
    columns = [option_cells([row[path] for row in (*rows, *results.ranked)])[: len(rows)] for path in paths]
    headers = [*short_names(paths).values(), "n", "epoch", "validation (mm)", "leader there (mm)", "reason"]
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
    first = f"{'those on the same data together, ' if len(parts) > 1 else ''}the latest rung first"
    return Grid(
        name=f"{results.name} dropped",
        caption=(
            f"The {combinations} that the race dropped, {first}: the mean over n repetitions of the best validation "
            "distance up to the epoch of the rung, and that of the best combination at the same rung. These are not "
            f"final results, so no p-value compares them.{_OF_FOLDS if are_folds else ''}"
        ),
        headers=headers,
        rows=list(zip(*columns, strict=True)),
        n_labels=len(paths),
        keys=[row["key"] for row in rows],
    )

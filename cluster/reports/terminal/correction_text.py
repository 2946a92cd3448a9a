"""The errors before and after a correction as text: overall, for each finger and for each joint."""

from collections.abc import Mapping

from cluster.reports.formats.grid import Cell, Grid, number_cell
from cluster.reports.formats.terminal import terminal_table, terminal_width
from cluster.reports.tables.by_group import GroupErrors, group_headers
from cluster.reports.tables.metric_labels import MEASURES, OVERALL_METRICS
from data_pipeline.skeleton import Skeleton


def correction_text(metrics: Mapping[str, float], skeleton: Skeleton) -> str:
    """Returns the errors of a correction as tables.

    Args:
        metrics: What `posenet.evaluator.CorrectionMeans.metrics` returns.
        skeleton: The skeleton of the poses.
    """
    overall = [
        [Cell(measure.title), *_cells(metrics, metric, in_percent=measure.in_percent), Cell(measure.unit)]
        for metric, measure in ((metric, MEASURES[metric]) for metric in OVERALL_METRICS)
        if metric in metrics
    ]
    parts = [*(name for name, _ in skeleton.fingers), *skeleton.joint_names]
    by_part = [
        [Cell(part), *GroupErrors.of([metrics[f"distance[{part}]_before"]], [metrics[f"distance[{part}]"]]).cells(2)]
        for part in parts
    ]
    first = terminal_table(Grid("", "", ["", "before", "after", ""], overall, n_labels=1), terminal_width())
    second = terminal_table(Grid("", "", ["mean distance", *group_headers()], by_part, n_labels=1), terminal_width())
    share = f"{100 * metrics['improved']:.1f} % of the frames improve, {100 * metrics['worsened']:.1f} % get worse."
    return f"{first}\n\n{second}\n\n{share}"


def _cells(metrics: Mapping[str, float], metric: str, *, in_percent: bool = False) -> list[Cell]:
    return [number_cell(metrics[f"{metric}{of}"], precision=2, in_percent=in_percent) for of in ("_before", "")]

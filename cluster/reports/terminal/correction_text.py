"""The errors before and after a correction as text: overall, for each finger and for each joint."""

from collections.abc import Mapping, Sequence

from tabulate import tabulate

from cluster.reports.tables.metric_labels import MEASURES
from data_pipeline.skeleton import Skeleton

_OVERALL = ("distance", "max_distance", "bone_length_error", "frames_within_20mm", "auc_0_50", "auc_20_50")


def correction_text(metrics: Mapping[str, float], skeleton: Skeleton) -> str:
    """Returns the errors of a correction as tables.

    Args:
        metrics: What `posenet.evaluator.CorrectionMeans.metrics` returns.
        skeleton: The skeleton of the poses.
    """
    measures = {metric: MEASURES[metric] for metric in _OVERALL}
    overall = [
        [measure.title, *_cells(metrics, metric, 100 if measure.in_percent else 1), measure.unit]
        for metric, measure in measures.items()
    ]
    parts = [*(name for name, _ in skeleton.fingers), *skeleton.joint_names]
    by_part = [
        [part, *_cells(metrics, f"distance[{part}]", 1), *_change(metrics, f"distance[{part}]")] for part in parts
    ]
    first = _table(overall, ["", "before", "after", ""], "left")
    second = _table(by_part, ["mean distance (mm)", "before", "after", "Δ", "Δ %"], "right")
    share = f"{100 * metrics['improved']:.1f} % of the frames improve, {100 * metrics['worsened']:.1f} % get worse."
    return f"{first}\n\n{second}\n\n{share}"


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str], last: str) -> str:
    alignment = ["left", *["right"] * (len(headers) - 2), last]
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=alignment)


def _cells(metrics: Mapping[str, float], metric: str, factor: float) -> list[str]:
    return [f"{factor * metrics[f'{metric}_before']:.2f}", f"{factor * metrics[metric]:.2f}"]


def _change(metrics: Mapping[str, float], metric: str) -> list[str]:
    before, after = metrics[f"{metric}_before"], metrics[metric]
    percent = f"{100 * (after - before) / before:+.1f}" if before else "–"
    return [f"{after - before:+.2f}", percent]

"""The titles and units of metrics in tables, and which direction is better."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """How a table shows a metric.

    Attributes:
        title: For a caption.
        short: For the header of a column.
        unit: 'mm', 'mm/frame²', or '%' for a share.
        is_lower_better: Whether the lowest value is the best.
    """

    title: str
    short: str
    unit: str = "mm"
    is_lower_better: bool = True

    @property
    def in_percent(self) -> bool:
        """Whether it is a share, shown in %."""
        return self.unit == "%"

    @property
    def better(self) -> str:
        """'lower is better' or 'higher is better'."""
        return f"{'lower' if self.is_lower_better else 'higher'} is better"


MEASURES = {
    "distance": Measure("mean distance per joint", "distance"),
    "aligned_distance": Measure("PA-MPJPE, distance after Procrustes alignment", "PA-MPJPE"),
    "max_distance": Measure("mean distance of each frame's worst joint", "worst joint"),
    "frames_within_20mm": Measure("frames with all joints within 20 mm", "frames ≤ 20 mm", "%", False),
    "auc_0_50": Measure("area under the success-rate curve of joints from 0 to 50 mm", "AUC 0–50 mm", "%", False),
    "auc_20_50": Measure("area under the success-rate curve of joints from 20 to 50 mm", "AUC 20–50 mm", "%", False),
    "bone_length_error": Measure("mean error of bone lengths", "bone lengths"),
    "proportion_error": Measure("mean error of bone proportions", "bone proportions", "%"),
    "acceleration_error": Measure("mean error of the acceleration of joints", "acceleration", "mm/frame²"),
    "improved": Measure("frames that the correction improves", "improved", "%", False),
    "worsened": Measure("frames that the correction worsens", "worsened", "%"),
}
"""By the names in `cluster.results.results.METRICS`, and the two shares of frames that only a correction has."""

OVERALL_METRICS = (
    *("distance", "aligned_distance", "max_distance", "bone_length_error", "acceleration_error"),
    *("frames_within_20mm", "auc_0_50", "auc_20_50"),
)
"""The metrics of an overview of one correction. The acceleration error is only known for successive frames."""

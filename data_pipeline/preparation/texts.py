"""The results of commands as text."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tabulate import tabulate

from data_pipeline.frame_table import CUT_MM
from data_pipeline.preparation.inspection import Inspection
from data_pipeline.preparation.motion import Motion
from data_pipeline.separation.separation import Separation
from data_pipeline.words import count, first_of

_SHOWN = 20  # names in a line


def error_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns the result of `error_rows` as a table."""
    return tabulate(
        [
            [
                *(row[key] for key in ("dataset", "part", "subset", "frames", "mean_error_mm")),
                row["mean_worst_joint_mm"],
                None if row["subset"] is None else 100 * row["share_worst_joint_within_20mm"],
            ]
            for row in rows
        ],
        headers=[
            *("dataset", "part", "subset", "frames", "mean error\n(mm)"),
            "mean error of\nworst joint (mm)",
            "worst joint\nwithin 20 mm (%)",
        ],
        floatfmt=".2f",
        disable_numparse=[0, 1, 2],  # a subset may be named 2017
    )


def clusters_text(facts: Mapping[str, Any]) -> str:
    """Returns `Clusters.facts` as a table."""
    clusters = facts["clusters"]
    lengths = [cluster["mean_bone_lengths_mm"] for cluster in clusters]
    table = tabulate(
        [[bone, *(by_bone[bone] for by_bone in lengths)] for bone in lengths[0]],
        ["mean length (mm)", *(f"cluster {i}\n{cluster['samples']} samples" for i, cluster in enumerate(clusters))],
        floatfmt=".1f",
        disable_numparse=[0],
    )
    return f"{table}\n\nThe cluster changes {facts['changes']} times from one sample to the next."


def neighbors_text(facts: Mapping[str, Any]) -> str:
    """Returns `Neighbors.facts` as text."""
    return (
        f"Found the {facts['neighbors']} nearest of {facts['bank']} poses for each of {facts['samples']} samples. The "
        "mean distance (root mean square over joints) is "
        f"{facts['mean_distance_of_nearest_mm']:.2f} mm for the nearest and "
        f"{facts['mean_distance_of_farthest_mm']:.2f} mm for the farthest."
    )


def pose_errors_text(facts: Mapping[str, Any]) -> str:
    """Returns `PoseErrors.facts` as a table."""
    rows = [[joint, *facts["mean_mm"][joint], *facts["std_mm"][joint]] for joint in facts["mean_mm"]]
    headers = [f"{kind} of {axis}\n(mm)" for kind in ("mean", "std") for axis in "xyz"]
    return tabulate(rows, [f"errors of\n{facts['samples']} samples", *headers], floatfmt=".2f", disable_numparse=[0])


def inspection_text(name: str, inspection: Inspection) -> str:
    """Returns the tables and warnings for the dataset `name`."""
    return "\n\n".join(_paragraphs(name, inspection))


def separation_text(name: str, train: str, part: str, separation: Separation) -> str:
    """Returns how far the dataset `name`, a "test" or "validation" set, is from the training set `train`."""
    text = f"{name} and the training set {train}: {separation.sentence(part)}"
    if separation.meaning is None:
        return text
    return f"{text}\n\nwarning: {separation.meaning}{separation.advice}"


def _motion_text(motion: Motion) -> str:
    lines = [
        _groups_text("sequences", motion.sequences) or "sequences: not known, treated as one",
        _groups_text("subjects", motion.subjects) or "subjects: not known",
    ]
    if motion.step_mm is not None:
        cuts = f"{count(len(motion.cuts), 'cut')} within a sequence (a step of more than {CUT_MM:.0f} mm)"
        first = f"; the first at sample {first_of(motion.cuts, _SHOWN)}" if motion.cuts else ""
        lines.append(
            f"motion: {motion.step_mm:.1f} mm from one frame to the next (median, per joint; two random frames differ "
            f"by {motion.random_step_mm:.0f} mm); {cuts}{first}"
        )
    return "\n".join(lines)


def _groups_text(kind: str, groups: Mapping[str, int] | None) -> str | None:
    """Returns the groups with their numbers of frames, or a summary of many."""
    if groups is None:
        return None
    sizes = sorted(groups.values())
    if len(groups) <= _SHOWN:
        return f"{kind}: " + ", ".join(f"{name} ({count(n, 'frame')})" for name, n in groups.items())
    return f"{kind}: {len(groups):,}, of {sizes[0]:,} to {sizes[-1]:,} frames"


def _paragraphs(name: str, inspection: Inspection) -> Iterator[str]:
    names = "with names" if inspection.has_names else "without names"
    subsets = ", ".join(inspection.errors) or "none, only labels"
    yield (
        f"{name}: {inspection.samples} samples {names}, {inspection.joints} joints ({inspection.skeleton})\n"
        f"subsets: {subsets}\n{_motion_text(inspection.motion)}"
    )

    rows = [
        [what, *(limit for axis in "xyz" for limit in ranges[axis])] for what, ranges in inspection.ranges_mm.items()
    ]
    yield tabulate(
        rows,
        ["range (mm)", *(f"{axis} {limit}" for axis in "xyz" for limit in ("from", "to"))],
        floatfmt=".1f",
        disable_numparse=[0],
    )

    bones = inspection.bones
    yield tabulate(
        [[bone, mean, bones.std_mm[bone]] for bone, mean in bones.mean_mm.items()],
        ["bone of the labels", "mean (mm)", "std (mm)"],
        floatfmt=".1f",
    )
    yield (
        f"Bone lengths are {bones.constancy}: in {100 * bones.share_unchanged:.1f} % of the steps from one sample to "
        "the next, no length changes by more than 1 %."
    )

    if inspection.errors:
        errors = list(inspection.errors.values())
        rows = [
            ["all joints", *(subset.mean_mm for subset in errors)],
            ["all joints, median of samples", *(subset.median_mm for subset in errors)],
            ["worst joint of a sample", *(subset.mean_worst_joint_mm for subset in errors)],
            *([name, *(subset.per_finger_mm[name] for subset in errors)] for name in errors[0].per_finger_mm),
            *([name, *(subset.per_joint_mm[name] for subset in errors)] for name in errors[0].per_joint_mm),
        ]
        yield tabulate(rows, ["mean error (mm)", *inspection.errors], floatfmt=".2f", disable_numparse=[0])
        worst = [
            [subset, row["sample"], row["name"], row["mean_mm"], row["worst_joint"]]
            for subset, errors_of_subset in inspection.errors.items()
            for row in errors_of_subset.worst
        ]
        headers = ["worst samples of", "sample", "name", "mean error (mm)", "worst joint"]
        yield tabulate(worst, headers, floatfmt=".2f", disable_numparse=[0, 2, 4])

    for warning in inspection.warnings:
        first = f"; the first: {', '.join(map(str, warning.first))}" if warning.first else ""
        yield f"warning: {warning.about}: {warning.text}{first}"
    if not inspection.warnings:
        yield "Nothing looks wrong."

"""The pictures of the report page: those of `figures/`, and the viewer of examples."""

import itertools
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cluster.figures import curves, errors, hands, options
from cluster.figures import frames as by_frame
from cluster.figures.style import FigureError, save
from cluster.reports.draw import finished_ids, frame_errors_of, success_rates_of
from cluster.reports.formats.html import Markup, json_block, tag
from cluster.reports.page.data import PageData
from cluster.reports.page.sections import MAX_DRAWN, section, section_of
from cluster.reports.page.sentences import name_of, on_frames, short_names
from cluster.reports.tables.captions import SPLITS
from cluster.results.change_intervals import mean_frame_errors
from cluster.results.learning_curves import Curve
from cluster.storage.folders import ExperimentFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH_IN = 4.5
_N_CURVES = 4
_DPI = 150
_CSS_DOTS_OF_AN_INCH = 96
_LARGEST_SVG = 700_000


class Pictures(NamedTuple):
    """The pictures of a page."""

    sections: Sequence[Markup]
    """A section of pictures for each data set; empty before a trial has logged anything."""

    of_examples: Markup | None
    """Replaces the viewer of examples without scripts and on paper; None if no trial followed examples."""


def draw(
    data: PageData, folder: ExperimentFolder, *, note: str = "", goes_on: Callable[[], bool] = lambda: True
) -> Pictures:
    """Draws all figures of an experiment that have data. This takes seconds.

    Args:
        data: The data of the page.
        folder: The experiment's folder, for the files of the best trials.
        note: The first sentence of each section.
        goes_on: Called before each picture; when it returns False, the remaining pictures are left out.

    Raises:
        StorageError: If a file cannot be read.
    """
    found = []
    for of_group in data.by_data[:MAX_DRAWN]:
        planned = itertools.chain(_of_training(of_group), _of_the_best(of_group, folder), _of_options(of_group))
        drawn = [_picture(*figure) for figure in planned if goes_on()]
        shown = [picture for picture in drawn if picture is not None]
        if goes_on():
            shown += _unscripted(of_group)
        notes = [tag("p", note)] if note else []
        if shown:
            found.append(section_of(of_group, "pictures", "Pictures", *notes, tag("div", *shown, class_="pictures")))
    return Pictures(found, _of_examples(data) if goes_on() else None)


def examples(data: PageData, picture: Markup | None) -> list[Markup]:
    """The section of examples: a viewer, or a picture without scripts and on paper."""
    content = data.examples_for_scripts()
    if content is None:
        return []
    words = (
        f"Samples of {_validation_set(data)} followed by trial {data.example_trial}: the backbone’s prediction "
        "(input), the corrector’s output at each log point of the training (corrected), and the ground truth (label)."
    )
    return [
        section(
            "examples",
            "Examples",
            tag("p", words),
            tag("div", class_="viewer only-scripted"),
            *([tag("div", picture, class_="only-unscripted")] if picture is not None else []),
            json_block("examples-data", content),
        )
    ]


def _of_examples(data: PageData) -> Markup | None:
    shown, skeleton = data.examples, data.skeleton
    if shown is None or skeleton is None:
        return None
    points = zip(shown.epochs, shown.batches, shown.predictions_mm, strict=True)
    corrected = {f"epoch {epoch}, batch {batch}": poses for epoch, batch, poses in points}
    return _picture(
        lambda: hands.skeletons(
            *(shown.inputs_mm, corrected, shown.labels_mm, skeleton), n_examples=4, n_log_points=2, width_in=6.0
        ),
        "Samples of the validation set: input, corrected and label, and the mean distance before and after.",
    )


def _validation_set(data: PageData) -> str:
    key = (data.example_trial or "").partition("/")[0]
    found = data.table.single_folds.data_sets.get("val", {}).get(key)
    return "the validation set" if found is None else f"the validation set {found.name}"


_PlannedFigure = tuple[Callable[[], "Figure"], str]


def _picture(draw: Callable[[], "Figure"], caption: str) -> Markup | None:
    try:
        figure = draw()
    except FigureError:
        return None  # nothing to draw, or too much for a figure
    content, kind = save(figure, "svg", dpi=_DPI), "svg+xml"
    if len(content) > _LARGEST_SVG:
        content, kind = save(figure, "png", dpi=_DPI), "png"
    address = f"data:image/{kind};base64,{b64encode(content).decode()}"
    # With the size, a browser reserves the space, so nothing moves when the picture appears.
    width, height = (round(inches * _CSS_DOTS_OF_AN_INCH) for inches in figure.get_size_inches())
    picture = tag("img", src=address, alt=caption, width=width, height=height)
    return tag("figure", picture, tag("figcaption", caption))


def _of_training(data: PageData) -> Iterator[_PlannedFigure]:
    groups: dict[str, list[Curve]] = {}
    for row in data.table.ranked[:_N_CURVES]:
        known = [data.logged.curves.get(found_id) for found_id in finished_ids(data.table, row)]
        if found := [curve for curve in known if curve is not None and len(curve.epochs)]:
            groups[name_of(data.table, row)] = found
    if groups:
        of = "the best combination" if len(groups) == 1 else f"the {len(groups)} best combinations"
        yield (
            lambda: curves.learning_curves(groups, n_planned=data.table.n_counted, width_in=_WIDTH_IN),
            f"Learning curves of {of} in validation.",
        )


def _of_the_best(data: PageData, folder: ExperimentFolder) -> Iterator[_PlannedFigure]:
    row, n_planned = data.table.summary[0], data.table.n_counted
    ids = finished_ids(data.table, row)
    place = f"the combination that is best in validation, on the {SPLITS[data.table.split]}"
    before, after = success_rates_of(folder, data.table, row, "worst")
    if after:
        yield (
            lambda: curves.success_curves(
                *({"corrected": before[0]}, {"corrected": after}), n_planned=n_planned, of="worst", width_in=_WIDTH_IN
            ),
            f"Share of frames whose worst joint is within a threshold: {place}.",
        )
    frames, of_all = frame_errors_of(folder, data.table, ids), mean_frame_errors(data.table, row, data.table.split)
    if frames is not None:
        yield (
            lambda: errors.error_histogram(*frames.joined, width_in=_WIDTH_IN),
            f"Distribution of the errors of frames, before and after, in one repetition: {place}.",
        )
        yield (
            lambda: errors.improvement_by_error(*frames.joined, width_in=_WIDTH_IN),
            f"Improvement against the backbone’s error, for each pose of one repetition: {place}."
            + ("" if of_all is None else f" {on_frames(of_all, len(ids))}"),
        )
    if frames is not None and frames.training_distance is not None:
        distance = frames.training_distance
        yield (
            lambda: by_frame.improvement_by_distance(*frames.means, distance, width_in=_WIDTH_IN),
            f"Improvement against the distance from the nearest training frame, in one repetition: {place}.",
        )
    skeleton, parts = data.skeleton, data.errors_by_joint(row["key"])
    if skeleton is not None and parts is not None:
        by_part = [dict(zip(data.parts, values.T.tolist(), strict=True)) for values in parts]
        yield (
            lambda: errors.errors_by_joint(skeleton, *by_part, n_planned=n_planned, width_in=_WIDTH_IN),
            f"Errors of joints and fingers: {place}.",
        )


def _of_options(data: PageData) -> Iterator[_PlannedFigure]:
    table = data.table
    split: options.Split = "test" if table.split == "test" else "val"
    paths = table.distinguishing_paths
    # A value of a range occurs in a single combination, so its row or column would have one number.
    if len(paths) >= 2 and not table.ranges:
        names = short_names(paths)
        others = (
            "; each cell shows the values of the other options that are best in validation" if len(paths) > 2 else ""
        )
        yield (
            lambda: options.heat_map(
                *(table.summary, paths[0], paths[1]), split=split, n_planned=table.n_counted, width_in=_WIDTH_IN
            ),
            f"Mean distance by {names[0]} and {names[1]} on the {SPLITS[split]}{others}.",
        )


def _unscripted(data: PageData) -> list[Markup]:
    """Returns a picture of all combinations as lines, in place of what scripts draw above the table."""
    table, paths = data.table, data.table.distinguishing_paths
    if len(paths) < 2:
        return []
    split: options.Split = "test" if table.split == "test" else "val"
    picture = _picture(
        lambda: options.parallel_coordinates(
            table.summary, paths, split=split, n_planned=table.n_counted, width_in=_WIDTH_IN
        ),
        f"All combinations: their options and their mean distance on the {SPLITS[split]}.",
    )
    return [] if picture is None else [tag("div", picture, class_="only-unscripted")]

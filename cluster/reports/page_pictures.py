"""The pictures of the report page: those of `figures/`, and the viewer of examples."""

from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from cluster.logged import Curve
from cluster.reports.drawing import finished_ids, frame_errors_of, success_rates_of
from cluster.reports.figures import curves, errors, hands, options
from cluster.reports.figures.style import FigureError, save
from cluster.reports.markup import Markup, json_block, tag
from cluster.reports.page_data import PageData
from cluster.reports.page_sections import section, section_of
from cluster.reports.page_words import name_of, on_frames, short_names
from cluster.reports.text import SPLITS
from cluster.trial_folder import ExperimentFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH_IN = 4.5
_N_CURVES = 4
_DPI = 150
_LARGEST_SVG = 700_000


def pictures(data: PageData, folder: ExperimentFolder) -> list[Markup]:
    """Draws what there is to draw of an experiment: the section of pictures, empty before a trial has logged anything.

    Raises:
        StorageError: If a file cannot be read.
    """
    drawn = [
        _picture(draw, caption)
        for draw, caption in (*_of_training(data), *_of_the_best(data, folder), *_of_options(data))
    ]
    shown = [picture for picture in drawn if picture is not None]
    return [section_of(data, "pictures", "Pictures", tag("div", *shown, class_="pictures"))] if shown else []


def examples(data: PageData, *, draws: bool) -> list[Markup]:
    """The section of examples: a viewer, and without scripts and on paper a picture.

    Args:
        data: What is shown.
        draws: Whether there is a picture; it takes a second.
    """
    content = data.examples_for_scripts()
    if content is None or data.examples is None or data.skeleton is None:
        return []
    shown, skeleton = data.examples, data.skeleton
    epochs = f"epoch {shown.epochs[0]}", f"epoch {shown.epochs[-1]}"
    corrected = dict(zip(epochs, (shown.predictions_mm[0][:4], shown.predictions_mm[-1][:4]), strict=False))
    picture = (
        _picture(
            lambda: hands.skeletons(shown.inputs_mm[:4], corrected, shown.labels_mm[:4], skeleton, width_in=6.0),
            "Samples of the validation set: input, corrected and label, and the mean distance before and after.",
        )
        if draws
        else None
    )
    words = (
        f"Samples of {_validation_set(data)} that trial {data.example_trial} followed: what the backbone predicted "
        "(input), what the corrector made of it at each log point of the training (corrected), and the truth (label)."
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


def _validation_set(data: PageData) -> str:
    key = (data.example_trial or "").partition("/")[0]
    found = data.table.data_sets.get("val", {}).get(key)
    return "the validation set" if found is None else f"the validation set {found.name}"


_Drawing = tuple[Callable[[], "Figure"], str]


def _picture(draw: Callable[[], "Figure"], caption: str) -> Markup | None:
    try:
        figure = draw()
    except FigureError:
        return None  # nothing to draw, or more than a figure holds
    content, kind = save(figure, "svg", dpi=_DPI), "svg+xml"
    if len(content) > _LARGEST_SVG:
        content, kind = save(figure, "png", dpi=_DPI), "png"
    address = f"data:image/{kind};base64,{b64encode(content).decode()}"
    return tag("figure", tag("img", src=address, alt=caption), tag("figcaption", caption))


def _of_training(data: PageData) -> Iterator[_Drawing]:
    groups: dict[str, list[Curve]] = {}
    for row in data.table.summary[:_N_CURVES]:
        known = [data.logged.curves.get(found_id) for found_id in finished_ids(data.table, row)]
        if found := [curve for curve in known if curve is not None and len(curve.epochs)]:
            groups[name_of(data.table, row)] = found
    if groups:
        of = "the best combination" if len(groups) == 1 else f"the {len(groups)} best combinations"
        yield lambda: curves.learning_curves(groups, width_in=_WIDTH_IN), f"Learning curves of {of} in validation."


def _of_the_best(data: PageData, folder: ExperimentFolder) -> Iterator[_Drawing]:
    row = data.table.summary[0]
    ids = finished_ids(data.table, row)
    place = f"the combination that is best in validation, on the {SPLITS[data.table.split]}"
    before, after = success_rates_of(folder, data.table.split, ids, "worst")
    if after:
        yield (
            lambda: curves.success_curves(
                {"corrected": before[0]}, {"corrected": after}, of="worst", width_in=_WIDTH_IN
            ),
            f"Share of frames whose worst joint is at most so far off: {place}.",
        )
    frames = frame_errors_of(folder, ids)
    if frames is not None:
        yield (
            lambda: errors.improvement_by_error(*frames.joined, width_in=_WIDTH_IN),
            f"Improvement against the backbone’s error, each frame of one repetition: {place}. {on_frames(frames)}",
        )
    skeleton, parts = data.skeleton, data.errors_by_part(row["key"])
    if skeleton is not None and parts is not None:
        by_part = [dict(zip(data.parts, values.T.tolist(), strict=True)) for values in parts]
        yield (
            lambda: errors.errors_by_joint(skeleton, by_part[0], by_part[1], width_in=_WIDTH_IN),
            f"Errors of joints and fingers: {place}.",
        )


def _of_options(data: PageData) -> Iterator[_Drawing]:
    table = data.table
    split: options.Split = "test" if table.split == "test" else "val"
    paths = table.telling_paths
    if len(paths) >= 2:
        names = short_names(paths)
        others = "; the best in validation over the other options" if len(paths) > 2 else ""
        yield (
            lambda: options.heat_map(table.summary, paths[0], paths[1], split=split, width_in=_WIDTH_IN),
            f"Mean distance by {names[0]} and {names[1]} on the {SPLITS[split]}{others}.",
        )
    if len(paths) >= 3:
        yield (
            lambda: options.parallel_coordinates(table.summary, paths, split=split, width_in=_WIDTH_IN),
            f"All combinations: their options and their mean distance on the {SPLITS[split]}.",
        )

"""Describes the trials that effects of options average, in short phrases for grids of any size."""

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.results.names import NOT_APPLICABLE, option_texts, short_names
from cluster.results.option_effects import MIN_COMBINATIONS, Basis, GroupMeans, Importances
from data_pipeline.words import listed

_MAX_NAMED = 3
_MAX_OPTIONS = 2

Names = Mapping[str, str]
"""The names of the options, by their paths."""


def averaged_over(means: GroupMeans, names: Names) -> str:
    """Says which values of the other options and which repetitions are averaged; there must be at least one mean.

    For example 'all values of the other options, in all 3 repetitions', or '1 of 2 values of model (mlp) and all values
    of dropout, in 2 of 3 repetitions (without 1)'.
    """
    settings = ", each with ".join(filter(None, [_settings(means.basis, names), _dependents(means.basis, names)]))
    return f"{settings}, in {_repetitions(means.basis)}" if settings else _repetitions(means.basis)


def no_mean(means: GroupMeans, names: Names) -> str:
    """Says why no value of an option has a mean, though trials of others have finished."""
    if not means.basis.dependents:
        return "no mean, because no trial has finished where it applies"
    return f"no mean, because no value has finished with {_dependents(means.basis, names)}"


def importance_rests_on(found: Importances, names: Names) -> str:
    """Says how many combinations importances are computed from, and which values do not occur in them."""
    n, n_planned = len(found.averaged), len(found.means.groups)
    of = "" if found.is_complete else f" of {n_planned:,}"
    kinds = f" of {listed([names[path] for path in found.means.paths])}" if found.means.basis.dependents else ""
    words = f"{n:,}{of} combinations{kinds}, in {_repetitions(found.means.basis)}"
    left_out = []
    for place, path in enumerate(found.means.paths):
        values = [[cell.values[place] for cell in cells] for cells in (found.means.groups, found.averaged)]
        lost = list(_parted(*values)[1].values())
        if lost:
            is_long = len(lost) > _MAX_NAMED
            left_out.append(f"{len(lost):,} values of {names[path]}" if is_long else f"{names[path]} {listed(lost)}")
    return f"{words}, none of them with {' or '.join(left_out)}" if left_out else words


def no_importance(found: Importances) -> str:
    """Says why there are no importances: 'unknown, because fewer than two combinations have finished'."""
    n = len(found.averaged)
    if len(found.means.paths) < 2:
        why = "it compares options that apply to all combinations, and there is only one"
    elif n < 2:
        why = "fewer than two combinations have finished"
    elif len({cell.estimate.mean for cell in found.averaged}) == 1:
        why = "the means of all combinations are equal"
    else:
        why = f"an incomplete grid needs {MIN_COMBINATIONS} combinations that finished in the same repetitions"
        why += f", but only {n:,} of {len(found.means.groups):,} did"
    return f"unknown, because {why}"


def against_chance(found: Importances, names: Names) -> str:
    """Says for which options the importance is above chance, after 'Importance is'; there must be importances.

    For example 'above chance for lr; no more than chance for model and dropout'.
    """
    if not found.chances:
        why = "it takes two repetitions" if len(found.means.basis.repetitions) < 2 else "combinations are missing"
        return f"not compared with chance, because {why}"
    words = []
    for answer, phrase in ((True, "above chance for"), (False, "no more than chance for")):
        if options := [names[path] for path in found.shares if found.is_above_chance(path) == answer]:
            words.append(f"{phrase} {listed(options)}")
    return "; ".join(words)


def _settings(basis: Basis, names: Names) -> str:
    others = [names[path] for path in basis.paths]
    if not basis.left_out:
        return f"all values of {_few(others)}" if others else ""
    planned = [*basis.settings, *basis.left_out]
    some, whole = [], []
    texts: list[dict[str, str]] = []  # of the values that are in the means, for each option
    for name, values, chosen in zip(others, zip(*planned, strict=True), zip(*basis.settings, strict=True), strict=True):
        kept, left_out = _parted(values, chosen)
        texts.append(dict(kept))
        # Not applicable is not a value.
        kept.pop(repr(NOT_APPLICABLE), None)
        left_out.pop(repr(NOT_APPLICABLE), None)
        if not kept:
            continue
        if left_out:
            some.append(_some(f"values of {name}", list(kept.values()), list(left_out.values())))
        else:
            whole.append(name)
    words = listed([*some, *([f"all values of {_few(whole)}"] if whole else [])])
    missing = [
        [
            f"{name} {own[repr(value)]}"
            for name, own, value in zip(others, texts, setting, strict=True)
            if value != NOT_APPLICABLE
        ]
        for setting in basis.left_out
        if all(repr(value) in own for own, value in zip(texts, setting, strict=True))
    ]
    if not missing:
        return words
    if len(missing) * len(others) <= _MAX_NAMED * _MAX_OPTIONS:
        return f"{words} but not {listed([' with '.join(setting) for setting in missing])}"
    return f"{words}, at {len(basis.settings):,} of their {len(basis.settings) + len(missing):,} combinations"


def _dependents(basis: Basis, names: Names) -> str:
    options = [names[path] for path in basis.dependents]
    return f"all values of {listed(options)} that apply" if options else ""


def _repetitions(basis: Basis) -> str:
    kept, left_out = basis.repetitions, basis.repetitions_left_out
    if left_out:
        return _some("repetitions", list(map(str, kept)), list(map(str, left_out)))
    return f"all {len(kept)} repetitions" if len(kept) > 1 else "the only repetition"


def _parted(values: Sequence[Any], chosen: Sequence[Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the texts of the distinct values, by their `repr`: first those that are chosen, then the others."""
    different = {repr(value): value for value in values}
    known = set(map(repr, chosen))
    texts = dict(zip(different, option_texts(list(different.values())), strict=True))
    return {v: texts[v] for v in different if v in known}, {v: texts[v] for v in different if v not in known}


def _some(of: str, kept: Sequence[str], left_out: Sequence[str]) -> str:
    """Returns '1 of 2 values of model (mlp)' or '11 of 12 values of lr (without 0.1)'; many values are only counted."""
    words = f"{len(kept):,} of {len(kept) + len(left_out):,} {of}"
    if min(len(kept), len(left_out)) > _MAX_NAMED:
        return words
    return f"{words} ({listed(kept) if len(kept) <= len(left_out) else f'without {listed(left_out)}'})"


def _few(options: Sequence[str]) -> str:
    return listed(options) if len(options) <= _MAX_OPTIONS else "the other options"


def no_means(ranges: Sequence[str]) -> str:
    """Returns a sentence that says why the values of options have no means."""
    names = listed(list(short_names(ranges).values()))
    return (
        f"A search drew {names} from {'ranges' if len(ranges) > 1 else 'a range'}, so the values of an option were not "
        "trained with the same other settings, and their means cannot be compared."
    )

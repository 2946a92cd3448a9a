import itertools
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.results.chance import chances_of_grid
from cluster.results.experiment_description import Option
from cluster.results.option_effects import Basis, importances, interactions, marginal_means
from cluster.results.statistics import estimate

NAMES = ("lr", "model", "layers", "loss")


def trials_of(values, result, *, n_repetitions=3, is_lost=lambda repetition, *combination: False):
    """The rows of a sweep over a grid: `result(repetition, *combination)`, or failed where `is_lost`."""
    rows = []
    for repetition, combination in itertools.product(range(n_repetitions), itertools.product(*values)):
        lost = is_lost(repetition, *combination)
        rows.append(
            {
                **dict(zip(NAMES, combination, strict=False)),
                "repetition": repetition,
                "status": "failed" if lost else "finished",
                "mm": None if lost else float(result(repetition, *combination)),
            }
        )
    return rows


def means(found):
    return [cell.estimate.mean for cell in found.groups]


class TestMarginalMeans:
    VALUES = ([0.1, 0.01, 0.001], ["gnn", "mlp"], [1, 2, 3, 4])

    def test_are_those_of_the_means_of_each_repetition(self):
        numbers = np.random.default_rng(0).normal(size=(3, 3, 2, 4))  # (repetition, lr, model, layers)
        stream = iter(numbers.ravel())
        found = marginal_means(trials_of(self.VALUES, lambda *_: next(stream)), NAMES[:3], "mm")
        assert list(found) == list(NAMES[:3])
        for axis, path in enumerate(NAMES[:3], start=1):
            others = tuple(i for i in (1, 2, 3) if i != axis)
            expected = numbers.mean(axis=others)  # (repetition, value)
            assert [cell.values for cell in found[path].groups] == [(value,) for value in self.VALUES[axis - 1]]
            for cell, of_repetitions in zip(found[path].groups, expected.T, strict=True):
                reference = estimate(of_repetitions.tolist())
                assert cell.estimate.n == 3
                assert cell.estimate.mean == pytest.approx(reference.mean)
                assert cell.estimate.std == pytest.approx(reference.std)
                assert cell.n_averaged == cell.n_finished == cell.n_planned == 72 // expected.shape[1]
            assert found[path].is_complete

    def test_have_no_spread_from_the_other_options(self):
        found = marginal_means(trials_of(self.VALUES, lambda _, lr, model, layers: 100 * layers), NAMES[:3], "mm")
        assert [cell.estimate.std for cell in found["lr"].groups] == [0.0] * 3

    def test_tell_values_apart_that_are_equal_to_python(self):
        rows = trials_of(([1, 1.0, True, None],), lambda repetition, value: len(repr(value)))
        assert [repr(cell.values[0]) for cell in marginal_means(rows, ["lr"], "mm")["lr"].groups] == [
            "1",
            "1.0",
            "True",
            "None",
        ]

    def test_compare_values_over_the_same_trials_where_one_failed(self):
        # The second model is ten times worse, and a trial with it failed: this must not favour the learning rate.
        rows = trials_of(
            ([0.1, 0.01], ["one", "two", "three"]),
            lambda repetition, lr, model: 10 if model == "two" else 1,
            is_lost=lambda *trial: trial == (0, 0.1, "two"),
        )
        found = marginal_means(rows, NAMES[:2], "mm")["lr"]
        first, second = found.groups
        assert first.estimate.mean == second.estimate.mean
        assert (first.n_averaged, second.n_averaged) == (6, 6)  # two repetitions of three settings
        assert (first.n_finished, second.n_finished) == (8, 9)
        assert (first.n_planned, second.n_planned) == (9, 9)
        assert not found.is_complete

    def test_leave_out_a_value_with_which_hardly_a_trial_finished(self):
        rows = trials_of(
            self.VALUES,
            lambda repetition, lr, *_: lr,
            is_lost=lambda repetition, lr, model, layers: lr == 0.1 and (repetition, model, layers) != (0, "gnn", 1),
        )
        found = marginal_means(rows, NAMES[:3], "mm")["lr"]
        assert means(found) == [None, pytest.approx(0.01), pytest.approx(0.001)]
        assert [cell.n_averaged for cell in found.groups] == [0, 24, 24]
        assert [cell.n_finished for cell in found.groups] == [1, 24, 24]

    def test_keep_each_value_of_which_half_is_there(self):
        rows = trials_of(
            self.VALUES,
            lambda repetition, lr, *_: lr,
            is_lost=lambda repetition, lr, model, layers: lr == 0.1 and model == "mlp",
        )
        found = marginal_means(rows, NAMES[:3], "mm")["lr"]
        assert means(found) == pytest.approx([0.1, 0.01, 0.001])
        assert [cell.n_averaged for cell in found.groups] == [12, 12, 12]

    def test_of_a_sweep_that_is_half_through_are_of_the_repetitions_that_are_done(self):
        rows = trials_of(self.VALUES, lambda repetition, lr, *_: lr + repetition)
        for row in rows[60:]:
            row |= {"status": "pending", "mm": None}
        found = marginal_means(rows, NAMES[:3], "mm")["lr"]
        assert [cell.estimate.n for cell in found.groups] == [2, 2, 2]
        assert means(found) == pytest.approx([0.6, 0.51, 0.501])

    def test_count_a_trial_without_the_number_as_one_that_has_none(self):
        rows = trials_of(self.VALUES, lambda *_: 1.0)
        rows[0]["mm"], rows[1]["mm"] = math.nan, None
        rows[2]["status"] = "running"
        found = marginal_means(rows, NAMES[:3], "mm")
        assert sum(cell.n_finished for cell in found["lr"].groups) == 69
        assert not found["lr"].is_complete

    def test_of_a_whole_grid_are_over_all_settings_and_repetitions(self):
        found = marginal_means(trials_of(self.VALUES, lambda *_: 1.0), NAMES[:3], "mm")
        settings = list(itertools.product([0.1, 0.01, 0.001], [1, 2, 3, 4]))
        assert found["model"].basis == Basis(("lr", "layers"), settings, [], [0, 1, 2], [])
        alone = marginal_means(trials_of(([1, 2],), lambda *_: 1.0), NAMES[:1], "mm")["lr"]
        assert alone.basis == Basis((), [()], [], [0, 1, 2], [])

    def test_say_which_settings_and_repetitions_they_are_over(self):
        # One repetition failed with one model and learning rate, and this rate always failed with the other model.
        rows = trials_of(
            ([0.1, 0.01, 0.001], ["mlp", "gnn"], [0, 1]),
            lambda *_: 1.0,
            is_lost=lambda repetition, lr, model, layers: (
                (lr, model) == (0.1, "gnn") or (repetition, lr, model, layers) == (1, 0.001, "mlp", 0)
            ),
        )
        found = marginal_means(rows, NAMES[:3], "mm")["lr"]
        assert [(cell.n_averaged, cell.n_planned) for cell in found.groups] == [(4, 12)] * 3
        assert found.basis.paths == ("model", "layers")
        assert (found.basis.settings, found.basis.left_out) == ([("mlp", 0), ("mlp", 1)], [("gnn", 0), ("gnn", 1)])
        assert (found.basis.repetitions, found.basis.repetitions_left_out) == ([0, 2], [1])

    @given(st.data())
    def test_are_the_means_of_exactly_the_trials_that_they_say_they_are_over(self, data):
        values = [list(range(data.draw(st.integers(1, 4)))) for _ in range(3)]
        cells = list(itertools.product(range(3), *values))
        lost = data.draw(st.sets(st.sampled_from(cells)))
        numbers = {trial: float(place**2 % 7) for place, trial in enumerate(cells)}
        rows = trials_of(values, lambda *trial: numbers[trial], is_lost=lambda *trial: trial in lost)
        for path, found in marginal_means(rows, NAMES[:3], "mm").items():
            basis = found.basis
            assert sorted([*basis.settings, *basis.left_out]) == sorted(
                itertools.product(*(values[NAMES.index(other)] for other in basis.paths))
            )
            assert sorted([*basis.repetitions, *basis.repetitions_left_out]) == [0, 1, 2]
            for cell in found.groups:
                trials = [
                    row["mm"]
                    for row in rows
                    if (row[path],) == cell.values
                    and tuple(row[other] for other in basis.paths) in basis.settings
                    and row["repetition"] in basis.repetitions
                ]
                if cell.n_averaged:
                    assert len(trials) == cell.n_averaged
                    assert cell.estimate.mean == pytest.approx(np.mean(trials))
                else:
                    assert cell.estimate.mean is None
            assert bool(basis.settings) == bool(basis.repetitions) == any(cell.n_averaged for cell in found.groups)

    def test_of_a_sweep_in_which_nothing_finished_are_none(self):
        rows = trials_of(self.VALUES, lambda *_: 1.0, is_lost=lambda *_: True)
        found = marginal_means(rows, NAMES[:3], "mm")["model"]
        assert means(found) == [None, None]
        assert [cell.n_averaged for cell in found.groups] == [0, 0]
        assert (found.basis.settings, found.basis.repetitions) == ([], [])


class TestInteractions:
    VALUES = ([1, 2, 3], [1, 2, 3, 4], [1, 2])

    def test_are_what_two_effects_do_not_add_up_to(self):
        rows = trials_of(self.VALUES, lambda repetition, a, b, c: a + 10 * b + 7 * c + a * c)
        found = {interaction.means.paths: interaction for interaction in interactions(rows, NAMES[:3], "mm")}
        assert found["lr", "model"].share == pytest.approx(0, abs=1e-12)
        assert found["model", "layers"].share == pytest.approx(0, abs=1e-12)
        cells = np.array([[a + 7 * c + a * c for c in (1, 2)] for a in (1, 2, 3)])
        left = cells - cells.mean(axis=0) - cells.mean(axis=1, keepdims=True) + cells.mean()
        interaction = found["lr", "layers"]
        assert interaction.share == pytest.approx(left.var() / cells.var())
        assert interaction.size == pytest.approx(left.std())
        assert interaction.means.is_complete

    def test_come_with_the_mean_of_each_pair_and_the_largest_first(self):
        rows = trials_of(self.VALUES, lambda repetition, a, b, c: a * b + c)
        largest, *others = interactions(rows, NAMES[:3], "mm")
        assert largest.means.paths == ("lr", "model")
        assert all(other.share < largest.share for other in others)
        for cell in largest.means.groups:
            a, b = cell.values
            assert cell.estimate.mean == pytest.approx(a * b + 1.5)

    def test_are_whole_where_the_better_value_of_one_depends_on_the_other(self):
        rows = trials_of(([0, 1], [0, 1]), lambda repetition, a, b: a != b)
        assert interactions(rows, NAMES[:2], "mm")[0].share == pytest.approx(1)

    def test_are_told_from_the_pairs_that_are_left(self):
        def is_lost(repetition, a, b, c):
            return (a, b) == (3, 4)

        rows = trials_of(self.VALUES, lambda repetition, a, b, c: a + 10 * b + c, is_lost=is_lost)
        found = {interaction.means.paths: interaction for interaction in interactions(rows, NAMES[:3], "mm")}
        interaction = found["lr", "model"]
        assert interaction.share == pytest.approx(0, abs=1e-12)
        assert not interaction.means.is_complete
        assert means(interaction.means)[-1] is None

    def test_are_none_where_two_effects_explain_all_there_could_be(self):
        rows = trials_of(([1, 2], [1, 2]), lambda repetition, a, b: a * b, is_lost=lambda r, a, b: a == b == 2)
        [interaction] = interactions(rows, NAMES[:2], "mm")
        assert (interaction.share, interaction.size) == (None, None)

    @pytest.mark.parametrize("is_lost", [lambda *_: True, lambda *_: False])
    def test_are_none_where_nothing_differs(self, is_lost):
        [interaction] = interactions(trials_of(([1, 2], [1, 2]), lambda *_: 5.0, is_lost=is_lost), NAMES[:2], "mm")
        assert (interaction.share, interaction.size) == (None, None)

    def test_of_one_option_are_none_at_all(self):
        assert interactions(trials_of(([1, 2],), lambda *_: 5.0), NAMES[:1], "mm") == []


class TestImportances:
    VALUES = (list(range(8)), ["a", "b", "c", "d", "e"], [3e-4, 1e-3, 1.0, 1e3], [None, "[]"])

    @staticmethod
    def result(repetition, a, b, c, d):
        # Effects with the variances 5.25, 2 and 0.5, and an interaction of the first and the last with 1.3125.
        last = 1 if d is None else -1
        return repetition + a + ord(b) - 97 + (0.5**0.5) * (1 if c < 0.5 else -1) + 0.5 * (a - 3.5) * last

    SHARES = (("lr", 5.25 / 9.0625), ("model", 2 / 9.0625), ("layers", 0.5 / 9.0625), ("loss", 0.0))
    EXPECTED = pytest.approx(dict(SHARES))

    def test_of_a_whole_grid_are_the_known_shares_of_variance(self):
        found = importances(trials_of(self.VALUES, self.result), NAMES, "mm")
        assert found.shares == self.EXPECTED
        assert (len(found.averaged), len(found.means.groups)) == (320, 320)
        assert found.means.basis == Basis((), [()], [], [0, 1, 2], [])
        assert found.is_complete
        assert {path: found.is_above_chance(path) for path in NAMES} == dict(
            zip(NAMES, [True] * 3 + [False], strict=True)
        )

    def test_are_compared_with_chance_over_the_same_trials(self):
        draw = np.random.default_rng(0).normal
        rows = trials_of(
            ([3, 1, 2], ["a", "b"]), lambda repetition, a, b: draw() + 5 * a, is_lost=lambda r, *c: r == 1 and c[0] == 3
        )
        found = importances(rows, NAMES[:2], "mm")
        assert found.means.basis.repetitions == [0, 2]
        table = np.array(
            [[[row["mm"] for row in rows if (row["lr"], row["model"]) == (a, b)] for b in "ab"] for a in (1, 2, 3)],
            dtype=float,
        )
        assert list(found.chances.values()) == chances_of_grid(table[:, :, [0, 2]])
        assert [found.is_above_chance(path) for path in NAMES[:2]] == [True, False]

    @pytest.mark.parametrize(("n_repetitions", "n_lost"), [(1, 0), (3, 2)])
    def test_of_one_repetition_or_a_grid_with_holes_are_not_compared_with_chance(self, n_repetitions, n_lost):
        lost = [(i, i) for i in range(n_lost)]
        rows = trials_of(
            [range(4)] * 2, lambda r, a, b: r * a + b, n_repetitions=n_repetitions, is_lost=lambda r, *c: c in lost
        )
        found = importances(rows, NAMES[:2], "mm")
        assert (len(found.shares), found.chances) == (2, {})
        assert found.is_above_chance("lr") is None

    @pytest.mark.slow
    def test_of_a_grid_with_holes_are_nearly_those_of_the_whole(self):
        rng = np.random.default_rng(0)
        lost = {c for c in itertools.product(*self.VALUES) if rng.random() < 0.1}
        rows = trials_of(self.VALUES, self.result, is_lost=lambda repetition, *c: c in lost)
        found = importances(rows, NAMES, "mm")
        assert found.shares == pytest.approx(dict(self.SHARES), abs=0.03)
        assert (len(found.averaged), len(found.means.groups)) == (320 - len(lost), 320)
        assert not lost & {cell.values for cell in found.averaged}
        assert not found.is_complete
        assert importances(rows, NAMES, "mm") == found

    def test_rest_on_means_over_the_same_repetitions(self):
        # One repetition is a hundred times worse than the others, and half of its trials are missing.
        rows = trials_of(
            self.VALUES,
            lambda repetition, *c: self.result(0, *c) + 100 * (repetition == 2),
            is_lost=lambda repetition, a, *_: repetition == 2 and a < 4,
        )
        found = importances(rows, NAMES, "mm")
        assert found.shares == self.EXPECTED
        assert len(found.averaged) == 320
        assert (found.means.basis.repetitions, found.means.basis.repetitions_left_out) == ([0, 1], [2])

    def test_are_the_same_in_any_order_of_numbers(self):
        a, b, c, d = self.VALUES
        rows = trials_of((a[::-1], b, [c[2], c[0], c[3], c[1]], d), self.result)
        assert importances(rows, NAMES, "mm").shares == self.EXPECTED

    def test_are_empty_where_nothing_differs_or_nothing_finished(self):
        assert importances(trials_of(self.VALUES, lambda *_: 4.0), NAMES, "mm").shares == {}
        nothing = importances(trials_of(self.VALUES, lambda *_: 4.0, is_lost=lambda *_: True), NAMES, "mm")
        assert (nothing.shares, nothing.averaged, len(nothing.means.groups)) == ({}, [], 320)

    def test_are_none_of_an_option_of_which_one_value_is_left(self):
        rows = trials_of(self.VALUES, self.result, is_lost=lambda repetition, a, b, c, d: d is None)
        shares = importances(rows, NAMES, "mm").shares
        assert list(shares) == ["lr", "model", "layers"]
        assert sum(shares.values()) == pytest.approx(1)

    @pytest.mark.parametrize(("n_lost", "are_there"), [(0, True), (4, True), (5, False)])
    def test_of_a_grid_with_holes_need_a_dozen_combinations(self, n_lost, are_there):
        lost = [(i, i) for i in range(4)] + [(0, 1)]
        rows = trials_of([range(4)] * 2, lambda repetition, a, b: a + b, is_lost=lambda r, *c: c in lost[:n_lost])
        found = importances(rows, NAMES[:2], "mm")
        assert len(found.averaged) == 16 - n_lost
        assert list(found.shares) == (list(NAMES[:2]) if are_there else [])

    def test_of_a_small_grid_are_known_where_it_is_whole(self):
        rows = trials_of([range(2)] * 2, lambda repetition, a, b: a + b)
        assert importances(rows, NAMES[:2], "mm").shares == pytest.approx({"lr": 0.5, "model": 0.5})

    def test_of_a_whole_grid_load_no_optuna(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "optuna", None)
        assert importances(trials_of(self.VALUES, self.result), NAMES, "mm").shares == self.EXPECTED


OPTIONS = {
    "lr": Option([0.1, 0.01], frozenset()),
    "model": Option(["mlp", "gnn"], frozenset()),
    "layers": Option([1, 2, 3], frozenset({"model"})),
    "loss": Option(["a", "b"], frozenset({"model"})),
}


class TestOptionsWithConditions:
    """`layers` applies to mlp alone and `loss` to gnn alone; both depend on the model."""

    @staticmethod
    def rows(result, **changes):
        kinds = [*(("mlp", layers, "–") for layers in (1, 2, 3)), ("gnn", "–", "a"), ("gnn", "–", "b")]
        of_kinds = [
            trials_of(([0.1, 0.01], [model], [layers], [loss]), result, **changes) for model, layers, loss in kinds
        ]
        return [row for rows in of_kinds for row in rows]

    @staticmethod
    def result(repetition, lr, model, layers, loss):
        return repetition + 10 * lr + (layers if loss == "–" else 7 + 5 * (loss == "b"))

    def found(self, of=marginal_means, **changes):
        return of(self.rows(self.result, **changes), NAMES, "mm", OPTIONS)

    def test_have_no_value_where_they_do_not_apply(self):
        found = self.found()
        assert [cell.values for cell in found["layers"].groups] == [(1,), (2,), (3,)]
        assert means(found["layers"]) == pytest.approx([1 + 0.55 + n for n in (1, 2, 3)])
        assert [cell.n_planned for cell in found["loss"].groups] == [6, 6]
        assert found["loss"].basis == Basis(("lr",), [(0.1,), (0.01,)], [], [0, 1, 2], [])
        assert all(of_option.is_complete for of_option in found.values())

    def test_are_averaged_within_each_value_of_the_one_that_they_depend_on(self):
        found = self.found()["model"]
        assert means(found) == pytest.approx([1 + 0.55 + 2, 1 + 0.55 + 9.5])
        assert [cell.n_averaged for cell in found.groups] == [18, 12]
        assert found.basis == Basis(("lr",), [(0.1,), (0.01,)], [], [0, 1, 2], [], ("layers", "loss"))

    def test_leave_the_others_averaged_over_the_same_combinations(self):
        found = self.found()["lr"]
        assert means(found) == pytest.approx([1 + 10 * lr + (3 * 2 + 2 * 9.5) / 5 for lr in (0.1, 0.01)])
        assert len(found.basis.settings) == 5

    def test_count_in_a_mean_of_a_model_only_where_all_of_them_have_finished(self):
        found = self.found(is_lost=lambda repetition, lr, model, layers, loss: (lr, layers) == (0.1, 3))["model"]
        assert means(found) == pytest.approx([1 + 0.1 + 2, 1 + 0.1 + 9.5])
        assert found.basis.settings == [(0.01,)]

    def test_that_a_search_has_not_all_proposed_leave_no_mean_of_a_model(self):
        rows = [row for row in self.rows(self.result) if (row["lr"] == 0.1) == (row["layers"] in (1, "–"))]
        found = marginal_means(rows, NAMES, "mm", OPTIONS)["model"]
        assert means(found)[0] is None
        assert found.groups[0].n_finished == 9

    def test_that_depend_on_two_others_are_averaged_where_they_apply(self):
        # The layers vary with mlp and the larger lr alone.
        options = {**OPTIONS, "layers": Option([1, 2, 3], frozenset({"model", "lr"}))}
        rows = [row for row in self.rows(self.result) if row["lr"] == 0.1 or row["layers"] in (1, "–")]
        rows = [row | {"layers": "–"} if row["lr"] == 0.01 else row for row in rows]
        found = marginal_means(rows, NAMES, "mm", options)
        assert means(found["model"]) == pytest.approx([1 + 0.55 + (2 + 1) / 2, 1 + 0.55 + 9.5])
        assert [cell.n_averaged for cell in found["model"].groups] == [12, 12]
        assert found["lr"].is_complete

    def test_with_a_single_value_where_they_apply_have_no_means(self):
        rows = [row for row in self.rows(self.result) if row["layers"] in (1, "–")]
        assert list(marginal_means(rows, NAMES, "mm", OPTIONS)) == ["lr", "model", "loss"]

    def test_interact_only_with_options_that_vary_together_with_them(self):
        found = self.found(interactions)
        pairs = {interaction.means.paths for interaction in found}
        assert pairs == {("lr", "model"), ("lr", "layers"), ("lr", "loss")}
        assert all(interaction.share == pytest.approx(0, abs=1e-12) for interaction in found)

    def test_are_averaged_in_the_importances_of_the_others(self):
        found = self.found(importances)
        assert found.means.paths == ("lr", "model")
        means_of_grid = np.array([[10 * lr + mm for mm in (2, 9.5)] for lr in (0.1, 0.01)])
        of_lr = means_of_grid.mean(axis=1).var() / means_of_grid.var()
        assert found.shares == pytest.approx({"lr": of_lr, "model": 1 - of_lr})

    def test_leave_no_importance_to_the_only_option_that_applies_to_all(self):
        rows = [row for row in self.rows(self.result) if row["lr"] == 0.1]
        found = importances(rows, NAMES[1:], "mm", OPTIONS)
        assert (found.shares, found.means.paths) == ({}, ("model",))


def test_values_are_in_the_order_of_the_script_where_a_search_proposed_them_in_another():
    rows = trials_of(([0.001, 0.1, 0.01],), lambda repetition, lr: lr)
    options = {"lr": Option([0.1, 0.01, 0.001, 0.0001], frozenset())}
    found = marginal_means(rows, ["lr"], "mm", options)["lr"]
    assert [cell.values for cell in found.groups] == [(0.1,), (0.01,), (0.001,)]
    assert means(found) == pytest.approx([0.1, 0.01, 0.001])

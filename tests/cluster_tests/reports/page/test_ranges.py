import re

import numpy as np
import pytest

from cluster.reports.page.choice import choice
from cluster.reports.page.data import PageData
from cluster.reports.page.effects import effects
from cluster.reports.page.parallel import parallel_coordinates
from tests.cluster_tests.experiment_files import write_records
from tests.cluster_tests.reports.page.test_page import HOSTILE, Document
from tests.cluster_tests.results_files import write_json, write_race
from tests.cluster_tests.searched_results import LR, drawn_proposals, error_of, write_searched_results


def charts(folder):
    """The charts by the name of their setting."""
    (section,) = effects(PageData.read(folder))
    found = re.findall("<figure.*?</figure>", section)
    return {re.search(r"<figcaption>([^:]*): ", chart)[1]: chart for chart in found}


def dots(chart):
    """The positions of the dots, in the units of the drawing."""
    (path,) = re.findall(r'<path class="dots" d="([^"]*)"', chart)
    return np.array([list(map(float, place.split())) for place in re.findall(r"M([^h]+)h0", path)])


def test_a_range_has_a_dot_for_each_combination_on_its_own_scale(tmp_path):
    found = charts(write_searched_results(tmp_path))
    assert list(found) == ["lr", "dropout", "model"]
    at = dots(found["lr"])
    ordered = sorted(drawn_proposals(), key=error_of)
    exponents, errors = (np.array([of(options) for options in ordered]) for of in (lambda o: np.log10(o[LR]), error_of))
    assert np.corrcoef(at[:, 0], exponents)[0, 1] > 0.9999
    below = errors < np.quantile(errors, 0.75)
    assert np.corrcoef(at[below, 1], errors[below])[0, 1] < -0.9999
    assert re.findall(r'y="274" text-anchor="middle">([^<]*)', found["lr"]) == [
        "1e-05",
        "0.0001",
        "0.001",
        "0.01",
        "0.1",
    ]


def test_a_smooth_line_and_its_band_follow_the_errors(tmp_path):
    lr = charts(write_searched_results(tmp_path))["lr"]
    (line,) = re.findall(r'<path class="line validation" d="M([^"]*)"', lr)
    x, y = np.array([list(map(float, place.split())) for place in line.split("L")]).T
    lowest = x[y.argmax()]  # down the page
    ticks = dict(zip(*[iter(re.findall(r'M([\d.]+) 256v4|text-anchor="middle">([^<]*)', lr))] * 2, strict=False))
    at = {text: float(place) for (place, _), (_, text) in ticks.items() if place}
    assert at["0.0001"] < lowest < at["0.01"]
    assert 'class="band validation"' in lr


def test_few_combinations_have_no_line(tmp_path):
    assert 'class="line' not in charts(write_searched_results(tmp_path, drawn_proposals(8)))["lr"]


def test_where_a_range_does_not_apply_it_has_no_dot_and_says_so(tmp_path):
    dropout = charts(write_searched_results(tmp_path))["dropout"]
    assert len(dots(dropout)) == 18
    assert "It does not apply to 6 combinations." in dropout


def test_an_option_has_a_strip_with_the_median_of_each_value(tmp_path):
    model = charts(write_searched_results(tmp_path))["model"]
    assert re.findall(r'y="274" text-anchor="middle">([^<]*)', model) == ["mlp", "gnn"]
    assert model.count('class="line validation"') == 2
    at = dots(model)
    assert sorted([(at[:, 0] < 240).sum(), (at[:, 0] > 240).sum()]) == [6, 18]


def test_diverged_combinations_are_at_the_edge_and_missing_ones_are_counted(tmp_path):
    errors = [[error_of(options)] for options in drawn_proposals()]
    errors[5] = [None]
    folder = write_searched_results(tmp_path, errors=errors)
    write_json(folder.trial(f"{7:016x}/0"), {"status": "diverged", "error": "it diverged"})
    (section,) = effects(PageData.read(folder))
    assert "Not shown because repetitions are missing: 1 combination." in section
    lr = charts(folder)["lr"]
    assert len(dots(lr)) == 22
    assert re.search(r'class="cross" d="M[\d.]+ 8\.0l8 8m0 -8l-8 8"', lr)


def test_a_raced_search_has_a_dot_for_each_combination_at_the_first_rung_of_its_round(tmp_path):
    found = drawn_proposals(12)
    errors = [[error_of(options)] if place in (0, 6) else ["interrupted"] for place, options in enumerate(found)]
    folder = write_searched_results(tmp_path, found, errors)
    keys = [f"{place:016x}" for place in range(12)]
    rounds = [
        {key: ([5 + error_of(options)], "best" if key == of_round[0] else "behind") for key, options in of}
        for of_round, of in ((keys[i : i + 6], zip(keys[i : i + 6], found[i : i + 6], strict=True)) for i in (0, 6))
    ]
    rounds[1][keys[0]] = [5.0], "earlier finalist"  # a guest counts where it competed itself
    write_race(folder, {(bracket, 0): (1, rung) for bracket, rung in enumerate(rounds)}, data="a_val")
    for place, key in enumerate(keys):
        write_records(folder, f"{key}/0", [20.0] * (27 if place in (0, 6) else 1))
    cost = "".join(choice(PageData.read(folder)))
    assert "The 12 combinations of the search took 64 epochs." in cost
    assert len(dots(cost)) == 2
    (section,) = effects(PageData.read(folder))
    assert "its mean validation error at epoch 1, the first rung of the race, where all 12 combinations" in section
    assert "Not shown" not in section
    assert len(dots(charts(folder)["lr"])) == 12


def test_the_best_is_marked(tmp_path):
    lr = charts(write_searched_results(tmp_path))["lr"]
    (mark,) = re.findall(r'<circle class="after" cx="([\d.]+)"', lr)
    assert float(mark) == pytest.approx(dots(lr)[0, 0], abs=1)


def test_the_page_says_that_a_search_does_not_sample_evenly(tmp_path):
    (section,) = effects(PageData.read(write_searched_results(tmp_path)))
    assert "A search need not sample evenly" in section


def test_parallel_axes_of_ranges_have_round_numbers_and_lines_pass_what_does_not_apply(tmp_path):
    found = list(parallel_coordinates(PageData.read(write_searched_results(tmp_path))))
    (plot,) = Document("".join(found)).data("axes-data")
    axes = {axis["name"]: axis for axis in plot["axes"]}
    assert [text for _, text in axes["lr"]["ticks"]] == ["0.0001", "0.001", "0.01"]
    for name, scale in (("lr", np.log10), ("dropout", np.asarray)):
        low, high = (scale(axes[name]["values"][end]) for end in (0, -1))
        for place, text in axes[name]["ticks"]:
            assert place == pytest.approx((scale(float(text)) - low) / (high - low), abs=1e-3)
    assert axes["dropout"]["places"].count(-1) == 6
    assert axes["model"]["ticks"] is None


def test_how_soon_the_best_was_found_follows_the_order_of_proposals(tmp_path):
    folder = write_searched_results(tmp_path)
    for place in range(24):
        write_records(folder, f"{place:016x}/0", [20.0, 10.0])
    text = next(text for text in choice(PageData.read(folder)) if 'id="cost"' in text)
    errors = [error_of(options) for options in drawn_proposals()]
    number = int(np.argmin(errors)) + 1
    assert f"proposed as number {number}: the search had found it after {100 * number / 24:.0f} %" in text
    assert "How soon the search found the best" in text
    assert "random" not in text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_stay_text(tmp_path, hostile):
    axes = [{"paths": [hostile], "range": {"low": 0, "high": 9}}, {"paths": ["b"], "rows": [[hostile], ["y"]]}]
    found = [{hostile: float(i), "b": hostile if i % 2 else "y"} for i in range(10)]
    folder = write_searched_results(tmp_path, found, [[9.0 + i] for i in range(10)], axes)
    document = Document("".join(effects(PageData.read(folder))))
    assert {name for name, _ in document.elements} <= {
        *("section", "h2", "p", "figure", "figcaption", "svg", "title", "path", "text", "circle", "span", "div"),
    }


@pytest.mark.parametrize("odd", [1e300, -1e300, 1e-300, 0.0, float("nan"), float("inf")])
@pytest.mark.parametrize("n_odd", [1, 12])
def test_odd_numbers_of_damaged_files_do_no_harm(tmp_path, odd, n_odd):
    found = drawn_proposals(12)
    for options in found[:n_odd]:
        options[LR] = odd
    errors = [[odd]] * n_odd + [[9.0]] * (12 - n_odd)
    page = PageData.read(write_searched_results(tmp_path, found, errors))
    assert not re.search(r"[\" ML](nan|inf)\b", "".join(effects(page)))
    list(parallel_coordinates(page))

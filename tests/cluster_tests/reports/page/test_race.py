import re

import numpy as np
import pytest

from cluster.racing.successive_halving import SuccessiveHalving
from cluster.reports.page.data import PageData
from cluster.reports.page.race import race
from tests.cluster_tests.experiment_files import write_experiment
from tests.cluster_tests.replayed_race import drawn_curves, write_replayed_race
from tests.cluster_tests.reports.page.test_page import HOSTILE, Document
from tests.cluster_tests.results_files import experiment_json, write_race, write_raced_results

A, B, C, D = (f"{place:016x}" for place in range(4))


def section(folder):
    (found,) = race(PageData.read(folder))
    return found


def curves(text):
    """The text of each curve, by its look."""
    return re.findall(r'<g class="(\w+)"><title>(.*?)</title>', text)


def table(text):
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", text)[1:]]


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    rule = SuccessiveHalving(reduction_factor=3, first_repetitions=1)
    folder, _, replay = write_replayed_race(tmp_path_factory.mktemp("race"), drawn_curves(24, n_diverged=2), rule)
    return section(folder), replay


def test_each_combination_has_a_curve_with_its_options_and_why_it_ends(replayed):
    text, replay = replayed
    found = curves(text)
    assert [kind for kind, _ in found] == ["dropped"] * 21 + ["finalist"] * 2 + ["best"]
    n = int(replay.winner, 16)
    assert re.fullmatch(rf"lr {n // 2} with weight decay {n % 2}: trained to the end, \S+ mm", found[-1][1])
    assert sum("dropped at epoch 3: it diverged" in words for _, words in found) == 2
    assert sum("dropped at epoch 3 with" in words for _, words in found) == 14
    assert sum("dropped at epoch 9 with" in words for _, words in found) == 5


def test_the_table_has_the_rungs(replayed):
    text, _ = replayed
    rows = table(text)
    n_epochs = [24 * 3, 16 * 3 + 3 * 8 * 9, 16 * 3 + 3 * (5 * 9 + 3 * 27)]
    assert [row[:7] for row in rows] == [
        ["3", "24", "1", "8", "0", "2", f"{n_epochs[0]}"],
        ["9", "8", "3", "3", "0", "0", f"{n_epochs[1]}"],
        ["27", "3", "3", "–", "–", "–", f"{n_epochs[2]}"],
    ]
    assert f"the race takes {n_epochs[2]} of the 1,944 epochs" in text
    best = [float(row[7]) for row in rows[1:]]
    assert best == sorted(best, reverse=True), "over the same repetitions the best error only falls"
    assert [re.fullmatch(r"[−\d.]+ \((\d+)\)", row[-1])[1] for row in rows[:-1]] == ["8", "3"]
    assert "It covers only those that stayed." in text


def test_says_what_the_race_cost_and_that_other_repetitions_are_no_comparison(replayed):
    text, replay = replayed
    assert f"of the 1,944 epochs that training all would take ({100 * replay.cost:.0f} %)" in text
    assert "Means are over 1 repetition up to the first rung, and over 3 from there" in text
    assert "in vain" not in text


def test_marks_those_that_stayed_only_because_they_were_close(tmp_path):
    text = section(write_raced_results(tmp_path))
    assert [words for _, words in curves(text) if "at epoch 1 it stayed only because it was close to the best" in words]
    assert text.count('<circle class="before"') == 1


def test_an_open_race_has_no_finalists_yet(tmp_path):
    folder = write_experiment(tmp_path / "race", [({"lr": i}, [None, None]) for i in range(4)])
    first = {A: ([9.0, 9.2], "best"), B: ([9.5, 9.1], "best"), C: ([9.9, 9.9], "behind"), D: ([11.0, 9.0], "behind")}
    text = section(write_race(folder, {(0, 0): (1, first)}, data="a_val"))
    assert "2 of 4 combinations continue after epoch 1; the race is still open." in text
    assert "others still in the race" in text
    (row,) = table(text)
    assert row[-1] == "–"


def test_a_later_bracket_is_a_race_of_its_own_whose_guests_cost_nothing(tmp_path):
    folder = write_experiment(tmp_path / "race", [({"lr": i}, [None]) for i in range(4)])
    first = {A: ([9.0], "best"), B: ([9.5], "behind")}
    later = {C: ([8.5], "best"), A: ([9.0], "earlier finalist"), D: ([9.5], "behind")}
    decisions = {(0, 0): (3, first), (1, 0): (3, later)}
    text = section(write_race(folder, decisions, data="a_val", n_rungs=2))
    assert re.findall("<h3>(.*?)</h3>", text) == ["a_val", "a_val, bracket 2"]
    assert text.count("It covers only those that stayed.") == 1, "the columns are explained once"
    assert text.count("12 of the 18 epochs that training all would take (67 %)") == 2
    assert [row[6] for row in table(text) if row[0] == "3"] == ["6", "6"]
    assert "2 of 3 combinations, 1 of them finalists of earlier brackets, stayed to the end." in text


def test_many_dropped_combinations_are_drawn_as_a_sample(tmp_path):
    n = 700
    folder = write_experiment(tmp_path / "race", [({"lr": i}, [None]) for i in range(n)])
    reached = {f"{i:016x}": ([9.0 + i / n], "best" if i < 100 else "behind") for i in range(n)}
    text = section(write_race(folder, {(0, 0): (3, reached)}, data="a_val"))
    assert len(curves(text)) == 200 + 40
    assert (
        "The chart shows only 200 of 600 dropped combinations (evenly over all ranks) and the best 40 of 100 others."
        in text
    )
    drawn = [int(words[3:].partition(":")[0]) for kind, words in curves(text) if kind == "dropped"]
    assert (min(drawn), max(drawn)) == (100, 699)
    assert len(text) < 100_000


def test_without_a_race_there_is_no_section(tmp_path):
    assert race(PageData.read(write_experiment(tmp_path / "grid", [({"lr": i}, [9.0]) for i in range(7)]))) == []


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_stay_text(tmp_path, hostile):
    folder = write_experiment(tmp_path / "race", [({"a": hostile * i, hostile: i}, [None]) for i in range(4)])
    reached = {A: ([9.0], "best"), B: ([9.5], "best"), C: ([float("inf")], "diverged"), D: ([10.0], "behind")}
    document = Document(section(write_race(folder, {(0, 0): (3, reached)}, data="a_val")))
    assert {name for name, _ in document.elements} <= {
        *("section", "h2", "p", "figure", "figcaption", "svg", "g", "title", "path", "text", "circle", "span", "div"),
        *("table", "caption", "thead", "tbody", "tr", "th", "td"),
    }


@pytest.mark.parametrize("values", [[1e300] * 4, [0.0] * 4, [5e-324, 1e300, 9.0, 9.0], [float("inf")] * 4])
@pytest.mark.parametrize("field", [{}, {"epoch": 0}, {"num_epochs": 0}, {"n_rungs": 1}])
def test_odd_numbers_of_damaged_files_do_no_harm(tmp_path, values, field):
    folder = write_experiment(tmp_path / "race", [({"lr": i}, [None]) for i in range(4)])
    reasons = ["best", "best", "behind", "diverged"]
    reached = {f"{i:016x}": ([mm], reason) for i, (mm, reason) in enumerate(zip(values, reasons, strict=True))}
    write_race(folder, {(0, 0): (3, reached)}, data="a_val")
    name = "race/a_val/0-0.json"
    text = folder.storage.read(name).decode()
    for setting, value in field.items():
        text = re.sub(rf'("{setting}"): \d+', rf"\1: {value}", text)
    folder.storage.write(name, text.encode())
    assert experiment_json(folder)["configs"]["experiment_config"]["race"]
    with np.errstate(all="raise"):
        found = section(folder)
    assert not re.search(r"[\" ML](nan|inf)\b", found.partition("<table")[0])

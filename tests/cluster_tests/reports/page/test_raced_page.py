"""The page of a raced experiment."""

import json
import re

import pytest

from cluster.reports.page.choice import choice
from cluster.reports.page.data import PageData
from cluster.reports.page.effects import effects
from cluster.reports.page.parallel import parallel_coordinates
from cluster.reports.page.sections import combinations
from cluster.reports.page.sentences import findings, gaps
from tests.cluster_tests.results_files import write_race, write_raced_results, write_results


@pytest.fixture
def data(tmp_path):
    return PageData.read(write_raced_results(tmp_path))


def test_has_an_unranked_table_of_dropped_combinations(data):
    ranked, dropped = re.findall(r"<table.*?</table>", combinations(data), re.DOTALL)
    assert re.findall('data-key="(.)"', ranked) == ["a", "b"]
    assert re.findall('data-key="(.)"', dropped) == ["d", "c", "e", "f"]
    assert [one["key"] for one in data.for_scripts()["combinations"]] == ["a", "b"]


def test_compares_and_counts_only_what_was_trained_to_the_end(data):
    assert set(data.comparisons) == {"b"}
    text = " ".join(findings(data))
    assert "2 of 6 combinations were trained to the end; the race dropped the others." in text
    assert "it is the best of 2 combinations that were trained to the end" in text
    assert "not finished yet" not in " ".join(gaps(data))


def test_has_the_effects_at_the_first_rung(data):
    [section] = effects(data)
    assert "Mean distance on the validation set, at epoch 1, the first rung of the race, where all 6" in section


def test_has_a_paragraph_for_a_paper(data):
    assert "<p>All 6 combinations of lr (0.1, 0.2, 0.3) and dim (8, 16) were compared" in combinations(data)


def test_has_lines_for_the_rows_of_the_table(data):
    text = "".join(parallel_coordinates(data))
    [plot] = json.loads(re.search(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)[1])
    assert plot["n"] == len(plot["axes"][0]["places"]) == 2


def test_has_neither_shares_nor_the_cost_of_a_search_because_a_race_drops_nothing_at_random(tmp_path):
    kept = {f"k{place}": ({"lr": place}, [6.0 + place, 6.5 + place]) for place in range(8)}
    folder = write_results(tmp_path, {**kept, "z": ({"lr": 9}, [None, None])})
    rung = {**dict.fromkeys(kept, ([8.0], "best")), "z": ([9.0], "behind")}
    text = "".join(choice(PageData.read(write_race(folder, {(0, 0): (1, rung)}))))
    assert "The best two in validation" in text
    assert "In validation, the best of 8 combinations that were trained to the end is " in text
    assert "% of the variance" not in text
    assert "What a search could save" not in text

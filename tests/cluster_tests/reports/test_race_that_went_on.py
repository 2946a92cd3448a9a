"""What the page, captions and methods say of races whose combinations diverge later, come back, or become longer."""

import re

import pytest
import torch

from cluster.experiment import TrialsFailedError
from cluster.racing.successive_halving import SuccessiveHalving
from cluster.reports.methods import methods_paragraph
from cluster.reports.page import choice, pictures
from cluster.reports.page.data import PageData
from cluster.reports.page.race import race
from cluster.reports.tables.captions import dropped
from cluster.reports.tables.first_rung import at_first_rung
from cluster.results.choice.race_course import race_courses
from cluster.searching.search import Search
from tests.cluster_tests.small_experiment import LR

EPOCHS = "solver_config.num_epochs"
RACE = {
    EPOCHS: 8,
    "experiment_config.n_repetitions": 2,
    "experiment_config.keep_state": "all",
    "experiment_config.race": SuccessiveHalving(min_epochs=2, min_finalists=2, max_cost=0.01),
}
LRS = {LR: [1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2]}


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch):
    monkeypatch.setattr(pictures, "draw", lambda data, folder: pictures.Pictures([], None))


def without_weights(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)


def diverges(trial_id, report, model):
    """A callback after which the second repetition of each finalist diverges."""
    if trial_id.endswith("/1") and report.epoch == 6:
        without_weights(model)


def section_of(table):
    (section,) = race(PageData.read(table.folder))
    return section


def test_a_finalist_that_diverges_after_the_last_decision_was_not_trained_to_the_end(small_experiment):
    with pytest.raises(TrialsFailedError) as ended:
        small_experiment.run({**RACE, "solver_config.callbacks": [diverges]}, LRS)
    table = ended.value.table
    assert dropped(table) == [
        "2 of 6 combinations stayed to the end, but 2 of these diverged in some repetitions; the race dropped the "
        "others."
    ]
    assert "2 combinations were trained to the end, except that 2 diverged in some repetitions" in methods_paragraph(
        table
    )
    assert re.findall(r"diverged after epoch (\d), where it had 17\.\d\d mm", section_of(table)) == ["4", "4"]


def test_what_a_race_dropped_and_a_grid_trained_later_is_said_to_be_complete(small_experiment):
    for rule in (RACE["experiment_config.race"], None, RACE["experiment_config.race"]):
        table = small_experiment.run({**RACE, "experiment_config.race": rule}, LRS)
    assert dropped(table) == []
    text = methods_paragraph(table)
    assert "6 combinations were trained to the end, 4 of them without the race, which dropped them;" in text
    assert "4 dropped combinations trained to the end without the race, before or after it." in section_of(table)


def test_longer_trainings_next_to_those_that_raced_did_not_race(small_experiment):
    n_epochs = []

    def note(trial_id, report, model):
        n_epochs.append(1)

    changes = {**RACE, "solver_config.callbacks": [note]}
    small_experiment.run(changes, LRS)
    n_raced = len(n_epochs)
    options = {**LRS, EPOCHS: [8, 16]}
    table = small_experiment.run(changes, options)
    (text,) = small_experiment.experiment(changes, options).plan().races
    assert text.startswith(f"race of 12 combinations on small_val: {len(n_epochs):,} of {2 * 6 * 16:,} epochs")
    assert f"the race takes {n_raced} of the {2 * 6 * 8} epochs" in section_of(table)
    assert "after epoch 2, 3 of 6 combinations stayed" in methods_paragraph(table)
    combinations, data = {*table.repetitions}, PageData.read(table.folder)
    later = small_experiment.run(changes, {LR: [*LRS[LR], 2e-3, 4e-3, 6e-3], EPOCHS: [8, 16]})
    assert "6 more raced later, together with the finalists so far" in methods_paragraph(later)
    *_, course = race_courses(later, data.logged.curves)
    assert course.guests == {competitor.key for competitor in course.decisions[0].combinations} & combinations
    assert len(course.guests) == 4
    values = at_first_rung(table).results.values("val_distance_mm")
    assert sum(None not in of_one for of_one in values.values()) == 6


def test_how_soon_a_search_found_the_best_counts_the_combinations_that_diverged(small_experiment):
    seen = {}

    def first_diverge(trial_id, report, model):
        if seen.setdefault(trial_id, len(seen)) < 4:
            without_weights(model)

    changes = {"experiment_config.search": Search("sobol", 12, 12), "solver_config.callbacks": [first_diverge]}
    experiment = small_experiment.experiment(changes)
    experiment.add_range(LR, 1e-5, 1e-2, log=True)
    with pytest.raises(TrialsFailedError) as ended:
        experiment.run("inline")
    table = ended.value.table
    best = [trial["key"] for trial in table.trials].index(table.summary[0]["key"])
    sections = "".join(choice.choice(PageData.read(table.folder)))
    assert "The 12 combinations of the search took 20 epochs." in sections
    assert f"The best one was proposed as number {best + 1}:" in sections

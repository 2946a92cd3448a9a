"""A search with Ray, killed in the middle, compared with the same search in one process."""

import json
import os
import signal

import pytest

from tests.cluster_tests.sweep import Sweep, finished, wait_for, write_sweep_data

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SEARCH = {"sampler": "tpe", "n_combinations": 14, "round_size": 4}


def decided(sweep):
    """The rounds of a search, and its plan."""
    rounds = {path.name: path.read_bytes() for path in sweep.folder.glob("search/*")}
    return rounds, json.loads((sweep.folder / "experiment.json").read_text())["plan"]


def test_a_raced_search_whose_driver_and_worker_were_killed_decides_what_one_process_does(tmp_path):
    write_sweep_data(tmp_path)
    spec = {
        "search": {**SEARCH, "round_size": 7},
        "race": {"min_epochs": 1, "min_finalists": 1},
        "experiment_config": {"n_repetitions": 1},
    }
    inline = Sweep(tmp_path, tmp_path / "inline", **spec)
    assert inline.run(executor="inline").code == 0
    sweep = Sweep(tmp_path, tmp_path / "ray", **spec)
    process = sweep.start(slow=0.05)
    wait_for(sweep.batches, process)
    os.kill(sweep.batches()[-1][0], signal.SIGKILL)
    wait_for(lambda: len(decided(sweep)[0]) == 2, process)
    process.kill()
    process.communicate()
    result = sweep.run()
    assert result.code == 0, result.errors
    assert len(sweep.decisions()) == 4
    assert sweep.decisions() == inline.decisions()
    assert decided(sweep) == decided(inline)
    assert sweep.finalists() == inline.finalists()


def test_a_search_whose_driver_was_killed_decides_and_trains_what_one_process_does(tmp_path):
    write_sweep_data(tmp_path)
    spec = {"search": SEARCH, "experiment_config": {"n_repetitions": 1}, "solver_config": {"num_epochs": 2}}
    inline = Sweep(tmp_path, tmp_path / "inline", **spec)
    assert inline.run(executor="inline").code == 0
    sweep = Sweep(tmp_path, tmp_path / "ray", **spec)
    process = sweep.start(slow=0.05)
    wait_for(lambda: len(finished(sweep)) >= 6, process)
    process.kill()
    process.communicate()
    assert len(finished(sweep)) < 14
    result = sweep.run()
    assert result.code == 0, result.errors
    assert len(decided(sweep)[0]) == 4
    assert decided(sweep) == decided(inline)
    assert sweep.numbers() == inline.numbers()

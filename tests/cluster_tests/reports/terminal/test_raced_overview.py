"""The list of experiments, after a race."""

from cluster.reports.terminal.overview import experiment_status, statuses_text
from tests.cluster_tests.results_files import write_raced_results


def test_a_race_is_complete_although_trials_were_dropped(tmp_path):
    status = experiment_status(write_raced_results(tmp_path / "raced"), "raced")
    assert status.state == "complete, with failures"  # a trial diverged
    assert (status.ended, status.trials, status.dropped) == (12, 12, 6)
    assert "12/12, 6 dropped" in statuses_text([status])
    assert (status.best_mm, status.n) == (6.5, 2)

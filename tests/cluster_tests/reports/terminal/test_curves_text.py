"""Learning curves in the terminal."""

import plotext

from cluster.reports.terminal.trial_logs import curves_text
from cluster.results.results import Results
from cluster.storage.records import to_parquet
from posenet.record import Record
from tests.cluster_tests.results_files import write_results


def test_a_mean_covers_the_log_points_that_all_repetitions_have(tmp_path, monkeypatch):
    """The log frequency is not part of a training: repetitions that were added later may have another one."""
    drawn = []
    monkeypatch.setattr(plotext, "plot", lambda *xy, **look: drawn.append(xy))
    folder = write_results(tmp_path, {"a": ({"lr": 1}, [9.0, 9.0])})
    for repetition, errors_mm in enumerate(
        [{(1, 4): 40, (2, 4): 20}, {(1, 2): 60, (1, 4): 40, (2, 2): 30, (2, 4): 20}]
    ):
        records = [Record(*at, "val", "mean", "original", "distance", mm) for at, mm in errors_mm.items()]
        folder.trial(f"a/{repetition}").write("records.parquet", to_parquet(f"a/{repetition}", records))
    curves_text(Results.read(folder), [], in_colour=False)
    assert drawn == [([1.0, 2.0], [40.0, 20.0])]

"""The report page that a run leaves: `with_reports` lets runs in this process write it."""

import pytest

from cluster import experiment as experiment_module
from cluster.experiment import Interrupted, TrialsFailedError
from posenet.models import CorrectorMLP
from tests.cluster_tests.tiny import LR, FailingMLP, InterruptedMLP

pytestmark = pytest.mark.usefixtures("with_reports")


def report_of(tiny):
    return tiny.folder / "report.html"


def test_stands_in_the_experiments_folder_and_is_told_of(tiny, capsys):
    tiny.run({}, {LR: [1e-3, 1e-2]})
    page = report_of(tiny).read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "2 finished" in page
    assert "It is running now" not in page
    assert f"Report: {report_of(tiny)}\n" in capsys.readouterr().out


def test_is_written_anew_when_the_sweep_has_grown(tiny):
    tiny.run()
    first = report_of(tiny).read_text(encoding="utf-8")
    tiny.run({}, {LR: [1e-3, 1e-2]})
    assert "1 finished" in first
    assert "2 finished" in report_of(tiny).read_text(encoding="utf-8")


def test_names_the_trials_that_failed(tiny):
    with pytest.raises(TrialsFailedError):
        tiny.run({}, {"model": [CorrectorMLP, FailingMLP]})
    page = report_of(tiny).read_text(encoding="utf-8")
    assert "1 finished, 1 failed" in page
    assert "RuntimeError: this model is broken" in page


def test_that_cannot_be_made_costs_no_result(tiny, capsys, monkeypatch):
    def broken(folder, results):
        raise ArithmeticError("a curve without an end\nand more")

    monkeypatch.setattr(experiment_module, "page", broken)
    table = tiny.run()
    assert [row["status"] for row in table.trials] == ["finished"]
    assert not report_of(tiny).exists()
    said = capsys.readouterr().err
    assert said.endswith(
        "\nreport.html was not written (a curve without an end); all results are complete, see tables/\n"
    )


def test_does_not_hold_up_whoever_interrupts(tiny):
    with pytest.raises(Interrupted):
        tiny.run({}, {"model": [CorrectorMLP, InterruptedMLP]})
    assert (tiny.folder / "tables" / "summary.txt").exists()
    assert not report_of(tiny).exists()


def test_takes_the_place_of_a_link_and_not_of_what_it_leads_to(tiny, tmp_path):
    outside = tmp_path / "outside"
    tiny.folder.mkdir(parents=True)
    report_of(tiny).symlink_to(outside)
    tiny.run()
    assert not outside.exists()
    assert not report_of(tiny).is_symlink()
    assert report_of(tiny).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")

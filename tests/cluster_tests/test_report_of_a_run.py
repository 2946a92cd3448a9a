"""The report page that a run leaves: `with_reports` lets runs in this process write it."""

import pytest

from cluster import experiment as experiment_module
from cluster.experiment import Interrupted, TrialsFailedError
from posenet.models import CorrectorMLP
from tests.cluster_tests.small_experiment import LR, FailingMLP, InterruptedMLP

pytestmark = pytest.mark.usefixtures("with_reports")


def report_of(small_experiment):
    return small_experiment.folder / "report.html"


@pytest.mark.slow
def test_stands_in_the_experiments_folder_and_is_told_of(small_experiment, capsys):
    small_experiment.run({}, {LR: [1e-3, 1e-2]})
    page = report_of(small_experiment).read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "2 finished" in page
    assert "It is running now" not in page
    assert f"Report: {report_of(small_experiment)}\n" in capsys.readouterr().out


@pytest.mark.slow
def test_is_written_anew_when_the_sweep_has_grown(small_experiment):
    small_experiment.run()
    first = report_of(small_experiment).read_text(encoding="utf-8")
    small_experiment.run({}, {LR: [1e-3, 1e-2]})
    assert "1 finished" in first
    assert "2 finished" in report_of(small_experiment).read_text(encoding="utf-8")


@pytest.mark.slow
def test_names_the_trials_that_failed(small_experiment):
    with pytest.raises(TrialsFailedError):
        small_experiment.run({}, {"model": [CorrectorMLP, FailingMLP]})
    page = report_of(small_experiment).read_text(encoding="utf-8")
    assert "1 finished, 1 failed" in page
    assert "RuntimeError: this model is broken" in page


def test_that_cannot_be_made_costs_no_result(small_experiment, capsys, monkeypatch):
    def broken(folder, results):
        raise ArithmeticError("a curve without an end\nand more")

    monkeypatch.setattr(experiment_module, "page", broken)
    table = small_experiment.run()
    assert [row["status"] for row in table.trials] == ["finished"]
    assert not report_of(small_experiment).exists()
    said = capsys.readouterr().err
    assert said.endswith(
        "\nreport.html was not written (a curve without an end); all results are complete, see tables/\n"
    )


def test_does_not_hold_up_whoever_interrupts(small_experiment):
    with pytest.raises(Interrupted):
        small_experiment.run({}, {"model": [CorrectorMLP, InterruptedMLP]})
    assert (small_experiment.folder / "tables" / "summary.txt").exists()
    assert not report_of(small_experiment).exists()


@pytest.mark.slow
def test_takes_the_place_of_a_link_and_not_of_what_it_leads_to(small_experiment, tmp_path):
    outside = tmp_path / "outside"
    small_experiment.folder.mkdir(parents=True)
    report_of(small_experiment).symlink_to(outside)
    small_experiment.run()
    assert not outside.exists()
    assert not report_of(small_experiment).is_symlink()
    assert report_of(small_experiment).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.slow
def test_needs_no_library_that_a_run_does_not_import_during_the_training(finished_results, python):
    done = python(
        "import sys\n"
        "from importlib import import_module\n"
        "from cluster.experiment import page\n"
        "from cluster.training import LIBRARIES_OF_THE_REPORT\n"
        "from cluster.storage.filesystem import Storage\n"
        "from cluster.storage.folders import ExperimentFolder\n"
        "for library in LIBRARIES_OF_THE_REPORT: import_module(library)\n"
        "before = {name.partition('.')[0] for name in sys.modules}\n"
        f"page(ExperimentFolder(Storage({str(finished_results)!r}) / 'small_experiment'))\n"
        "print({name.partition('.')[0] for name in sys.modules} - before)"
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")

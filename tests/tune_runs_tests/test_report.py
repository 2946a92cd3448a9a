import importlib.util
import json
import re
import shlex
import shutil
import sys
import time
from argparse import Namespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.experiment import TrialsFailedError
from cluster.reports.draw import FIGURES
from cluster.reports.terminal.command_line import TRACKERS, parser
from cluster.storage.filesystem import Storage
from cluster.storage.lock import experiment_lock
from posenet.models import CorrectorMLP
from tests.cluster_tests.experiment_files import STARTED, write_experiment, write_records
from tests.cluster_tests.results_files import write_fold_results, write_results
from tests.cluster_tests.small_experiment import LR, FailingMLP, SmallExperiment, write_datasets
from tests.support import ROOT

SCRIPT = ROOT / "tune_runs" / "report.py"
SHAPE = '{"name": "x", "options": [], "configs": {"experiment_config": {}}, "plan": {"seeds": [1], "combinations": []}}'
NAMES = ["broken", "complete", "failures", "other", "unfinished"]
WITH_JSON = {"list", "show", "effects", "compare", "diff", "log", "methods", "race", "reproduce", "rm", "clean"}


def load_script():
    spec = importlib.util.spec_from_file_location("report", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT_MODULE = load_script()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Experiments: `complete`, `failures`, `unfinished`, and two that are broken; a folder and a file next to them."""
    folder = tmp_path_factory.mktemp("report")
    write_datasets(folder / "data")
    small_experiment = SmallExperiment(folder / "data", folder / "results")
    complete = small_experiment.run(
        {"experiment_config.name": "complete", "experiment_config.n_repetitions": 2}, {LR: [1e-3, 1e-2]}
    )
    with pytest.raises(TrialsFailedError) as failed:
        small_experiment.run({"experiment_config.name": "failures"}, {"model": [CorrectorMLP, FailingMLP]})
    small_experiment.run({"experiment_config.name": "unfinished"}, {LR: [1e-3, 1e-2]})
    (folder / "results" / "unfinished" / "trials" / complete.trials[0]["key"] / "0" / "trial.json").unlink()
    for name, content in {"broken": "{", "other": SHAPE}.items():
        (folder / "results" / name).mkdir()
        (folder / "results" / name / "experiment.json").write_text(content)
    (folder / "results" / "empty").mkdir()
    (folder / "results" / "file").touch()
    return folder / "results", complete, str(failed.value)


@pytest.fixture
def results(trained):
    return trained[0]


@pytest.fixture
def keys(trained):
    """The keys of the combinations of `complete`, the best first."""
    return [row["key"] for row in trained[1].summary]


@pytest.fixture
def run(results, capsys):
    """Runs the script in this process and returns exit status, stdout and stderr."""

    def run(*arguments, storage_path=results):
        try:
            status = SCRIPT_MODULE.main([*map(str, arguments), "--storage-path", str(storage_path)])
        except SystemExit as end:  # the parser rejects the arguments
            status = end.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def run_json(run):
    """Runs a command with --json and returns what it printed, by a strict reader."""

    def run_json(*arguments, **how):
        status, output, errors = run(*arguments, "--json", **how)
        assert (status, errors) == (0, "")
        return json.loads(output, parse_constant=pytest.fail)

    return run_json


def snapshot(folder):
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in folder.rglob("*")}


class TestIntervals:
    """Real trials, which keep the errors of their frames."""

    def test_of_changes_are_shown_if_they_are_asked_for(self, run, run_json):
        _, output, _ = run("show", "complete", "--intervals")
        assert len(re.findall(r" % \[[+−]\d+\.\d, [+−]\d+\.\d\]", output)) == 2
        assert "In brackets: 95 % interval of the change over frames" in " ".join(output.split())
        for row in run_json("show", "complete", "--intervals")["combinations"]:
            assert row["val_change_mm_ci_low"] < row["val_change_mm"] < row["val_change_mm_ci_high"]
        assert "interval" not in run("show", "complete")[1]

    def test_of_changes_are_exported_if_they_are_asked_for(self, run):
        tables = [
            run("export", "complete", "table", "--format", "latex", *asked)[1] for asked in ((), ("--intervals",))
        ]
        assert ["In brackets" in " ".join(table.split()) for table in tables] == [False, True]


class TestList:
    def test_has_a_row_for_each_experiment_with_its_state(self, run):
        status, output, errors = run("list")
        assert (status, errors) == (0, "")
        heading, _, *rows = output.splitlines()
        assert " ".join(heading.split()) == "experiment state trials done best (mm) on n size started"
        states = {row.split()[0]: " ".join(row.split()[1:]) for row in rows}
        assert list(states) == NAMES
        assert states["complete"].startswith("complete 4/4 ")
        assert "±" in states["complete"]
        assert " val 2 " in states["complete"]
        assert states["failures"].startswith("complete, with failures 2/2 ")
        assert states["unfinished"].startswith("unfinished 1/2 ")
        assert states["broken"] == states["other"] == "broken – – – – – –"

    @pytest.mark.parametrize(
        ("outcomes", "state"),
        [
            (["failed", "diverged"], "failed"),
            (["failed", "failed", None, None], "failed"),
            (["failed", "interrupted"], "unfinished, with failures"),
            ([9.0, "failed", None], "unfinished, with failures"),
            ([9.0, "failed"], "complete, with failures"),
            ([9.0, None], "unfinished"),
            ([None, None], "unfinished"),
        ],
    )
    def test_tells_what_failed_from_what_can_be_continued(self, run_json, tmp_path, outcomes, state):
        write_results(tmp_path / "sweep", {"a": ({}, outcomes)})
        assert [one["state"] for one in run_json("list", storage_path=tmp_path)] == [state]

    def test_has_the_size_of_all_files(self, run_json, results):
        sizes = {row["name"]: row["size_bytes"] for row in run_json("list")}
        for name in ("complete", "failures"):
            assert sizes[name] == sum(path.stat().st_size for path in (results / name).rglob("*") if path.is_file())

    def test_for_a_script_has_the_same(self, run_json, trained):
        complete = next(row for row in run_json("list") if row["name"] == "complete")
        best = trained[1].summary[0]
        assert (complete["state"], complete["trials"], complete["ended"], complete["n"]) == ("complete", 4, 4, 2)
        assert (complete["best_mm"], complete["best_std_mm"]) == (
            best["val_distance_mm_mean"],
            best["val_distance_mm_std"],
        )

    def test_tells_what_runs_now(self, run, results):
        with experiment_lock(Storage(results / "unfinished")):
            output = run("list")[1]
        (row,) = (row for row in output.splitlines() if row.startswith("unfinished"))
        assert row.split()[1:3] == ["running", "1/2"]
        (row,) = (row for row in run("list")[1].splitlines() if row.startswith("unfinished"))
        assert row.split()[1] == "unfinished"

    def test_of_an_experiment_that_cannot_be_read_says_that_it_is_broken(self, run, tmp_path):
        (tmp_path / "folder" / "experiment.json").mkdir(parents=True)
        archived = write_experiment(tmp_path / "part", [({"lr": 1}, [9.0])])
        archived.storage.write("archive/000001-00000000.trials.parquet", b"PAR1")
        (tmp_path / "link").symlink_to(tmp_path / "part")
        status, output, _ = run("list", storage_path=tmp_path)
        assert status == 0
        assert [row.split()[:2] for row in output.splitlines()[2:]] == [
            [name, "broken"] for name in ("folder", "link", "part")
        ]

    def test_of_a_folder_without_experiments_says_so(self, run, results):
        assert run("list", storage_path=results / "empty") == (0, f"{results / 'empty'} has no experiments\n", "")

    @pytest.mark.parametrize("command", [["list"], ["show", "complete"], ["clean"]])
    @pytest.mark.parametrize("folder", ["none", "file"])
    def test_as_every_command_says_where_there_is_no_folder_at_all(self, run, results, command, folder):
        path = results / folder
        says = f"error: there is no results folder {path}; choose one with --storage-path\n"
        assert run(*command, storage_path=path) == (2, "", says)

    def test_tells_when_an_experiment_was_started_also_of_a_copy(self, run, run_json, trained, tmp_path):
        before = time.time()
        write_experiment(tmp_path / "results" / "written", [({"lr": 1}, [9.0])])
        shutil.copytree(trained[0] / "complete", tmp_path / "results" / "complete")
        complete, written = run_json("list", storage_path=tmp_path / "results")
        assert before - 3600 < complete["started"] < before
        assert written["started"] == STARTED
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(STARTED))
        assert run("list", storage_path=tmp_path / "results")[1].splitlines()[-1].endswith(day)

    @pytest.mark.slow
    def test_of_a_remote_filesystem_has_no_size(self, run, run_json, tmp_path):
        write_datasets(tmp_path)
        location = "fsspec+memory:///test_report/results"
        SmallExperiment(tmp_path, location).run()
        run("list", storage_path=location)
        (row,) = run_json("list", storage_path=location)
        assert (row["name"], row["state"], row["ended"]) == ("small_experiment", "complete", 1)
        assert row["size_bytes"] is None
        assert run("show", "small_experiment", storage_path=location)[0] == 0


class TestShow:
    def test_prints_the_summary_keys_state_and_place(self, run, results, keys):
        status, output, errors = run("show", "complete")
        assert (status, errors) == (0, "")
        summary = (results / "complete" / "tables" / "summary.txt").read_text().splitlines()
        assert all(line in output for line in summary if line.endswith(" %"))  # with a key before it
        assert [line for line in summary if not line.endswith(" %")][-2:] == output.splitlines()[-6:-4]
        assert [line.split()[0] for line in output.splitlines() if "±" in line and "%" in line] == [k[:4] for k in keys]
        assert output.endswith(f"State: complete\nAll files: {results / 'complete'}/\n")

    def test_shows_the_errors_of_the_best_by_group(self, run, run_json):
        status, output, _ = run("show", "complete", "--by", "finger")
        assert status == 0
        assert [line.split()[0] for line in output.splitlines() if line.startswith(("all", "thumb", "pinky"))] == [
            "all",
            "thumb",
            "pinky",
        ]
        groups = run_json("show", "complete", "--by", "finger")["groups"]
        assert [row["finger"] for row in groups] == ["all", "thumb", "index", "middle", "ring", "pinky"]
        assert run("export", "complete", "table", "--by", "finger", "--format", "json")[1].startswith("[")

    def test_shows_as_much_of_the_keys_as_tells_them_apart(self, run, tmp_path):
        write_experiment(tmp_path / "sweep", [({"lr": place}, [9.0 + place]) for place in range(50)])  # keys count up
        output = run("show", "sweep", storage_path=tmp_path)[1]
        assert [line[:16] for line in output.splitlines() if line.startswith("000")] == [f"{n:016x}" for n in range(40)]
        assert "and 10 more combinations" in output

    @pytest.mark.parametrize(("name", "state"), [("failures", "complete, with failures"), ("unfinished", "unfinished")])
    def test_tells_the_state(self, run, results, name, state):
        assert f"State: {state}\n" in run("show", name)[1]
        with experiment_lock(Storage(results / name)):
            assert f"State: {state} (running now)\n" in run("show", name)[1]

    def test_names_what_failed(self, run):
        assert "RuntimeError: this model is broken" in run("show", "failures")[1]

    def test_for_a_script_has_both_tables(self, run_json, trained, results):
        shown = run_json("show", "complete")
        assert shown["combinations"] == trained[1].summary
        assert shown["trials"] == trained[1].trials
        assert (shown["options"], shown["splits"], shown["running"]) == ([LR], ["val"], False)
        assert shown["folder"] == str(results / "complete")

    def test_for_a_script_is_json_where_a_trial_has_no_number_and_warns_of_it(self, run, tmp_path):
        write_experiment(tmp_path / "sweep", [({"lr": 1}, [float("nan")])])
        status, text, warning = run("show", "sweep", "--json", storage_path=tmp_path)
        assert (status, warning) == (
            0,
            "warning: trials/0000000000000000/0/trial.json: metrics are missing or not valid, so the trial counts as "
            "interrupted\n",
        )
        (trial,) = json.loads(text, parse_constant=pytest.fail)["trials"]
        assert trial["status"] == "interrupted"
        assert trial["val_distance_mm"] is None

    @pytest.mark.parametrize("name", ["broken", "other"])
    def test_of_a_broken_one_says_so(self, run, results, name):
        status, text, error = run("show", name)
        assert (status, text) == (2, "")
        why = f"error: {results / name} holds no experiment (experiment.json is missing or broken): "
        assert error.startswith(why)

    def test_reads_and_changes_nothing(self, run, results):
        before = snapshot(results)
        run("show", "complete")
        run("list")
        run("log", "complete", "best")
        assert snapshot(results) == before


class TestAnExperimentThatIsNotThere:
    @pytest.mark.parametrize("command", sorted(SCRIPT_MODULE.COMMANDS.keys() - {"list"}))
    def test_is_an_error_of_every_command_with_one_that_is_close(self, run, results, tmp_path, command):
        more = {
            "compare": ["complete"],
            "diff": ["best", "best"],
            "log": ["best"],
            "reproduce": ["best", "0"],
            "export": ["table", "--format", "csv"],
            "figure": ["curves", "--out", tmp_path / "x.pdf"],
            "rm": ["--yes"],
            "clean": ["--yes"],
        }
        status, output, errors = run(command, "complet", *more.get(command, []))
        assert (status, output) == (2, "")
        assert errors == f"error: no experiment 'complet' in {results}; did you mean 'complete'?\n"

    @pytest.mark.parametrize("name", ["xyz", "empty", "file", "", ".", "..", "../results", "complete/trials"])
    def test_is_an_error_with_all_that_there_are(self, run, results, name):
        status, _, errors = run("show", name)
        assert status == 2
        assert errors.startswith(f"error: no experiment {name!r} in {results}; ")
        assert errors.endswith((f"known: {', '.join(NAMES)}\n", "did you mean 'complete'?\n", "'failures'?\n"))

    def test_where_there_is_none_at_all_says_so(self, run, tmp_path):
        assert (
            run("show", "x", storage_path=tmp_path)[2]
            == f"error: no experiment 'x' in {tmp_path}, which has no experiments\n"
        )


class TestCompareAndDiff:
    def test_two_experiments_are_compared_and_a_third_with_the_first(self, run, run_json):
        status, output, errors = run("compare", "complete", "unfinished", "failures")
        assert (status, errors) == (0, "")
        assert "difference (mm)" in output
        found = run_json("compare", "complete", "unfinished", "failures")
        assert [one["experiments"] for one in found] == [["complete", "unfinished"], ["complete", "failures"]]

    def test_one_alone_is_an_error(self, run):
        status, _, errors = run("compare", "complete")
        assert status == 2
        assert errors.endswith("posetune report compare: error: the following arguments are required: NAME\n")

    def test_two_combinations_differ_in_their_option(self, run, run_json, trained, keys):
        lrs = [f"{row[LR]}" for row in trained[1].summary]
        status, output, errors = run("diff", "complete", "best", keys[1][:8])
        assert (status, errors) == (0, "")
        assert ["optimizer_args.lr", *lrs] in [line.split() for line in output.splitlines()]
        found = run_json("diff", "complete", *keys)
        assert found["differences"] == {"optimizer_args.lr": lrs}
        assert found["comparison"]["n"] == 2

    def test_an_unknown_key_is_an_error_with_those_that_there_are(self, run, keys):
        status, _, errors = run("diff", "complete", "best", "xyz")
        assert status == 2
        known = ", ".join(key[:4] for key in keys)
        assert errors == f"error: complete has no combination 'xyz'; known: {known} (`show` has all)\n"


class TestLog:
    def test_has_the_log_points_and_results_of_each_repetition(self, run, keys):
        status, output, errors = run("log", "complete", "best")
        assert (status, errors) == (0, "")
        for repetition in (0, 1):
            assert f"{keys[0]}/{repetition}: finished (lr = " in output
        assert output.count("validation (mm)") == 2
        assert output.count("validation set: ") == 2

    def test_of_what_failed_is_shown_by_the_command_that_the_run_names(self, trained, results, capsys):
        command = shlex.split(trained[2].rpartition("\n")[2])
        assert command[:4] == ["posetune", "report", "log", "failures"]
        assert command[-2:] == ["--storage-path", str(results)]
        SCRIPT_MODULE.main(command[2:])
        assert "Traceback (most recent call last):" in capsys.readouterr().out

    def test_has_the_traceback_of_what_failed(self, run, run_json):
        failed = next(t for t in run_json("show", "failures")["trials"] if t["status"] == "failed")
        output = run("log", "failures", failed["key"])[1]
        assert "Traceback (most recent call last):" in output
        assert output.endswith("RuntimeError: this model is broken\nand has more to say\n")
        (log,) = run_json("log", "failures", failed["key"])
        assert log["error"].startswith("RuntimeError: this model is broken")
        assert log["curve"] == {}

    def test_of_one_repetition_has_that_alone(self, run_json, trained, keys):
        (log,) = run_json("log", "complete", f"{keys[1]}/1")
        trial = next(row for row in trained[1].trials if (row["key"], row["repetition"]) == (keys[1], 1))
        assert (log["trial"], log["seed"]) == (f"{keys[1]}/1", trial["seed"])
        assert log["distance_mm"] == {"val": [trial["val_distance_before_mm"], trial["val_distance_mm"]]}
        assert log["curve"]["epochs"] == [1, 2]
        assert min(log["curve"]["val_mm"]) == pytest.approx(trial["val_distance_mm"])

    def test_of_many_options_is_headed_by_short_names_in_lines_of_a_terminal(self, run, tmp_path):
        options = [f"optimizer_args.{'x' * 20}_{place}" for place in range(9)]
        write_experiment(tmp_path / "sweep", [(dict.fromkeys(options, value), [9.0]) for value in (1, 2)])
        head, _, _ = run("log", "sweep", "best", storage_path=tmp_path)[1].partition("\n\n")
        assert max(map(len, head.splitlines())) <= 80
        assert "optimizer_args" not in head
        assert " ".join(head.split()).endswith(f"{'x' * 20}_8 = 1), seed 100, 1.5 s on None of None")

    @pytest.mark.parametrize("repetition", ["2", "-1", "x", ""])
    def test_of_a_repetition_that_is_not_there_says_which_are(self, run, keys, repetition):
        status, _, errors = run("log", "complete", f"best/{repetition}")
        assert status == 2
        assert errors == f"error: {keys[0]} of complete has no repetition {repetition!r}; it has repetitions 0 to 1\n"


class TestCurves:
    def test_are_drawn_with_a_line_for_each_combination_below(self, run, keys):
        status, output, errors = run("curves", "complete")
        assert (status, errors) == (0, "")
        assert "complete: validation error (mm) over epochs" in output
        *_, first, second = output.splitlines()
        assert first.startswith(f"xx {keys[0][:4]}  lr ")
        assert second.startswith(f"** {keys[1][:4]}  lr ")
        assert "\x1b" not in output

    def test_are_means_over_finished_trials_and_say_how_many(self, run, tmp_path):
        folder = write_experiment(tmp_path / "sweep", [({"lr": 1}, [5.0, 7.0, "boom"])])
        for repetition, start in enumerate((9.0, 11.0, 900.0)):
            write_records(folder, f"{0:016x}/{repetition}", [start, 5.0])
        output = run("curves", "sweep", storage_path=tmp_path)[1]
        assert output.splitlines()[-1].endswith("(n = 2)")
        assert "10.0" in output
        assert "300" not in output

    def test_of_some_combinations_are_theirs_alone(self, run, keys):
        output = run("curves", "complete", keys[1][:6])[1]
        assert f" {keys[1][:4]}  lr " in output
        assert f" {keys[0][:4]}  lr " not in output

    @pytest.mark.parametrize(
        ("n_epochs", "ticks"), [(2, "0 1 2"), (37, "0 5 10 15 20 25 30 37"), (100, "0 20 40 60 80 100")]
    )
    def test_end_at_the_last_epoch(self, run, tmp_path, n_epochs, ticks):
        folder = write_experiment(tmp_path / "sweep", [({"lr": 1}, [9.0])])
        write_records(folder, f"{0:016x}/0", [9.0 + 1 / (epoch + 1) for epoch in range(n_epochs)])
        lines = run("curves", "sweep", storage_path=tmp_path)[1].splitlines()
        assert lines[-2].split() == ticks.split()

    def test_of_what_has_logged_nothing_are_an_error(self, run, run_json):
        failed = next(t for t in run_json("show", "failures")["trials"] if t["status"] == "failed")
        status, _, errors = run("curves", "failures", failed["key"])
        assert status == 2
        assert errors == "error: no trial of these combinations of failures has logged anything yet\n"

    def test_are_drawn_where_a_loss_is_no_number(self, run, tmp_path):
        folder = write_experiment(tmp_path / "sweep", [({"lr": 1}, [9.0])])
        write_records(folder, f"{0:016x}/0", [9.0, float("nan"), 8.0])
        assert run("curves", "sweep", storage_path=tmp_path)[0] == 0


class TestWhatWasMeasuredOnSeveralData:
    """Results on one are never ranked with results on another."""

    @pytest.fixture
    def several(self, tmp_path):
        lr, test_set = "optimizer_args.lr", "experiment_config.test_set"
        sets = {
            "aaaa1": ("easy", 1, 3.0),
            "bbbb2": ("hard", 1, 8.0),
            "cccc3": ("easy", 2, 9.0),
            "dddd4": ("hard", 2, 7.0),
        }
        rows = {key: ({test_set: name, lr: rate}, [mm, mm + 1]) for key, (name, rate, mm) in sets.items()}
        folder = write_results(tmp_path / "sweep", rows, name="sweep")
        for key in rows:
            write_records(folder, f"{key}/0", [9.0, 8.0])
        return tmp_path

    def test_is_shown_together(self, run, several):
        output = run("show", "sweep", storage_path=several)[1]
        assert [line[:4] for line in output.splitlines() if "±" in line and "%" in line] == [
            "aaaa",
            "cccc",
            "dddd",
            "bbbb",
        ]
        assert "validation first; those measured on the same data are listed together." in " ".join(output.split())

    def test_has_no_best_in_the_list(self, run, run_json, several):
        row = run("list", storage_path=several)[1].splitlines()[2]
        assert row.split()[:9] == ["sweep", "complete", "8/8", "2", "sets", "of", "data", "–", "–"]
        (one,) = run_json("list", storage_path=several)
        assert (one["best_mm"], one["best_std_mm"], one["split"], one["n"]) == (None,) * 4
        assert [(best["data"], best["split"], best["best_mm"], best["n"]) for best in one["best_of_each"]] == [
            ("easy", "test", 3.5, 2),
            ("hard", "test", 7.5, 2),
        ]

    def test_has_the_curves_of_the_best_on_each(self, run, several):
        *_, first, second = run("curves", "sweep", storage_path=several)[1].splitlines()
        assert first.startswith("xx aaaa  easy: lr 1: 2.50 ")
        assert second.startswith("** dddd  hard: lr 2: 6.50 ")

    @pytest.mark.parametrize("command", [["log", "best"], ["diff", "best", "aaaa"], ["curves", "best"]], ids=" ".join)
    def test_has_no_best_to_name(self, run, several, command):
        status, output, errors = run(command[0], "sweep", *command[1:], storage_path=several)
        assert (status, output) == (2, "")
        assert errors == (
            "error: sweep was measured on 2 sets of data; name a combination. "
            "The best of each: aaaa (easy), dddd (hard)\n"
        )


class TestEffects:
    @pytest.fixture
    def folder(self, tmp_path):
        combinations = [({"lr": lr, "decay": d}, [9.0 + lr + d, 9.1 + lr + d]) for lr in (1, 2) for d in (0, 1)]
        write_experiment(tmp_path / "sweep", combinations)
        return tmp_path

    def test_are_the_means_of_each_value_and_the_interactions(self, run, folder):
        status, output, errors = run("effects", "sweep", storage_path=folder)
        assert (status, errors) == (0, "")
        lines = [line.split() for line in output.splitlines()]
        assert [line[:3] for line in lines if line[:1] in (["lr"], ["2"], ["decay"])] == [
            *(["lr", "1", "11.55"], ["2", "12.55", "11.91"], ["decay", "0", "11.55"], ["lr", "decay", "0.0"]),
        ]

    def test_for_a_script_have_all_digits(self, run, run_json, folder):
        found = run_json("effects", "sweep", "--split", "val", storage_path=folder)
        assert found["name"] == "sweep"
        (effects,) = found["effects"]
        assert effects["metric"] == "val_distance_mm"
        assert [mean["mean"] for mean in effects["options"][0]["means"]] == pytest.approx([10.55, 11.55])

    def test_are_printed_or_written_as_a_table(self, run, folder):
        status, output, errors = run("export", "sweep", "effects", "--format", "latex", storage_path=folder)
        assert (status, errors) == (0, "")
        assert "\\label{tab:sweep-effects}" in output
        path = folder / "interactions.csv"
        arguments = ["export", "sweep", "effects", "--interactions", "--out", path]
        assert run(*arguments, storage_path=folder) == (0, f"{path}\n", "")
        assert path.read_text().splitlines()[1].startswith("lr,decay,")

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (
                ["effects", "sweep", "--interactions"],
                "posetune report effects: error: unrecognized arguments: --interactions",
            ),
            (["effects", "sweep", "--json", "--format", "csv"], "error: unrecognized arguments: --format csv"),
            (
                ["export", "sweep", "effects", "--json"],
                "posetune report export NAME effects: error: unrecognized arguments: ",
            ),
            (["effects", "sweep", "--metric", "distanc"], "there is no metric 'distanc'; did you mean 'distance'?"),
            (["export", "sweep", "effects", "--out", "x.doc"], "x.doc must end in one of .csv"),
            (["export", "sweep", "effects", "--format", "xlsx"], "cannot be printed; give a file: --out FILE"),
        ],
    )
    def test_that_cannot_be_are_an_error(self, run, folder, arguments, says):
        status, output, errors = run(*arguments, storage_path=folder)
        assert (status, output) == (2, "")
        assert says in errors

    def test_of_an_experiment_without_options_are_an_error(self, run, tmp_path):
        write_experiment(tmp_path / "sweep", [({"lr": 1}, [9.0])])
        assert run("effects", "sweep", storage_path=tmp_path) == (
            2,
            "",
            "error: sweep has no effects of options: no option has more than one value\n",
        )


class TestAFileThatExists:
    @pytest.mark.parametrize(
        "arguments",
        [
            *(["export", "complete", kind, "--out", "x.csv"] for kind in ("table", "trials", "effects")),
            ["export", "complete", "table", "--by", "joint", "--out", "x.csv"],
            ["figure", "complete", "joints", "--out", "x.svg"],
            ["html", "complete", "--out", "x.html"],
        ],
    )
    def test_is_overwritten_with_force_only(self, run, tmp_path, monkeypatch, arguments):
        monkeypatch.chdir(tmp_path)
        file = tmp_path / arguments[-1]
        file.write_text("mine")
        says = f"error: {file.name} exists; choose another name, or overwrite it with --force\n"
        assert run(*arguments) == (2, "", says)
        assert file.read_text() == "mine"
        assert run(*arguments, "--force")[::2] == (0, "")
        assert file.read_text() != "mine"


HOSTILE = "\x1b[2J\x1b]0;title\x07 \x9b31m \r\x08 \u202e µ → 手"


class TestTextOfOtherPeople:
    @pytest.fixture
    def folder(self, tmp_path):
        """An experiment whose folder, name, option, its values and error contain what controls a terminal."""
        name = "sweep \x1b[31m"
        options = [{f"model_args.{HOSTILE}": f"{place} {HOSTILE}"} for place in range(2)]
        folder = write_experiment(
            tmp_path / name, [(options[0], [9.0, 9.5]), (options[1], [10.0, HOSTILE])], name=f"sweep {HOSTILE}"
        )
        for repetition in range(2):
            write_records(folder, f"{0:016x}/{repetition}", [9.5, 9.0])
        return tmp_path, name

    @pytest.mark.parametrize(
        "command",
        [
            *("list", "show NAME", "log NAME 0000000000000001", "curves NAME", "effects NAME", "compare NAME NAME"),
            *("diff NAME 0000000000000000 0000000000000001", "export NAME table --format md", "clean", "rm NAME"),
            *("export NAME trials --format csv", "show NAME --json", "show NAM", "log NAME x"),
        ],
    )
    def test_is_shown_and_controls_no_terminal(self, run, folder, command):
        storage_path, name = folder
        arguments = [name if word == "NAME" else word for word in command.split()]
        _, output, errors = run(*arguments, storage_path=storage_path)
        assert not set("\x1b\x9b\x07\x08\r\u202e") & set(output + errors)
        has_none = command.startswith(("clean", "diff"))  # nothing to remove, and no difference
        assert has_none or "\\u001b" in output + errors

    def test_completes_no_name_while_one_types(self, folder):
        storage_path, _ = folder
        write_experiment(storage_path / "sweep µ", [({}, [9.0])])
        (commands,) = parser("", SCRIPT_MODULE.COMMANDS)._subparsers._group_actions
        (name,) = (action for action in commands.choices["show"]._actions if action.dest == "name")
        assert name.completer(prefix="sw", parsed_args=Namespace(storage_path=str(storage_path))) == ["sweep µ"]

    def test_is_json_with_the_same_content(self, run_json, folder):
        storage_path, name = folder
        found = run_json("show", name, storage_path=storage_path)
        assert found["name"] == f"sweep {HOSTILE}"
        assert {row["error"] for row in found["trials"]} == {None, HOSTILE}


class TestExport:
    def test_prints_a_table_or_writes_a_file(self, run, tmp_path, trained):
        status, output, errors = run("export", "complete", "table", "--format", "csv")
        assert (status, errors) == (0, "")
        assert len(output.splitlines()) == 3
        for ending in ("csv", "json", "md", "tex", "html", "parquet", "xlsx"):
            path = tmp_path / f"table.{ending}"
            assert run("export", "complete", "table", "--out", path) == (0, f"{path}\n", "")
            assert path.stat().st_size > 0
        assert (tmp_path / "table.csv").read_text().rstrip("\n") == output.rstrip("\n")

    def test_takes_columns_with_blanks_or_commas_between(self, run):
        outputs = [
            run("export", "complete", "table", "--format", "csv", "--columns", *columns)[1]
            for columns in (["lr", "n", "after"], ["lr,n,after"], ["lr", "--columns", "n,after"])
        ]
        assert outputs[0] == outputs[1] == outputs[2]
        assert outputs[0].splitlines()[0].count(",") >= 2

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["table"], "give a format (--format csv, json, parquet, xlsx, md, latex, html) or a file"),
            (["table", "--out", "x.doc"], "x.doc must end in one of .csv, .json, .parquet, .xlsx, .md, .tex, .html"),
            (["table", "--format", "xlsx"], "cannot be printed; give a file: --out FILE"),
            (["pivot", "--format", "md", "--rows", "lr"], "the following arguments are required: --columns"),
            (["table", "--format", "md", "--columns", "lrr"], "did you mean 'optimizer_args.lr'?"),
            (["tensorboard"], "export NAME tensorboard: error: the following arguments are required: --out"),
            (["table", "--format", "md", "--standalone"], "--standalone needs --format latex, not md"),
            (["table", "--out", "x.tex", "--format", "csv"], "--format csv does not match the extension of x.tex"),
            (["table", "--out", "none/x.csv"], "none/x.csv cannot be written: there is no folder none"),
            (["table", "--out", "x.csv", "--standalone"], "--standalone needs --format latex, not csv"),
            (["table", "--out", "x.csv", "--fit", "column"], "--fit needs --format latex, not csv"),
            (["table", "--format", "md", "--size", "small"], "--size needs --format latex, not md"),
            (["table", "--format", "md", "--best", "1", "--best-for-each", "lr"], "not allowed with argument --best"),
            (
                ["--format", "md"],
                "posetune report export: error: argument KIND: invalid choice: 'md' (choose from 'table', ",
            ),
        ],
    )
    def test_says_what_is_missing(self, run, arguments, says):
        status, output, errors = run("export", "complete", *arguments)
        assert (status, output) == (2, "")
        assert says in errors

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("table", ["--rows lr", "--interactions"]),
            ("trials", ["--rows lr", "--best 1", "--best-for-each lr", "--by joint", "--interactions"]),
            ("pivot", ["--sort n", "--best 1", "--best-for-each lr", "--interactions"]),
            ("effects", ["--columns lr", "--sort n", "--best 1", "--rows lr"]),
            *(
                (
                    tracker,
                    [
                        *("--columns lr", "--rows lr", "--sort n", "--best 0", "--best-for-each lr", "--precision 0"),
                        *("--metric auc_0_50", "--split val", "--standalone", "--format csv"),
                    ],
                )
                for tracker in ("tensorboard", "mlflow", "wandb")
            ),
        ],
    )
    def test_an_option_of_another_kind_is_an_error(self, run, tmp_path, kind, options):
        required = ["--rows", "lr", "--columns", "lr"] if kind == "pivot" else []
        for option in options:
            status, output, errors = run(
                "export", "complete", kind, *required, "--out", tmp_path / "x.csv", *option.split()
            )
            assert (status, output) == (2, "")
            assert errors.startswith(f"usage: posetune report export NAME {kind} ")
            assert f"posetune report export NAME {kind}: error: unrecognized arguments: {option}\n" in errors
        assert not (tmp_path / "x.csv").exists()

    def test_sorts_from_high_to_low_with_a_blank_before_the_column_too(self, run):
        tables = [
            run("export", "complete", "table", "--format", "csv", "--columns", "lr", *sort)[1]
            for sort in (["--sort=-lr"], ["--sort", "-lr"], ["--sort", "lr"])
        ]
        assert tables[0] == tables[1] != tables[2]

    def test_writes_the_folder_of_another_tool(self, run, tmp_path):
        status, output, _ = run("export", "complete", "tensorboard", "--out", tmp_path / "runs")
        assert (status, output) == (0, f"Wrote the trials of complete to {tmp_path / 'runs'}/\n")
        assert any((tmp_path / "runs").iterdir())


class TestFigureAndHtml:
    def test_a_figure_is_of_the_kind_that_its_name_ends_in(self, run, tmp_path):
        for ending, start in {"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}.items():
            path = tmp_path / f"curves.{ending}"
            assert run("figure", "complete", "curves", "--out", path) == (0, f"{path}\n", "")
            assert path.read_bytes().startswith(start)

    def test_a_figure_of_another_kind_is_an_error(self, run):
        status, _, errors = run("figure", "complete", "curves", "--out", "x.bmp")
        assert (status, errors) == (2, "error: x.bmp must end in one of .pdf, .svg, .png\n")

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["curves", "--measure", "worst"], "figure NAME curves: error: unrecognized arguments: --measure worst"),
            (["joints", "--other", "A=a.npy"], "figure NAME joints: error: unrecognized arguments: --other A=a.npy"),
            (["hands", "--labels", "l.txt"], "figure NAME hands: error: unrecognized arguments: --labels l.txt"),
            (["heatmap", "--format", "nyu"], "figure NAME heatmap: error: unrecognized arguments: --format nyu"),
            (["parallel", "--rows", "lr"], "figure NAME parallel: error: unrecognized arguments: --rows lr"),
            (["option", "--rows", "lr"], "figure NAME option: error: unrecognized arguments: --rows lr"),
            (["joints", "--examples", "2"], "figure NAME joints: error: unrecognized arguments: --examples 2"),
            (["curves", "--log-points", "2"], "figure NAME curves: error: unrecognized arguments: --log-points 2"),
            (["success", "--columns", "lr"], "figure NAME success: error: unrecognized arguments: --columns lr"),
            (["success", "--labels", "l.txt"], "--labels needs --other LABEL=FILE, with the predictions of another"),
            (
                ["success", "--other", "A=a.npy", "--format", "nyu"],
                "--format needs --labels FILE and --other LABEL=FILE",
            ),
            (["heatmap", "--rows", "lr", "--columns", "optimizer_args.lr"], "name the same option, optimizer_args.lr"),
            (["heatmap", "--combination", "best", "--combination", "best"], "takes one combination, not 2"),
            (["parallel", "--combination", "best", "--combination", "best"], "takes one combination, not 2"),
        ],
    )
    def test_an_option_that_a_figure_has_no_use_for_is_an_error(self, run, tmp_path, arguments, says):
        status, output, errors = run("figure", "complete", *arguments, "--out", tmp_path / "x.pdf")
        assert (status, output) == (2, "")
        assert says in errors
        assert not (tmp_path / "x.pdf").exists()

    def test_another_method_has_a_label_and_a_file(self, run):
        status, output, errors = run("figure", "complete", "success", "--out", "x.pdf", "--other", "errors.npy")
        assert (status, output) == (2, "")
        assert "'errors.npy' is not LABEL=FILE" in errors

    @pytest.mark.slow
    def test_the_page_is_written_into_the_folder_or_where_it_is_wanted(self, run, results, tmp_path):
        assert run("html", "unfinished")[1] == f"{results / 'unfinished'}/report.html\n"
        assert run("html", "unfinished", "--out", tmp_path / "page.html")[1] == f"{tmp_path / 'page.html'}\n"
        for path in (results / "unfinished" / "report.html", tmp_path / "page.html"):
            assert "<h1>unfinished</h1>" in path.read_text()


class TestReproduce:
    def test_says_that_the_bits_are_the_same(self, run, run_json, keys):
        status, output, errors = run("reproduce", "complete", "best", "1")
        assert (status, errors) == (0, "")
        assert output.startswith(f"{keys[0]}/1: the same bits. All ")
        found = run_json("reproduce", "complete", keys[1], "0")
        assert (found["trial"], found["is_same"], found["different"]) == (f"{keys[1]}/0", True, [])

    def test_says_what_differs_with_exit_status_1(self, run, results, keys):
        path = results / "complete" / "trials" / keys[1] / "1" / "records.parquet"
        before = path.read_bytes()
        rows = pq.read_table(path)
        values = rows.column("value").to_pylist()
        values[0] += 1e-9
        try:
            pq.write_table(rows.set_column(rows.schema.get_field_index("value"), "value", pa.array(values)), path)
            status, output, errors = run("reproduce", "complete", keys[1], "1")
        finally:
            path.write_bytes(before)
        assert (status, errors) == (1, "")
        assert "/1: not the same bits. 1 of " in output
        assert f" was {values[0]!r} and is " in output

    def test_finds_classes_in_a_module_beside_which_it_is_run(self, run, tmp_path, monkeypatch):
        (tmp_path / "models_of_mine.py").write_text(
            "from posenet.models import CorrectorMLP\n\nclass MyMLP(CorrectorMLP):\n    pass\n"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        model = importlib.import_module("models_of_mine").MyMLP
        write_datasets(tmp_path / "data")
        SmallExperiment(tmp_path / "data", tmp_path / "results").run({"base_hyperparams.model": model})
        monkeypatch.undo()
        monkeypatch.delitem(sys.modules, "models_of_mine")
        monkeypatch.chdir(tmp_path)
        status, _, errors = run("reproduce", "small_experiment", "best", "0", storage_path=tmp_path / "results")
        assert status == 2
        assert "models_of_mine.MyMLP is not a class of PoseTune's; name its module (--import MODULE)" in errors
        arguments = ["reproduce", "small_experiment", "best", "0", "--import", "models_of_mine"]
        status, output, errors = run(*arguments, storage_path=tmp_path / "results")
        assert (status, errors) == (0, "")
        assert "/0: the same bits. " in output

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["best", "7"], "has no repetition '7'; it has repetitions 0 to 1"),
            (["xyz", "0"], "complete has no combination 'xyz'; known: "),
            (
                ["best", "0", "--import", "no_such_module"],
                "error: --import no_such_module: the module cannot be imported: ModuleNotFoundError: ",
            ),
            (["best", "0", "--import", "my_models.py"], "; name it without .py"),
            (["best", "0", "--device", "gpu"], "error: torch cannot use 'gpu' here; "),
            (["best", "0", "--device", "cuda:99"], "/0 was trained on cpu: omit --device, or name cpu or cuda:N"),
            (["best", "0", "--data-dir", "/nowhere"], "/nowhere has no dataset"),
        ],
    )
    def test_says_what_is_missing(self, run, arguments, says):
        status, output, errors = run("reproduce", "complete", *arguments)
        assert (status, output) == (2, "")
        assert says in errors


class TestRemoving:
    @pytest.fixture
    def folder(self, tmp_path):
        for name in ("one", "two", "three"):
            write_experiment(tmp_path / name, [({"lr": 1}, [9.0]), ({"lr": 2}, [8.0])])
        (tmp_path / "one" / "trials" / "gone" / "0").mkdir(parents=True)
        (tmp_path / "one" / "trials" / "gone" / "0" / "trial.json").write_text("{}")
        return tmp_path

    @pytest.mark.parametrize("command", [["rm", "one", "two"], ["clean"], ["clean", "one"]], ids=" ".join)
    def test_without_yes_says_what_would_go_and_changes_nothing(self, run, run_json, folder, command):
        before = snapshot(folder)
        status, output, errors = run(*command, storage_path=folder)
        assert (status, errors) == (0, "")
        assert output.endswith("Nothing has been removed yet. Add --yes to remove this.\n")
        assert not any(one["removed"] for one in run_json(*command, storage_path=folder))
        assert snapshot(folder) == before

    def test_with_yes_removes_experiments(self, run, folder):
        status, output, errors = run("rm", "one", "two", "--yes", storage_path=folder)
        assert (status, errors) == (0, "")
        assert [line.split(":")[0] for line in output.splitlines()] == ["Removed one", "Removed two"]
        assert [path.name for path in folder.iterdir()] == ["three"]

    def test_with_yes_removes_trials_of_other_settings(self, run, run_json, folder):
        (one,) = run_json("clean", "--yes", storage_path=folder)
        assert one == {"experiment": "one", "files": ["trials/gone/0/trial.json"], "removed": True}
        assert not (folder / "one" / "trials" / "gone").exists()
        assert run("clean", "--yes", storage_path=folder) == (0, "There is nothing to remove.\n", "")

    def test_of_what_runs_is_refused_and_the_rest_is_done(self, run, folder):
        with experiment_lock(Storage(folder / "one")):
            assert "one: the whole experiment, 5 files" in run("rm", "one", storage_path=folder)[1]
            assert "it is running" in run("rm", "one", storage_path=folder)[1]
            before = snapshot(folder / "one")
            status, output, errors = run("rm", "one", "two", "--yes", storage_path=folder)
            assert snapshot(folder / "one") == before
        assert status == 2
        assert errors.startswith(f"error: one was not removed: {folder / 'one'} is in use: process ")
        assert output.startswith("Removed two: ")

    def test_a_name_that_is_wrong_removes_nothing(self, run, folder):
        before = snapshot(folder)
        status, _, errors = run("rm", "one", "tow", "--yes", storage_path=folder)
        assert (status, errors) == (2, f"error: no experiment 'tow' in {folder}; did you mean 'two'?\n")
        assert snapshot(folder) == before

    def test_cleaning_all_leaves_a_broken_one_and_says_so(self, run, folder):
        (folder / "two" / "experiment.json").write_text("{")
        status, output, errors = run("clean", "--yes", storage_path=folder)
        assert (status, output.split(":")[0]) == (0, "Removed one")
        assert errors.startswith(f"skipped two: {folder / 'two'} holds no experiment")
        assert run("clean", "two", storage_path=folder)[0] == 2


class TestTheHelp:
    def commands(self):
        main = parser("", SCRIPT_MODULE.COMMANDS)
        return main, self.sub_commands(main, "command")

    def sub_commands(self, parent, dest):
        return next((action.choices for action in parent._actions if action.dest == dest), {})

    def all_commands(self):
        """Each command and each kind, by its command line."""
        _, commands = self.commands()
        kinds = {
            f"{name} {kind}": command
            for name in commands
            for kind, command in self.sub_commands(commands[name], "kind").items()
        }
        return commands | kinds

    def test_has_every_command(self):
        _, commands = self.commands()
        assert commands.keys() == SCRIPT_MODULE.COMMANDS.keys()

    def test_of_a_command_has_examples_that_can_be_given(self):
        main, _ = self.commands()
        for name, command in self.all_commands().items():
            _, _, examples = command.format_help().partition("examples:\n")
            lines = examples.splitlines()
            assert lines
            for line in lines:
                posetune, report, *arguments = shlex.split(line)
                assert (posetune, report) == ("posetune", "report")
                command, *kind = name.split()
                args = main.parse_args(arguments)
                assert args.run is SCRIPT_MODULE.COMMANDS[command]
                assert not kind or args.kind in kind

    def test_of_the_script_has_examples_that_can_be_given(self):
        main, commands = self.commands()
        lines = [line.split() for line in SCRIPT_MODULE.__doc__.splitlines() if line.startswith("    posetune ")]
        assert len(lines) > 5
        for _, _, name, *arguments in lines[:-1]:
            assert main.parse_args([name, *arguments]).command in commands
        assert lines[-1][2:] == ["COMMAND", "--help"]

    def test_explains_every_argument(self):
        for command in self.all_commands().values():
            assert all(action.help for action in command._actions)
            assert command.description.endswith(".")

    def test_offers_every_figure_and_tool_that_there_is(self):
        _, commands = self.commands()
        assert self.sub_commands(commands["figure"], "kind").keys() == FIGURES.keys()
        exports = self.sub_commands(commands["export"], "kind")
        splits = {kind: {a.dest: a.choices for a in exports[kind]._actions}.get("split") for kind in exports}
        assert TRACKERS.keys() == {kind for kind, split in splits.items() if split is None}
        assert all(set(split) == {"val", "test"} for split in splits.values() if split is not None)
        for tool in TRACKERS:
            assert f"def export_{tool}(" in (ROOT / "cluster" / "reports" / "trackers" / f"{tool}.py").read_text()

    def test_offers_json_where_a_script_may_want_it(self):
        _, commands = self.commands()
        assert {name for name, command in commands.items() if "--json" in command.format_help()} >= WITH_JSON


def test_a_race_that_cannot_be_is_an_error_with_all_its_wrong_settings(run):
    status, output, errors = run("race", "complete", "--reduction-factor", 1, 3, "--max-cost", 2)
    assert (status, output) == (2, "")
    factor, cost = errors.splitlines()
    assert factor == "error: --reduction-factor: allowed: an int of at least 2"
    assert cost == "  --max-cost: allowed: a number above 0 and at most 1"


def test_ctrl_c_ends_a_command_without_a_traceback(run, monkeypatch):
    def interrupted(storage_path):
        raise KeyboardInterrupt

    monkeypatch.setattr("cluster.reports.terminal.overview.statuses", interrupted)
    assert run("list") == (130, "", "interrupted\n")


class TestFolds:
    @pytest.fixture
    def storage_path(self, tmp_path):
        write_fold_results(tmp_path / "folds", {0.1: [[10.0], [6.0]], 0.2: [[8.0], [9.0]]}, [(10, 10), (10, 30)])
        return tmp_path

    def test_are_one_row_for_all_frames(self, run_json, storage_path):
        found = run_json("show", "folds", storage_path=storage_path)
        assert {row["lr"]: row["test_distance_mm_mean"] for row in found["combinations"]} == {0.1: 7.0, 0.2: 8.75}
        assert len(found["trials"]) == 4

    def test_have_a_row_each_on_request(self, run, run_json, storage_path):
        found = run_json("show", "folds", "--folds", storage_path=storage_path)
        assert {row["key"] for row in found["combinations"]} == {"0.1-1", "0.1-2", "0.2-1", "0.2-2"}
        _, output, _ = run("export", "folds", "table", "--folds", "--format", "csv", storage_path=storage_path)
        assert len(output.splitlines()) == 1 + 4

    def test_are_unknown_in_an_experiment_without_them(self, run):
        status, _, errors = run("show", "complete", "--folds")
        assert status == 2
        assert errors == "error: complete was not trained on folds; leave out --folds\n"

    def test_must_be_chosen_to_reproduce_a_training(self, run, storage_path):
        status, _, errors = run("reproduce", "folds", "best", "0", storage_path=storage_path)
        assert status == 2
        assert "'best' of my sweep has 2 trainings, one for each fold; name one by its key: 0.1-1 (fold 1)" in errors

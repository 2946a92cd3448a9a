"""The run scripts as a new user starts them."""

import re
import runpy
import subprocess
import sys
from collections import Counter
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.experiment import Experiment
from cluster.planning.config import ConfigError
from data_pipeline.distorters import NoDistorter
from data_pipeline.frame_table import FrameTable
from data_pipeline.pose_dataset import Samples, read_samples, write_datasets
from data_pipeline.preparation.making import write_stand_in
from data_pipeline.preparation.synthetic import Backbone, synthetic_hands
from data_pipeline.skeleton import NYU as NYU_SKELETON
from data_pipeline.subsets import DEFAULT_SUBSET
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import (
    CorrectorGNN,
    CorrectorLCN,
    CorrectorMLP,
    CorrectorTransformer,
    GlobalShiftMLP,
    MeanFusion,
    SteadinessFusion,
    TemporalLCN,
)
from tests.support import ROOT, SHARED_DATA

SCRIPTS = ROOT / "tune_runs"
NYU = SHARED_DATA / "nyu"


def run(script: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, SCRIPTS / script, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.ray
@pytest.mark.slow
def test_the_demo_ends_with_a_table_and_trains_nothing_the_second_time(tmp_path):
    sizes = ("--train", 400, "--val", 201, "--test", 100)
    assert (
        run("prepare_data.py", "synthetic", "--name", "demo", *sizes, "--subsets", "A,B", cwd=tmp_path).returncode == 0
    )
    first = run("minimal_example.py", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "minimal_example: 18 trials, 18 finished" in first.stdout
    assert "18 to train" in first.stderr
    assert "results/minimal_example/" in first.stdout

    second = run("minimal_example.py", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert second.stdout == first.stdout
    assert "18 finished" in second.stderr
    assert "to train" not in second.stderr

    shown = run("report.py", "show", "minimal_example", cwd=tmp_path)
    results = [line for line in first.stdout.splitlines() if line.endswith(" %")]
    assert len(results) == 6
    assert [line.partition("  ")[2].strip() for line in shown.stdout.splitlines() if line.endswith(" %")] == results


def test_the_demo_is_short_and_means_the_same_as_with_every_key(tmp_path):
    source = (SCRIPTS / "minimal_example.py").read_text().split('"""')[2]
    code = [line for line in source.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(code) <= 17

    script = runpy.run_path(str(SCRIPTS / "minimal_example.py"))
    labels = synthetic_hands(210, 0)
    samples = Samples(labels, {name: Backbone(name).predict(labels, 0) for name in ("A", "B")})
    write_datasets(tmp_path, {f"demo_{split}": samples for split in ("train", "val", "test")})
    dicts = [script[name] for name in ("experiment_config", "solver_config", "base_hyperparams")]
    dicts[0] = {**dicts[0], "data_dir": tmp_path, "storage_path": tmp_path / "results"}
    every_key = [
        {
            **{"train_set_size": None, "val_set_size": None, "test_set_size": None, "use_preset": True},
            **{"target_device": torch.device("cpu"), "init_weights_path": None, "seed": 0, "deterministic_mode": True},
            **{"cpus_per_trial": 1, "trials_per_device": 1, "max_retries": 2, "checkpoint_interval_s": 30.0},
            **{"trial_timeout_s": None, "stop_if_all_fail": 5, "keep_weights": "all", "keep_state": "none"},
            "search": None,
        },
        {
            **{"log_frequency": 1, "log_loss": False, "log_grad": False, "verbose": False, "show_plots": False},
            **{"matmul_precision": "highest", "interest_keys": []},
        },
        {
            "model_args": {"hidden_dims": [256, 256], "activation": "leaky_relu", "dropout": None, "batchnorm": False},
            **{"choose_strength": False, "loss_space": "default", "eval_space": "original"},
            "loss_function": MetricLoss(errors.coordinate_difference, "absolute"),
            **{"optimizer_args": {"lr": 1e-3, "weight_decay": 0.0}, "scheduler_args": {"step_size": 8, "gamma": 0.1}},
            **{"scheduler_requires_metric": False, "distorter": NoDistorter, "distorter_args": {}, "augmenters": []},
        },
    ]
    plans = [
        Experiment(*given).plan()
        for given in (dicts, [{**short, **long} for short, long in zip(dicts, every_key, strict=True)])
    ]
    assert [combination.key for combination in plans[0].combinations] == [
        combination.key for combination in plans[1].combinations
    ]


def test_the_demo_without_its_dataset_says_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="posetune prepare-data"):
        runpy.run_path(str(SCRIPTS / "minimal_example.py"), run_name="__main__")
    assert not list(tmp_path.iterdir())


def prepared(dataset, name, files, split, data_dir, *options):
    """Splits published predictions, {backbone: file}; skips if the files are missing."""
    folder = SHARED_DATA / dataset
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing; the folder can be named with POSETUNE_SHARED_DATA")
    result = run(
        *("prepare_data.py", "leaderboard", "--dataset", dataset, "--name", name, "--split", split),
        *("--data-dir", data_dir, "--ground-truth", folder / f"{dataset}_test_groundtruth_label.txt", *options),
        *("--predictions", *(f"{backbone}={folder / file}.txt" for backbone, file in files.items())),
        cwd=data_dir.parent,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_icvl_sequences_lowers_the_error_on_the_sequence_that_it_has_not_seen(tmp_path):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    files = {"Pose-REN": "NEUCOM18_ICVL_Pose_REN", "DeepModel": "IJCAI16_ICVL_DeepModel"}
    prepared("icvl", "icvl", files, "sequences:40%:2:10", data_dir, "--separate", "--folds")
    script = runpy.run_path(str(SCRIPTS / "icvl_sequences.py"))
    script["BACKBONES"][:] = ["Pose-REN"]
    values = {"model_args.bandwidth": [8.0, 16.0], "model_args.ridge": [1.0, 3.0], "model_args.sigma": [None, 0.5]}
    script["OPTIONS"].update(values)
    script["experiment_config"]["storage_path"] = tmp_path / "results"
    chosen = script["chosen_settings"](data_dir)
    table = script["transfer"](data_dir, chosen)
    lines = script["transfer_table"](table, chosen).splitlines()[2:]
    # The error before, as published, and less after it in both directions.
    assert [re.split(r"  +", line)[:3] for line in lines] == [
        ["Pose-REN", "1 → 2", "6.22"],
        ["Pose-REN", "2 → 1", "7.52"],
    ]
    assert all(row["n"] == 6 and row["test_change_mm"] < -0.5 for row in table.summary)


@pytest.mark.slow
def test_nyu_recording_lowers_the_error_of_both_people_at_a_distance(tmp_path, monkeypatch):
    monkeypatch.setattr(Experiment, "run", partialmethod(Experiment.run, "inline"))
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    files = {"Pose-REN": "NEUCOM18_NYU_Pose_REN", "DeepPrior++": "ICCVW17_NYU_DeepPrior++"}
    prepared("nyu", "recording", files, "blocks:500:5:50", data_dir, "--separate")
    script = runpy.run_path(str(SCRIPTS / "nyu_recording.py"))
    script["BACKBONES"][:] = list(files)
    script["OPTIONS"].pop("model_args.ridge")
    script["OPTIONS"].pop("model_args.sigma")
    for values in script["OPTIONS"].values():
        values[:] = values[-2:]
    script["base_hyperparams"]["model_args"]["n_centres"] = 64
    script["experiment_config"]["storage_path"] = tmp_path / "results"
    chosen = script["chosen_settings"](data_dir, wait_for_nodes=False)
    table = script["test"](data_dir, chosen, wait_for_nodes=False)
    lines = script["people_table"](table, chosen).splitlines()[2:]
    rows = re.findall(r"(both|person \d) +(\d+) +(\d+\.\d\d) +(\d+\.\d\d) ± ", "\n".join(lines))
    tested = [("both", "1500"), ("person 1", "500"), ("person 2", "1000")]
    assert [row[:2] for row in rows] == tested * 2
    assert [before for name, _, before, _ in rows if name == "both"] == ["12.50", "13.09"]
    assert all(float(after) < float(before) for _, _, before, after in rows)


@pytest.mark.slow
def test_nyu_people_fuses_two_backbones_to_the_known_errors(tmp_path):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    files = {"Pose-REN": "NEUCOM18_NYU_Pose_REN", "DeepPrior++": "ICCVW17_NYU_DeepPrior++"}
    prepared("nyu", "people_two", files, "subjects:20%:2:100", data_dir, "--folds")
    script = runpy.run_path(str(SCRIPTS / "nyu_people.py"))
    script["WIDTHS"][:] = [1.0, 4.0]
    script["BACKBONES"].clear()
    fused = {}
    for model in (MeanFusion, SteadinessFusion):
        options = {"name": model.__name__, "storage_path": tmp_path / "results"}
        fused[model.__name__] = script["smooth"](data_dir, [script["BOTH"]], experiment=options, model=model)
    lines = script["people_table"](fused["MeanFusion"], fused).splitlines()[2:]
    cells = [re.split(r"  +", line) for line in lines]
    assert [row[:4] for row in cells] == [
        ["MeanFusion", "1 → 2", "12.94", "12.79"],
        ["MeanFusion", "2 → 1", "5.46", "5.38"],
        ["SteadinessFusion", "1 → 2", "12.94", "12.74"],
        ["SteadinessFusion", "2 → 1", "5.46", "5.25"],
    ]
    # The change with its interval.
    assert all(re.fullmatch(r"−[13]\.\d % \[−\d\.\d, −\d\.\d\]", row[4]) for row in cells), cells


def test_nyu_few_frames_labels_one_frame_of_each_piece_far_from_all_frames_that_it_tests(tmp_path):
    script = runpy.run_path(str(SCRIPTS / "nyu_few_frames.py"))
    poses = np.zeros((1000, 14, 3), np.float32)
    frames = FrameTable.of(sequence=["a"] * 1000, index=range(1000))
    people = [f"people_{backbone}_fold{fold}_test" for backbone in script["BACKBONES"] for fold in (1, 2)]
    write_datasets(tmp_path, dict.fromkeys(people, Samples(poses, {DEFAULT_SUBSET: poses}, frames)))
    script["split_people"](tmp_path)
    assert read_samples(tmp_path, "few_Pose-REN_fold1_test").frames.index.tolist() == list(range(300, 1000))
    draws = [read_samples(tmp_path, f"few_Pose-REN_fold1_10_{draw}").frames.index for draw in range(6)]
    # The first 30 % without the last 100 frames, in ten pieces.
    assert all((draw // 20).tolist() == list(range(10)) for draw in draws)
    assert len({tuple(draw) for draw in draws}) == 6


@pytest.mark.slow
def test_nyu_few_frames_lowers_the_error_of_a_new_person_with_ten_labelled_frames(tmp_path):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    files = {"Pose-REN": "NEUCOM18_NYU_Pose_REN"}
    prepared("nyu", "people", files, "subjects:20%:2:100", data_dir, "--separate", "--folds")
    script = runpy.run_path(str(SCRIPTS / "nyu_few_frames.py"))
    script["BACKBONES"][:] = ["Pose-REN"]
    script["OPTIONS"]["model_args.ridge"][:] = [3.0, 10.0]
    script["EXPERIMENTS"]["nyu_few_frames"][0][:] = [10]
    script["experiment_config"]["storage_path"] = tmp_path / "results"
    script["split_people"](data_dir)
    chosen = script["chosen_settings"](data_dir, "nyu_few_frames")
    table = script["transfer"](data_dir, "nyu_few_frames", chosen)
    lines = script["few_frames_table"](table, chosen).splitlines()[2:]
    assert [re.split(r"  +", line)[1:4] for line in lines] == [["1 → 2", "10", "15.57"], ["2 → 1", "10", "5.41"]]
    assert len(table.summary) == 12
    assert all(row["test_change_mm"] < 0 for row in table.summary)


@pytest.mark.slow
def test_nyu_backbones_without_its_datasets_names_the_command_that_makes_them(tmp_path):
    result = run("nyu_backbones.py", cwd=tmp_path)
    assert result.returncode == 2
    assert "--help" in result.stderr
    assert "prepare_data.py leaderboard --dataset nyu" in run("nyu_backbones.py", "--help", cwd=tmp_path).stdout


@pytest.mark.slow
@pytest.mark.skipif(not NYU.is_dir(), reason=f"the published NYU predictions are not in {NYU}")
def test_correctors_of_nyu_backbones_lower_the_error_on_frames_they_have_not_seen(tmp_path):
    files = {"Pose-REN": "NEUCOM18_NYU_Pose_REN.txt", "DeepPrior": "CVWW15_NYU_Prior.txt"}
    predictions = [f"{backbone}={NYU / file}" for backbone, file in files.items()]
    truth = ("--ground-truth", NYU / "nyu_test_groundtruth_label.txt", "--predictions", *predictions)
    made = run(
        *("prepare_data.py", "leaderboard", "--dataset", "nyu", *truth, "--name", "nyu", "--separate"),
        *("--split", "blocks:100:5"),
        cwd=tmp_path,
    )
    assert made.returncode == 0, made.stderr

    script = runpy.run_path(str(SCRIPTS / "nyu_backbones.py"))
    config = {**script["experiment_config"], "n_repetitions": 1}
    config |= {"data_dir": tmp_path / "data", "storage_path": tmp_path / "results"}
    hyperparams = {**script["base_hyperparams"], "model_args": {"hidden_dims": [64], "dropout": 0.1}}
    experiment = Experiment(config, {**script["solver_config"], "num_epochs": 8, "interest_keys": []}, hyperparams)
    splits = ("train", "val", "test")
    experiment.add_joint_options(
        [f"experiment_config.{split}_set" for split in splits],
        [[f"nyu_{backbone}_{split}" for split in splits] for backbone in files],
    )
    table = experiment.run("inline")
    # The columns of the script's table, here without options of the model.
    rows = {row["experiment_config.test_set"]: row for row in table.best_for_each("experiment_config.test_set")}
    for backbone, before in {"Pose-REN": 12.64, "DeepPrior": 20.96}.items():
        row = rows[f"nyu_{backbone}_test"]
        assert round(row["test_distance_before_mm"], 2) == before
        assert row["test_distance_mm_mean"] < before - 0.3


# The values of options that are not commented out.
N_COMBINATIONS = {"hands17_mlp.py": 16, "hands17_gnn.py": 8}


def test_scripts_with_options_that_train_with_ray_can_wait_for_nodes():
    with_options = [text for path in SCRIPTS.glob("*.py") if "argparse" in (text := path.read_text())]
    runs = [run for text in with_options for run in re.findall(r"experiment\.run\((.*?)\)", text)]
    assert {run for run in runs if run != '"inline"'} <= {
        "wait_for_nodes=arguments.wait_for_nodes",
        "wait_for_nodes=wait_for_nodes",
    }
    assert len(runs) > 5


class TestTheHands17Scripts:
    @pytest.fixture(params=N_COMBINATIONS)
    def name(self, request):
        return request.param

    @pytest.fixture
    def experiment(self, name, tmp_path):
        """A function that makes the script's experiment with these options, on a stand-in of few frames."""
        script = runpy.run_path(str(SCRIPTS / name))
        script["use_stand_in"]()
        write_stand_in(tmp_path, script["STAND_IN"], {"train": 40, "val": 20, "test": 20})
        places = {"data_dir": tmp_path, "storage_path": tmp_path / "results"}
        config = {**script["experiment_config"], **places, "n_repetitions": 1}
        solver = {**script["solver_config"], "num_epochs": 1, "val_example_indices": [0]}

        def experiment(options=None):
            made = Experiment(config, solver, script["base_hyperparams"])
            made.add_options(script["OPTIONS"] if options is None else options)
            return made

        return experiment

    @pytest.mark.slow
    def test_say_what_to_do_if_their_datasets_are_missing(self, name, tmp_path):
        result = run(name, cwd=tmp_path)
        assert result.returncode == 2
        assert "data does not have hands17_train: see --help, or use --synthetic" in result.stderr
        assert "prepare_data.py import --format hands17 --name hands17" in run(name, "--help", cwd=tmp_path).stdout

    @pytest.mark.parametrize(
        ("address", "arguments", "device", "waits"),
        [
            ("", (), "cpu", False),
            ("head:6379", ("--wait-for-nodes",), "cuda", True),
            ("head:6379", ("--device", "cpu"), "cpu", False),
        ],
    )
    def test_train_on_the_gpus_of_a_cluster_that_they_are_started_from_without_one(
        self, name, tmp_path, monkeypatch, address, arguments, device, waits
    ):
        runs = []
        monkeypatch.setattr(Experiment, "run", lambda experiment, **how: runs.append((experiment.config, how)))
        monkeypatch.setenv("POSETUNE_ADDRESS", address)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        write_stand_in(tmp_path, "hands17_synthetic", {"train": 40, "val": 1501, "test": 20})
        monkeypatch.setattr(sys, "argv", [name, "--synthetic", "--data-dir", str(tmp_path), *arguments])
        runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        ((config, how),) = runs
        assert [found.type for found in config.devices] == [device]
        assert how == {"wait_for_nodes": waits}

    @pytest.mark.slow
    def test_train_every_combination_of_their_options(self, name, experiment):
        table = experiment().run("inline")
        assert {row["status"] for row in table.trials} == {"finished"}
        assert len(table.trials) == N_COMBINATIONS[name]

    @pytest.fixture
    def options(self, name, tmp_path):
        """All options, including those commented out, built with only the names that the script imports."""
        (tmp_path / name).write_text(uncommented((SCRIPTS / name).read_text()))
        return runpy.run_path(str(tmp_path / name))["OPTIONS"]

    @pytest.mark.ray
    @pytest.mark.slow
    def test_end_with_a_table_on_the_synthetic_stand_in(self, name, tmp_path):
        """Here on fewer hands, which already exist, as at a second start of the script."""
        write_stand_in(tmp_path / "data", "hands17_synthetic", {"train": 256, "val": 1501, "test": 100})
        result = run(name, "--synthetic", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        experiment = f"{name.removesuffix('.py')}_synthetic"
        n_trials = 3 * N_COMBINATIONS[name]
        assert f"{experiment}: {n_trials} trials, {n_trials} finished" in result.stdout
        assert f"results/{experiment}/" in result.stdout
        assert len([line for line in result.stdout.splitlines() if line.endswith(" %")]) == N_COMBINATIONS[name]

    @pytest.mark.slow
    def test_have_no_option_commented_out_that_would_be_wrong(self, experiment, options):
        assert len(options) >= 11
        for key, values in options.items():
            assert len(values) >= 2, key
            if key != "experiment_config.train_set_size":  # larger than the stand-in
                experiment({key: values}).plan()

    def test_vary_how_strong_the_distorter_is(self, options):
        assert options.keys() & {"distorter_args.strength_scale", "distorter_args.layers"}


def uncommented(source: str) -> str:
    """Returns a script with its commented-out code enabled; sentences stay comments."""
    # Code begins with a quote, a bracket or a call; a sentence begins with a capital and a word followed by a space.
    return re.sub(r"^(\s*)# (?=[\"\[\]{}]|\w+\(|\w+,$| )", r"\1", source, flags=re.MULTILINE)


def test_the_other_run_scripts_have_no_option_commented_out():
    scripts = {path.name: path.read_text() for path in SCRIPTS.glob("*.py")}
    of_runs = {name: source for name, source in scripts.items() if "base_hyperparams" in source}
    assert of_runs.keys() >= {"minimal_example.py", "nyu_backbones.py", "nyu_models.py"}
    with_some = {name for name, source in of_runs.items() if uncommented(source) != source}
    assert with_some == N_COMBINATIONS.keys()


def test_nyu_models_compares_each_kind_of_network_in_its_settings_on_each_backbone():
    script = runpy.run_path(str(SCRIPTS / "nyu_models.py"))
    rows = script["settings"]()
    kinds = Counter(row[script["KEYS"].index("model")] for row in rows)
    networks = (CorrectorMLP, GlobalShiftMLP, CorrectorLCN, TemporalLCN, CorrectorGNN, CorrectorTransformer)
    assert kinds == dict.fromkeys(networks, 4), "each has the same search"
    for model, arguments, *_ in rows:
        model(NYU_SKELETON, **arguments)


@pytest.mark.slow
def test_nyu_models_without_its_datasets_says_where_to_find_the_command_that_makes_them(tmp_path):
    result = run("nyu_models.py", cwd=tmp_path)
    assert result.returncode == 2
    assert "nyu_recording.py --help" in result.stderr

"""A named pipe in place of any file: no command waits for its writer, and each says which path it is."""

import os
import shutil

import numpy as np
import pytest

from cluster.planning.config import ConfigError
from cluster.storage.filesystem import StorageError
from data_pipeline.files.tensors import load
from data_pipeline.formats.catalogue import FORMATS
from data_pipeline.user_error import UserError
from tests.cluster_tests.small_experiment import LR, NEIGHBOR_ERRORS, SmallExperiment, write_datasets
from tune_runs import predict, prepare_data, report

pytestmark = pytest.mark.timeout(60)

A_PIPE = "it is a named pipe; only regular files are accepted"

COMMANDS = [
    ["list"],
    ["show", "X"],
    ["show", "X", "--by", "joint"],
    ["compare", "X", "X"],
    ["log", "X", "KEY"],
    ["curves", "X"],
    ["effects", "X"],
    ["html", "X"],
    ["export", "X", "table", "--format", "csv"],
    ["export", "X", "tensorboard", "--out", "OUT"],
    ["reproduce", "X", "KEY", "0"],
    ["rm", "X"],
    ["clean", "X"],
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipes")
    write_datasets(folder / "data")
    small_experiment = SmallExperiment(folder / "data", folder / "results")
    small_experiment.run({}, {LR: [1e-3, 1e-2]})
    return small_experiment


@pytest.fixture
def experiment(trained, tmp_path):
    """The experiment in folders that a test may change."""
    shutil.copytree(trained.data_dir, tmp_path / "data")
    shutil.copytree(trained.storage_path, tmp_path / "results")
    return SmallExperiment(tmp_path / "data", tmp_path / "results")


def replace_by_pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def files_of(folder):
    """One path for each kind of file of an experiment."""
    return {path.name: path for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("experiment.json", ".lock", "trial.json", "records.parquet", "frames.parquet", "weights.pt", "examples.npz"),
    ],
)
def test_in_a_results_folder_stops_no_command(experiment, name, tmp_path, capsys):
    key = next(path.name for path in (experiment.folder / "trials").iterdir())
    place = files_of(experiment.folder).get(name, experiment.folder / name)
    replace_by_pipe(place)
    said = ""
    for i, command in enumerate(COMMANDS):
        words = {"X": "small_experiment", "KEY": key, "OUT": str(tmp_path / f"out{i}")}
        status = report.main(
            [*(words.get(word, word) for word in command), f"--storage-path={experiment.storage_path}"]
        )
        said += capsys.readouterr().err
        assert status in (0, 1, 2)
    assert "Traceback" not in said
    if name in ("trial.json", "records.parquet"):
        assert f"{place.relative_to(tmp_path)} cannot be read: {A_PIPE}" in said


@pytest.mark.parametrize("name", ["trial.json", ".lock"])
def test_in_a_results_folder_is_an_error_of_a_run(experiment, name):
    replace_by_pipe(files_of(experiment.folder)[name])
    with pytest.raises(StorageError, match=rf"{name} cannot be (read|written): {A_PIPE}"):
        experiment.run({}, {LR: [1e-3, 1e-2]})


@pytest.mark.parametrize(
    "name", ["small_train_labels.pt", "small_train_poses.pt", "bank_errors.pt", "near_neighbors.pt"]
)
def test_in_a_data_folder_is_an_error_of_the_config(experiment, name):
    replace_by_pipe(experiment.data_dir / name)
    with pytest.raises(ConfigError, match=f"{name} cannot be read: {A_PIPE}"):
        experiment.experiment(NEIGHBOR_ERRORS).plan()


def test_as_initial_weights_is_an_error_of_the_config(experiment, tmp_path):
    os.mkfifo(tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=A_PIPE):
        experiment.experiment({"experiment_config.init_weights_path": tmp_path / "w.pt"}).plan()


@pytest.mark.parametrize("command", ["check", "split", "subset"])
def test_in_a_data_folder_ends_prepare_data(experiment, command, capsys):
    replace_by_pipe(experiment.data_dir / "small_train_labels.pt")
    options = {
        "check": [],
        "split": ["--name", "n", "--split", "last:20:10"],
        "subset": ["--name", "n", "--first", "2"],
    }
    arguments = [command, "--dataset", "small_train", *options[command], f"--data-dir={experiment.data_dir}"]
    assert prepare_data.main(arguments) == 2
    assert f"small_train_labels.pt cannot be read: {A_PIPE}" in capsys.readouterr().err


@pytest.mark.parametrize("name", FORMATS)
def test_as_poses_of_any_format_is_refused(tmp_path, name, capsys):
    known = FORMATS[name]
    pipe = tmp_path / f"poses{(known.suffixes or ('',))[0]}"
    if name == "msra15":
        (pipe / "P0" / "1").mkdir(parents=True)
        os.mkfifo(pipe / "P0" / "1" / "joint.txt")
    else:
        os.mkfifo(pipe)
    arguments = ["import", "--format", name, "--labels", str(pipe), "--name", "n", f"--data-dir={tmp_path / 'data'}"]
    assert prepare_data.main(arguments) == 2
    assert A_PIPE in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--poses", "--labels", "--submission"])
@pytest.mark.parametrize("ending", ["", ".txt", ".npy", ".json", ".pt"])
def test_as_any_input_of_predict_is_refused(experiment, tmp_path, option, ending, capsys):
    os.mkfifo(tmp_path / f"pipe{ending}")
    np.save(tmp_path / "poses.npy", load(experiment.data_dir / "small_val_poses.pt", UserError, mapped=False).numpy())
    paths = {"--poses": "poses.npy"} | {option: f"pipe{ending}"}
    arguments = [f"{name}={tmp_path / path}" for name, path in paths.items()]
    more = [] if option == "--submission" else ["--out-format=openpose21"]
    status = predict.main(
        [
            *(
                "--experiment=small_experiment",
                f"--storage-path={experiment.storage_path}",
                f"--out={tmp_path / 'out.npy'}",
            ),
            *("--format=openpose21",) * (option != "--poses"),
            *(*arguments, *more),
        ]
    )
    error = capsys.readouterr().err
    assert status == 2
    assert A_PIPE in error
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize("ending", [".npy", ".txt"])
def test_as_errors_of_another_method_is_refused(experiment, tmp_path, ending, capsys):
    os.mkfifo(tmp_path / f"e{ending}")
    arguments = ["figure", "small_experiment", "success", f"--storage-path={experiment.storage_path}"]
    assert report.main([*arguments, f"--other=A={tmp_path / f'e{ending}'}", f"--out={tmp_path / 'f.pdf'}"]) == 2
    assert A_PIPE in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "says"), [(os.mkfifo, "give the name of a file"), (os.mkdir, "is an existing folder")]
)
def test_as_an_output_it_stays(experiment, tmp_path, make, says, capsys):
    out = tmp_path / "out.csv"
    make(out)
    arguments = ["export", "small_experiment", "table", f"--storage-path={experiment.storage_path}"]
    assert report.main([*arguments, f"--out={out}", "--force"]) == 2
    assert says in capsys.readouterr().err
    assert not out.is_file()


def test_that_a_killed_writer_could_have_left_does_not_stop_the_next(experiment, tmp_path):
    os.mkfifo(tmp_path / ".out.npy.0123abcd.partial")
    arguments = ["--experiment=small_experiment", f"--storage-path={experiment.storage_path}"]
    poses = experiment.data_dir / "small_val_poses.pt"
    assert (
        predict.main([*arguments, f"--poses={poses}", f"--out={tmp_path / 'out.npy'}", "--out-format=openpose21"]) == 0
    )

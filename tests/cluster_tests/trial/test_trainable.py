"""A trial that was stopped and continues, and files that are damaged in between."""

import json
import math
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from cluster.storage.filesystem import Storage, StorageError
from cluster.storage.frame_errors import FrameErrors
from cluster.storage.records import from_parquet
from cluster.storage.trial_file import MAX_TRIAL_BYTES, TrialFile
from cluster.trial.trainable import run_trial
from data_pipeline.augmenters import RandomRotator, RandomScaler
from data_pipeline.frame_table import FrameTable
from data_pipeline.normalizers import GlobalNormalizer, Shifter
from data_pipeline.pose_dataset import read_dataset
from posenet.checkpoint import pack
from posenet.models import CorrectorMLP
from tests.cluster_tests.small_experiment import CLOSED_FORM, FUSION, NEIGHBOR_ERRORS, InterruptedMLP, SmallExperiment

EPOCHS = 5
# Everything that draws random numbers or keeps state between epochs.
STATEFUL = {
    **{f"experiment_config.{part}_set": f"two_{part}" for part in ("train", "val", "test")},
    "experiment_config.normalizer": GlobalNormalizer,
    "experiment_config.checkpoint_interval_s": 0,
    "solver_config.num_epochs": EPOCHS,
    "solver_config.log_frequency": 2,
    "solver_config.log_loss": True,
    "solver_config.log_grad": True,
    "solver_config.val_example_subset": "A",
    "base_hyperparams.model_args": {"hidden_dims": [8], "dropout": 0.3, "batchnorm": True},
    **NEIGHBOR_ERRORS,
    "base_hyperparams.augmenters": [RandomRotator(), RandomScaler()],
}
OPTIMISATIONS = {
    "Adam and StepLR": {},
    "SGD with momentum and OneCycleLR": {
        "base_hyperparams.optimizer": torch.optim.SGD,
        "base_hyperparams.optimizer_args": {"lr": 1e-3, "momentum": 0.9},
        "base_hyperparams.scheduler": torch.optim.lr_scheduler.OneCycleLR,
        "base_hyperparams.scheduler_args": {"max_lr": 1e-2, "total_steps": EPOCHS + 1},
    },
    "AdamW and ReduceLROnPlateau": {
        "base_hyperparams.optimizer": torch.optim.AdamW,
        "base_hyperparams.scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau,
        "base_hyperparams.scheduler_args": {"patience": 0, "threshold": 0.5},
        "base_hyperparams.scheduler_requires_metric": True,
    },
    "a closed form": CLOSED_FORM,
    "LBFGS and CosineAnnealingLR": {
        "base_hyperparams.optimizer": torch.optim.LBFGS,
        "base_hyperparams.optimizer_args": {"lr": 0.1, "max_iter": 3},
        "base_hyperparams.scheduler": torch.optim.lr_scheduler.CosineAnnealingLR,
        "base_hyperparams.scheduler_args": {"T_max": 4},
    },
}


class UnfitNormalizer(Shifter):
    """Cannot learn."""

    def fit(self, poses):
        raise RuntimeError("there is nothing to learn")

    def learned(self):
        raise RuntimeError("nothing was learned")


def finish(small_experiment, changes):
    """Runs the trial to the end; returns all reports."""
    return list(run_trial(*small_experiment.trial(changes)))


def stop_after(small_experiment, changes, n_epochs):
    """Runs the trial for some more epochs and leaves it like a killed process; returns the reports."""
    reports = []
    generator = run_trial(*small_experiment.trial(changes))
    for report in generator:
        reports.append(report)
        if len([each for each in reports if each.epoch]) == n_epochs:
            break
    generator.close()
    return reports


def folder_of(small_experiment):
    (folder,) = small_experiment.folder.glob("trials/*/0")
    return folder


def numbers_of(small_experiment):
    """Everything that must not depend on interruptions, with all bits."""
    folder = folder_of(small_experiment)
    trial = json.loads((folder / "trial.json").read_text())
    assert trial["status"] == "finished"
    assert not (folder / "checkpoint.pt").exists()
    weights = torch.load(folder / "weights.pt", weights_only=True)
    return {
        "trial": {
            key: trial[key] for key in ("key", "seed", "best_epoch", "epochs", "metrics", "normalizer", "options")
        },
        "records": from_parquet((folder / "records.parquet").read_bytes()),
        "weights": {name: tensor.numpy().tobytes() for name, tensor in weights.items()},
        "examples": (folder / "examples.npz").read_bytes(),
    }


@pytest.fixture(scope="module")
def three_epochs(small_data, tmp_path_factory):
    small_experiment = SmallExperiment(small_data, tmp_path_factory.mktemp("three_epochs"))
    stop_after(small_experiment, STATEFUL, 3)
    return small_experiment.folder


@pytest.fixture
def half_way(small_experiment, three_epochs):
    """The trial's folder after three of five epochs."""
    shutil.copytree(three_epochs, small_experiment.folder)
    return folder_of(small_experiment)


@pytest.fixture(scope="module")
def undisturbed(small_data, tmp_path_factory):
    small_experiment = SmallExperiment(small_data, tmp_path_factory.mktemp("undisturbed"))
    finish(small_experiment, STATEFUL)
    return numbers_of(small_experiment)


class TestAnInterruptedTrialThatGoesOn:
    @pytest.mark.parametrize("n_epochs", range(1, EPOCHS + 1))
    def test_ends_with_the_bits_of_one_that_was_not(self, small_experiment, undisturbed, n_epochs):
        stop_after(small_experiment, STATEFUL, n_epochs)
        trial = json.loads((folder_of(small_experiment) / "trial.json").read_text())
        assert (trial["status"], trial["ended"]) == ("running", None)
        reports = finish(small_experiment, STATEFUL)
        # The last epoch needs no checkpoint, because little follows it.
        first = n_epochs + 1 if n_epochs < EPOCHS else EPOCHS
        assert [report.epoch for report in reports] == [*range(first, EPOCHS + 1), EPOCHS]
        assert reports[-1].status == "finished"
        assert numbers_of(small_experiment) == undisturbed

    def test_does_so_also_when_it_is_stopped_after_every_epoch(self, small_experiment, undisturbed):
        for _ in range(EPOCHS):
            stop_after(small_experiment, STATEFUL, 1)
            np.random.rand(3)  # noqa: NPY002 - another trial in between draws too
            torch.rand(3)
        finish(small_experiment, STATEFUL)
        assert numbers_of(small_experiment) == undisturbed

    @pytest.mark.parametrize("optimisation", OPTIMISATIONS)
    def test_does_so_with_any_optimisation(self, small_experiment, tmp_path, optimisation):
        changes = {**STATEFUL, **OPTIMISATIONS[optimisation]}
        stop_after(small_experiment, changes, 2)
        finish(small_experiment, changes)
        other = replace(small_experiment, storage_path=tmp_path / "uninterrupted")
        finish(other, changes)
        assert numbers_of(small_experiment) == numbers_of(other)

    def test_begins_again_where_no_checkpoint_was_due(self, small_experiment, undisturbed):
        rarely = {**STATEFUL, "experiment_config.checkpoint_interval_s": 3600}
        stop_after(small_experiment, rarely, 3)
        assert not (folder_of(small_experiment) / "checkpoint.pt").exists()
        assert [report.epoch for report in finish(small_experiment, rarely)] == [1, 2, 3, 4, 5, 5]
        assert numbers_of(small_experiment) == undisturbed

    def test_counts_its_time_of_before(self, small_experiment, half_way):
        started = json.loads((half_way / "trial.json").read_text())["started"]
        finish(small_experiment, STATEFUL)
        trial = json.loads((half_way / "trial.json").read_text())
        assert trial["started"] == started
        assert 0 < trial["train_seconds"] <= trial["ended"] - started

    def test_leaves_no_partial_file_of_a_killed_writer(self, small_experiment, half_way):
        for name in (".checkpoint.pt.1.partial", ".records.parquet.22.partial"):
            (half_way / name).write_bytes(b"half")
        finish(small_experiment, STATEFUL)
        assert sorted(path.name for path in half_way.iterdir()) == [
            "examples.npz",
            "frames.parquet",
            "records.parquet",
            "trial.json",
            "weights.pt",
        ]

    def test_may_log_other_things_from_there_on(self, small_experiment, half_way):
        finish(small_experiment, {**STATEFUL, "solver_config.log_loss": False, "solver_config.val_example_indices": []})
        logged = {
            record.epoch
            for record in from_parquet((half_way / "records.parquet").read_bytes())
            if record.metric == "batch_loss"
        }
        assert logged == {1, 2, 3}


def pause(small_experiment, changes, until):
    """Runs the trial until an epoch; returns all reports."""
    return list(run_trial(*small_experiment.trial(changes), until=until))


class TestATrialThatIsPaused:
    def test_ends_with_the_bits_of_one_that_was_not(self, small_experiment, undisturbed):
        rarely = {**STATEFUL, "experiment_config.checkpoint_interval_s": 3600}
        for until, epochs in ((2, [1, 2, 2]), (4, [3, 4, 4])):
            reports = pause(small_experiment, rarely, until)
            assert [report.epoch for report in reports] == epochs
            assert [report.status for report in reports] == ["running", "running", "paused"]
            trial = json.loads((folder_of(small_experiment) / "trial.json").read_text())
            assert (trial["status"], trial["epochs"], trial["ended"]) == ("running", until, None)
        assert [report.epoch for report in finish(small_experiment, rarely)] == [5, 5]
        assert numbers_of(small_experiment) == undisturbed

    def test_reports_the_best_validation_error_so_far(self, small_experiment):
        *running, paused = pause(small_experiment, STATEFUL, 4)
        assert paused.val_distance_mm == min(report.val_distance_mm for report in running)

    @pytest.mark.parametrize("until", [2, 3])
    def test_is_paused_at_once_where_it_has_been_trained_further(self, small_experiment, half_way, undisturbed, until):
        (report,) = pause(small_experiment, STATEFUL, until)
        assert (report.status, report.epoch) == ("paused", 3)
        finish(small_experiment, STATEFUL)
        assert numbers_of(small_experiment) == undisturbed

    def test_with_other_examples_does_not_take_predictions_of_the_previous_ones_for_theirs(
        self, small_experiment, half_way
    ):
        others = {**STATEFUL, "solver_config.val_example_indices": [5, 7]}
        pause(small_experiment, others, 2)  # at once, since it is further
        finish(small_experiment, others)
        logged = np.load(half_way / "examples.npz")
        assert logged["indices"].tolist() == [5, 7]
        assert sorted(set(logged["epochs"].tolist())) == [4, 5]

    @pytest.mark.parametrize("until", [EPOCHS, EPOCHS + 1])
    def test_is_finished_if_that_is_its_last_epoch(self, small_experiment, undisturbed, until):
        assert pause(small_experiment, STATEFUL, until)[-1].status == "finished"
        assert numbers_of(small_experiment) == undisturbed


def _cut(share):
    return lambda content: content[: int(share * len(content))]


def _flip(share):
    def flip(content):
        at = int(share * (len(content) - 1))
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    return flip


SHARES = [0, 0.001, 0.5, 0.9999]  # also in the digest at its beginning
DAMAGES = [
    *((f"checkpoint.pt cut at {share}", "checkpoint.pt", _cut(share)) for share in SHARES),
    *((f"checkpoint.pt changed at {share}", "checkpoint.pt", _flip(share)) for share in [*SHARES, 1]),
    *(
        (f"{name} cut at {share}", name, _cut(share))
        for name in ("records.parquet", "examples.npz")
        for share in (0, 0.3, 0.999)
    ),
    *((f"{name} is gone", name, None) for name in ("records.parquet", "examples.npz")),
]


class TestADamagedFileOfATrial:
    @pytest.mark.parametrize(
        ("name", "damage"), [damage[1:] for damage in DAMAGES], ids=[damage[0] for damage in DAMAGES]
    )
    @pytest.mark.slow
    def test_is_told_and_changes_no_bit(self, small_experiment, half_way, undisturbed, name, damage):
        path = half_way / name
        content = path.read_bytes()
        path.unlink()
        if damage is not None:
            path.write_bytes(damage(content))
        warning, *others = finish(small_experiment, STATEFUL)
        (line,) = warning.lines
        key = undisturbed["trial"]["key"]
        says = rf"warning: {key}/0 starts again, since its checkpoint cannot be used: .+"
        assert re.fullmatch(says, line, re.DOTALL)
        assert (warning.status, warning.epoch) == ("running", 0)
        assert [report.epoch for report in others] == [1, 2, 3, 4, 5, 5]
        assert numbers_of(small_experiment) == undisturbed

    @pytest.mark.parametrize("name", ["records.parquet", "examples.npz"])
    @pytest.mark.slow
    def test_is_never_read_as_other_numbers(self, small_experiment, half_way, undisturbed, name):
        original = {path: path.read_bytes() for path in half_way.iterdir()}
        for share in np.linspace(0, 1, 7):
            for path, content in original.items():
                path.write_bytes(content)
            (half_way / name).write_bytes(_flip(share)(original[half_way / name]))
            finish(small_experiment, STATEFUL)
            assert numbers_of(small_experiment) == undisturbed

    @pytest.mark.parametrize("name", ["records.parquet", "examples.npz"])
    def test_is_one_that_ends_before_the_checkpoint(self, small_experiment, half_way, undisturbed, name):
        of_epoch_3 = (half_way / name).read_bytes()
        stop_after(small_experiment, STATEFUL, 1)
        (half_way / name).write_bytes(of_epoch_3)
        warning, *_ = finish(small_experiment, STATEFUL)
        assert f"{name} ends before epoch 4" in warning.lines[0]
        assert numbers_of(small_experiment) == undisturbed

    def test_is_not_one_that_knows_more_than_the_checkpoint(self, small_experiment, half_way, undisturbed):
        of_epoch_3 = (half_way / "checkpoint.pt").read_bytes()
        stop_after(small_experiment, STATEFUL, 1)
        (half_way / "checkpoint.pt").write_bytes(of_epoch_3)
        assert [report.epoch for report in finish(small_experiment, STATEFUL)] == [4, 5, 5]
        assert numbers_of(small_experiment) == undisturbed

    @pytest.mark.parametrize("error", [TypeError("another field"), IndexError("another list")])
    def test_is_a_state_that_a_class_refuses_in_its_own_way(
        self, small_experiment, half_way, undisturbed, monkeypatch, error
    ):
        def refuse(solver, state):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("posenet.solver.Solver.load_state_dict", refuse)
            warning, *_ = finish(small_experiment, STATEFUL)
        assert f"its checkpoint cannot be used: {error}" in warning.lines[0]
        assert numbers_of(small_experiment) == undisturbed

    def test_is_a_checkpoint_of_another_version(self, small_experiment, half_way, undisturbed):
        (half_way / "checkpoint.pt").write_bytes(pack({"version": 0}))
        warning, *_ = finish(small_experiment, STATEFUL)
        assert "its checkpoint cannot be used: 'solver'" in warning.lines[0]
        assert numbers_of(small_experiment) == undisturbed


def test_examples_of_a_model_that_fuses_subsets_are_mean_poses_and_their_corrections(small_experiment):
    finish(small_experiment, {**FUSION, "base_hyperparams.model_args": {}, "solver_config.val_example_indices": [7, 2]})
    examples = np.load(folder_of(small_experiment) / "examples.npz")
    poses = read_dataset(small_experiment.data_dir, "two_val").poses
    mean = np.mean([poses[name][[7, 2]].astype(float) for name in ("A", "B")], axis=0)
    np.testing.assert_allclose(examples["inputs_mm"], mean, atol=1e-3)
    np.testing.assert_allclose(examples["predictions_mm"][-1], mean, atol=1e-3)


def test_examples_that_change_half_way_cost_no_training(small_experiment, half_way, undisturbed):
    reports = finish(small_experiment, {**STATEFUL, "solver_config.val_example_indices": [5]})
    assert [report.epoch for report in reports] == [4, 5, 5]
    # Two log points in each of the two remaining epochs.
    assert np.load(half_way / "examples.npz")["predictions_mm"].shape == (4, 1, 21, 3)
    assert numbers_of(small_experiment)["records"] == undisturbed["records"]


@pytest.mark.parametrize("is_power_cut", [False, True], ids=["killed", "power cut"])
def test_a_trial_that_is_cut_off_between_any_two_steps_ends_with_the_bits_of_one_that_was_not(
    small_experiment, undisturbed, is_power_cut
):
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, None, steps)
        finish(small_experiment, STATEFUL)
    assert len(steps) > 4 * EPOCHS
    for n in range(1, len(steps)):
        shutil.rmtree(small_experiment.folder)
        with pytest.MonkeyPatch.context() as patch:
            synced = kill_after(patch, n, [])
            with pytest.raises(KeyboardInterrupt):
                finish(small_experiment, STATEFUL)
        if is_power_cut:
            empty_files(small_experiment.folder, except_inodes=synced)
        *_, files = small_experiment.trial(STATEFUL)
        if files.read_trial().status != "finished":
            *_, report = finish(small_experiment, STATEFUL)
            assert report.status == "finished", report.error
        (folder_of(small_experiment) / "checkpoint.pt").unlink(missing_ok=True)
        assert numbers_of(small_experiment) == undisturbed, f"killed after step {n} of {len(steps)}, {steps[n - 1]}"


def kill_after(patch, n, steps):
    """Makes the n-th file that appears or disappears the last one, as in a killed process.

    Returns:
        The inodes of files that were synchronised with the disk; it grows.
    """
    synced, fsync = set(), os.fsync
    for name in ("replace", "unlink"):
        real = getattr(os, name)

        def step(path, *arguments, real=real, **options):
            real(path, *arguments, **options)
            steps.append(path)
            if len(steps) == n:
                raise KeyboardInterrupt

        patch.setattr(os, name, step)

    def sync(descriptor):
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    patch.setattr(os, "fsync", sync)
    return synced


def empty_files(folder, except_inodes):
    """Empties files, as a power cut does to those that were not synchronised with the disk."""
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_ino not in except_inodes:
            path.write_bytes(b"")


class TestATrialThatFails:
    def test_because_its_normalizer_cannot_learn_says_so(self, small_experiment):
        *_, report = finish(small_experiment, {"experiment_config.normalizer": UnfitNormalizer})
        assert (report.status, report.error) == ("failed", "RuntimeError: there is nothing to learn")
        trial = json.loads((folder_of(small_experiment) / "trial.json").read_text())
        assert (trial["status"], trial["normalizer"], trial["epochs"]) == ("failed", None, 0)
        assert not (folder_of(small_experiment) / "records.parquet").exists()

    def test_begins_at_its_beginning_when_it_is_trained_again(self, small_experiment, half_way):
        trial = small_experiment.trial(STATEFUL)
        generator = run_trial(*trial)
        next(generator)
        report = generator.throw(RuntimeError("the device is gone"))
        assert (report.status, report.error) == ("failed", "RuntimeError: the device is gone")
        assert not (half_way / "checkpoint.pt").exists()
        assert [report.epoch for report in finish(small_experiment, STATEFUL)] == [1, 2, 3, 4, 5, 5]

    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory"),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        ],
    )
    def test_for_want_of_memory_goes_on_from_its_checkpoint(self, small_experiment, half_way, undisturbed, error):
        generator = run_trial(*small_experiment.trial(STATEFUL))
        next(generator)
        report = generator.throw(error)
        assert report.error.startswith(f"{type(error).__name__}: {error} — out of memory on cpu with batch_size")
        finish(small_experiment, STATEFUL)
        assert numbers_of(small_experiment) == undisturbed

    @pytest.mark.parametrize(
        ("place", "error"),
        [
            ("posenet.solver.Solver.load_state_dict", torch.OutOfMemoryError("CUDA out of memory")),
            ("torch.load", MemoryError()),
            ("torch.load", RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")),
            ("posenet.solver.Solver.load_state_dict", RuntimeError("CUDA error: an illegal memory access")),
            ("cluster.trial.trainable.device_name", RuntimeError("the driver is gone")),
        ],
    )
    @pytest.mark.slow
    def test_before_it_trains_goes_on_from_its_checkpoint(
        self, small_experiment, half_way, undisturbed, monkeypatch, place, error
    ):
        def fail(*arguments, **named):
            raise error

        before, trial = json.loads((half_way / "trial.json").read_text()), small_experiment.trial(STATEFUL)
        with monkeypatch.context() as patch:
            patch.setattr(place, fail)
            *_, report = run_trial(*trial)
        assert report.status == "failed"
        trial = json.loads((half_way / "trial.json").read_text())
        assert (trial["status"], trial["epochs"], trial["started"]) == ("failed", 3, before["started"])
        assert trial["train_seconds"] >= before["train_seconds"]
        first, *_ = finish(small_experiment, STATEFUL)
        assert first.epoch == 4
        assert numbers_of(small_experiment) == undisturbed

    @pytest.mark.parametrize("name", ["trial.json", "records.parquet", "checkpoint.pt"])
    def test_because_a_file_could_not_be_written_goes_on_from_its_checkpoint(
        self, small_experiment, half_way, undisturbed, monkeypatch, name
    ):
        real, failed = Storage.write_files, []

        def write_files(self, folder, files, **options):
            if name in files and not failed:
                failed.append(folder)
                raise StorageError(f"{folder} cannot be written: No space left on device")
            real(self, folder, files, **options)

        monkeypatch.setattr(Storage, "write_files", write_files)
        *_, report = finish(small_experiment, STATEFUL)
        assert (report.status, report.error) == ("failed", f"{failed[0]} cannot be written: No space left on device")
        first, *_ = finish(small_experiment, STATEFUL)
        assert first.epoch == 4
        assert numbers_of(small_experiment) == undisturbed

    def test_lets_ctrl_c_through_as_a_trial_that_is_to_go_on(self, small_experiment):
        with pytest.raises(KeyboardInterrupt):
            finish(small_experiment, {"base_hyperparams.model": InterruptedMLP})
        assert json.loads((folder_of(small_experiment) / "trial.json").read_text())["status"] == "running"


def test_a_trial_leaves_the_process_as_it_was(small_experiment):
    torch.manual_seed(7)
    before = (torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    finish(small_experiment, STATEFUL)
    after = (torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_a_finished_trial_stays_finished_when_its_checkpoint_cannot_be_removed(
    small_experiment, half_way, undisturbed, monkeypatch
):
    def refuse(storage, path):
        raise StorageError("the storage is gone")

    monkeypatch.setattr(Storage, "remove", refuse)
    *_, report = finish(small_experiment, STATEFUL)
    assert report.status == "finished"
    monkeypatch.undo()
    (half_way / "checkpoint.pt").unlink()
    assert numbers_of(small_experiment) == undisturbed


class SilentNormalizer(Shifter):
    """Has learned something that cannot be stored in a file."""

    def learned(self):
        return {"mean_mm": torch.zeros(3)}


class LargeNormalizer(Shifter):
    """Has learned more than a trial's file may have."""

    def learned(self):
        return {"mean_mm": [0.123456789] * (MAX_TRIAL_BYTES // 10)}


class DrawingNormalizer(Shifter):
    """Draws from the process's generator when it learns, as some algorithms of torch do."""

    def fit(self, poses):
        self.drawn = torch.rand(3).tolist()

    def learned(self):
        return {"drawn": self.drawn}


class VerboseMLP(CorrectorMLP):
    """Fails with a very long text."""

    def correction(self, poses):
        raise ValueError("start" + "x" * MAX_TRIAL_BYTES + "end")


class OddMLP(CorrectorMLP):
    """Fails with the name of a file that is not UTF-8."""

    def correction(self, poses):
        raise ValueError("cannot read " + os.fsdecode(b"a_\xff.txt"))


def log_error(poses, labels, skeleton):
    """−inf where a joint is exact."""
    return torch.log(torch.zeros_like(poses[:, 0, 0]))


class LeavingMLP(CorrectorMLP):
    """Ends the process, or tries to."""

    def correction(self, poses):
        raise SystemExit(3)


def test_an_error_while_the_results_are_written_is_a_failed_row_that_says_so(small_experiment):
    *_, report = finish(small_experiment, {"experiment_config.normalizer": SilentNormalizer})
    assert report.status == "failed"
    assert "TypeError" in report.error
    assert json.loads((folder_of(small_experiment) / "trial.json").read_text())["status"] == "failed"


def test_a_trial_whose_file_could_not_be_read_again_fails_and_says_why(small_experiment):
    *_, report = finish(small_experiment, {"experiment_config.normalizer": LargeNormalizer})
    assert report.status == "failed"
    assert "trial.json could not be read again: it has more than 16,777,216 characters" in report.error
    assert json.loads((folder_of(small_experiment) / "trial.json").read_text())["error"] == report.error


def test_a_metric_may_be_infinite(small_experiment):
    *_, report = finish(small_experiment, {"solver_config.metrics": [log_error]})
    assert report.status == "finished"
    trial = TrialFile.from_json((folder_of(small_experiment) / "trial.json").read_text())
    assert (trial.status, trial.metrics["val"]["mean"]["log_error"]) == ("finished", -math.inf)


def test_a_very_long_error_is_recorded_without_its_middle(small_experiment):
    finish(small_experiment, {"base_hyperparams.model": VerboseMLP})
    trial = TrialFile.from_json((folder_of(small_experiment) / "trial.json").read_bytes())
    assert trial.status == "failed"
    assert trial.error.startswith("ValueError: startxxx")
    assert trial.error.endswith("xxxend")


def test_an_error_that_is_not_utf_8_is_recorded(small_experiment):
    *_, report = finish(small_experiment, {"base_hyperparams.model": OddMLP})
    trial = TrialFile.from_json((folder_of(small_experiment) / "trial.json").read_bytes())
    assert (report.status, trial.status) == ("failed", "failed")
    assert trial.error.startswith("ValueError: cannot read a_")


def test_what_a_process_drew_before_does_not_change_what_a_normalizer_learns(small_experiment):
    learned = []
    for n_drawn in (0, 5):
        torch.rand(n_drawn)
        finish(small_experiment, {"experiment_config.normalizer": DrawingNormalizer})
        learned.append(json.loads((folder_of(small_experiment) / "trial.json").read_text())["normalizer"])
        shutil.rmtree(small_experiment.folder)
    assert learned[0] == learned[1]


def test_a_class_that_ends_the_process_is_a_failed_row(small_experiment):
    *_, report = finish(small_experiment, {"base_hyperparams.model": LeavingMLP})
    assert (report.status, report.error) == ("failed", "SystemExit: 3")


def test_errors_of_frames_say_which_frames_they_are_and_how_far_from_training_frames(small_experiment):
    trial, data, folder = small_experiment.trial(STATEFUL)
    tables = {
        "train": FrameTable.of(sequence=["a"] * 40, index=range(40)),
        "val": FrameTable.of(sequence=["a"] * 20, index=range(60, 80)),
        "test": FrameTable.of(sequence=["a"] * 10 + ["b"] * 10, index=[*range(50, 60), *range(10)], subject=["s"] * 20),
    }
    sets = {split: replace(dataset, frames=tables[split]) for split, dataset in data.sets.items()}
    *_, last = run_trial(trial, replace(data, sets=sets), folder)
    assert last.status == "finished"
    found = FrameErrors.read(folder)
    assert {name: column.tolist() for name, column in found.frames.columns.items()} == {
        name: column.tolist() for name, column in tables["test"].columns.items()
    }
    np.testing.assert_array_equal(found.training_distance, [*range(11, 21), *[np.nan] * 10])

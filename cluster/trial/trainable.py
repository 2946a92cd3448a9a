"""One trial, from its settings to its files. The Ray executor and the inline executor both run it."""

import copy
import json
import math
import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import torch

from cluster.planning.config import Settings
from cluster.planning.own_code import names_in
from cluster.planning.placement import device_name
from cluster.planning.plan import TrialSpec
from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import StorageError
from cluster.storage.folders import TrialFolder
from cluster.storage.frame_errors import FrameErrors
from cluster.storage.trial_file import Status, TrialFile
from cluster.trial.example_plot import plot_examples
from cluster.trial.log import ExamplePoses, TrialLog
from cluster.trial.parts import build_parts
from data_pipeline.batch import DeviceCache, DeviceDataset, dataset_identity, fuses, on_device
from data_pipeline.normalizers import Normalizer
from data_pipeline.pose_dataset import PoseDataset
from data_pipeline.separation.measuring import training_distances
from data_pipeline.subsets import MEAN_SUBSET
from data_pipeline.tables import Table
from posenet.checkpoint import pack, tensor_bytes, unpack
from posenet.evaluator import Measurement
from posenet.machine_errors import is_gpu_error, is_machine_error, is_out_of_memory
from posenet.record import Record
from posenet.reproducible import current_gpu, random_state_kept, reproducible_process
from posenet.solver import DivergedError, EpochReport, Solver


@dataclass(frozen=True)
class Trial:
    """One training, without its data.

    Attributes:
        spec: What is trained.
        settings: The combination's settings.
        device: Where it is trained, as this process sees it.
        run_id: The run of the experiment that trains it.
        sources: Hashes of the code of the user's own classes and functions, by name.
    """

    spec: TrialSpec
    settings: Settings
    device: torch.device
    run_id: str
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The trial's name in records and messages, `KEY/REPETITION`."""
        return self.spec.id

    @property
    def keeps_state(self) -> bool:
        """Whether its final state is kept, because the user wants it or a longer training of this run needs it."""
        return self.settings.experiment.keep_state == "all" or self.spec.is_prolonged


@dataclass(frozen=True)
class TrialData:
    """The data of a trial.

    Attributes:
        sets: The sets of poses by split: 'train', 'val' and, if there is a test set, 'test'.
        tables: The tables that the distorter reads, by the names of their files.
        init_weights: The content of a weights file with the initial weights.
    """

    sets: Mapping[str, PoseDataset]
    tables: Mapping[str, Table]
    init_weights: bytes | None = None


@dataclass(frozen=True)
class TrialReport:
    """The state of a trial, for the monitor of the run.

    Attributes:
        trial_id: The trial.
        status: `running` until the last report; `interrupted` if it stopped on request and can be continued; `paused`
            if it has trained up to the requested epoch and can be continued.
        epoch: Completed epochs.
        val_distance_mm: The mean distance on the validation set: the latest, or in the last report the best.
        lines: Texts for the user: warnings and, with `verbose`, intermediate results.
        error: Why it failed or diverged.
        place: The device and the machine that train it.
        gpu_failed: Whether it failed because its GPU did; on another GPU it may succeed.
    """

    trial_id: str
    status: Literal["running", "finished", "failed", "diverged", "interrupted", "paused"]
    epoch: int = 0
    val_distance_mm: float | None = None
    lines: tuple[str, ...] = ()
    error: str | None = None
    place: str | None = None
    gpu_failed: bool = False


def run_trial(
    trial: Trial,
    data: TrialData,
    folder: TrialFolder,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    until: int | None = None,
    others_on_gpu: Callable[[], Sequence[str]] = tuple,
    raise_errors: bool = False,
) -> Iterator[TrialReport]:
    """Trains a trial, from its checkpoint if it has one, and writes its files.

    Yields a report after each epoch, and a last one when it is finished, failed, diverged or paused. Errors of a
    training are not raised, unless that is wanted: they are a status of the trial.

    Args:
        trial: What to train.
        data: Its data.
        folder: Its files.
        should_stop: Called after each epoch; if True, the trial writes a checkpoint and ends as `interrupted`.
        until: After this epoch the trial writes a checkpoint and ends as `paused`, unless this is its last epoch. If it
            has already trained further, it does so at once. None trains it to its end.
        others_on_gpu: Returns the trials that share its GPU now.
        raise_errors: Also raise the error of a failed training, after its last report, so that a debugger stops there.
    """
    folder.clear_partial_files()
    config = trial.settings.experiment
    training = _Training(trial, data, folder)
    try:
        # First of all: if an error follows, a checkpoint may be kept, which earlier runs trained.
        training.take_over(folder.read_trial())
        with (
            reproducible_process(
                threads=config.cpus_per_trial,
                deterministic=config.deterministic_mode,
                matmul_precision=trial.settings.solver.matmul_precision,
            ),
            current_gpu(trial.device),
        ):
            yield from training.train(should_stop, until)
    except DivergedError as error:
        yield training.end("diverged", str(error))
    except StorageError as error:
        yield training.end("failed", str(error), keep_checkpoint=True)  # the training itself is fine
    except (Exception, SystemExit) as error:
        # The checkpoint may contain the cause, so a new attempt starts from the beginning; except if the device or the
        # memory caused the error, or if the training had not begun.
        keep_checkpoint = is_machine_error(error) or not training.is_training
        text = training.explain(error, others_on_gpu)
        report = training.end("failed", text, trace=traceback.format_exc(), keep_checkpoint=keep_checkpoint)
        yield replace(report, gpu_failed=is_gpu_error(error))
        if raise_errors:
            raise


# This process trains one trial after another, and keeps these on its device.
_DATASETS = DeviceCache(DeviceDataset.of, dataset_identity)
_TABLES = DeviceCache[Table, torch.Tensor](
    lambda table, device: on_device(table.array, device), lambda table: table.fingerprint
)


class _Training:
    """A trial during its training."""

    def __init__(self, trial: Trial, data: TrialData, folder: TrialFolder) -> None:
        self.trial = trial
        self.folder = folder
        self.init_weights = data.init_weights
        self.sets = data.sets
        self.tables = data.tables
        config = trial.settings.solver
        subset = None if fuses(trial.settings.hyperparams.model) else config.val_example_subset
        self.examples = (
            ExamplePoses.of(data.sets["val"], subset, tuple(config.val_example_indices))
            if config.val_example_indices
            else None
        )
        self.log = TrialLog()
        self.device = str(trial.device)
        self.gpu: str | None = None
        self.runs: tuple[str, ...] = (trial.run_id,)
        self.normalizer: Normalizer | None = None
        self.epoch = 0
        self.is_training = False
        shorter = (TrialFolder(folder.experiment, shorter.trial_id) for shorter in trial.spec.shorter)
        self.saved = iter([(folder, FileNames.CHECKPOINT), *((other, FileNames.STATE) for other in shorter)])
        self.created = (time.time(), time.monotonic())
        self.started, self.clock_start = self.created

    def take_over(self, previous: TrialFile) -> None:
        """Keeps what the trial's file says about its training until the checkpoint is loaded."""
        self.runs = with_run(previous.runs, self.trial.run_id)
        if previous.epochs and self.folder.has(FileNames.CHECKPOINT):
            self.epoch, self.started = previous.epochs, previous.started or self.started
            self.clock_start -= previous.train_seconds or 0.0

    def train(self, should_stop: Callable[[], bool], until: int | None) -> Iterator[TrialReport]:
        trial, settings = self.trial, self.trial.settings
        if trial.device.type != "cpu":
            gpu = torch.get_device_module(trial.device)
            gpu.empty_cache()  # memory of the previous trial of this process
            gpu.reset_peak_memory_stats(trial.device)
        self.device, self.gpu = device_name(trial.device)
        self._write_trial()
        solver = self._build()
        while (warning := self._continue(solver)) is not None:
            yield TrialReport(trial.id, "running", lines=(warning,))
            solver = self._build()  # a failed load may have changed the objects

        last_checkpoint = time.monotonic()
        self.is_training = True
        for report in solver.epochs(until):
            self.epoch = report.epoch
            self.log.add(report)
            for callback in settings.solver.callbacks:
                with random_state_kept(trial.device):
                    callback(trial.id, report, solver.model)
            if settings.solver.show_plots:
                self._plot(report)
            due = time.monotonic() - last_checkpoint >= settings.experiment.checkpoint_interval_s
            stopping = report.epoch < settings.solver.num_epochs and should_stop()
            if stopping or (due and report.epoch < settings.solver.num_epochs):
                self._write_checkpoint(solver)
                last_checkpoint = time.monotonic()
            lines = tuple(f"{trial.id}: {point.text}" for point in report.log_points) if settings.solver.verbose else ()
            status: Literal["running", "interrupted"] = "interrupted" if stopping else "running"
            yield TrialReport(trial.id, status, report.epoch, report.val_distance_mm, lines, place=self._place())
            if stopping:
                return
        yield self._finish(solver) if self.epoch == settings.solver.num_epochs else self._pause(solver)

    def end(
        self,
        status: Literal["failed", "diverged"],
        error: str,
        *,
        trace: str | None = None,
        keep_checkpoint: bool = False,
    ) -> TrialReport:
        """Records that the training ended early."""
        try:
            # The records show what led to the error. A checkpoint that is kept needs the records that exist already.
            has_records = self.log.records or not keep_checkpoint
            files = self.log.files(self.trial.id, self.examples) if has_records else {}
            if not keep_checkpoint:
                self.folder.remove(FileNames.CHECKPOINT)
            self._write_trial(status, files, error=error, traceback=trace)
        except Exception as recording_error:
            error = f"{error} (this could not be recorded: {recording_error})"
        return TrialReport(self.trial.id, status, self.epoch, error=error, place=self._place())

    def explain(self, error: BaseException, others_on_gpu: Callable[[], Sequence[str]]) -> str:
        """Returns an error as a text; if memory ran out, with advice."""
        text = f"{type(error).__name__}: {error}"
        if is_out_of_memory(error):
            others = others_on_gpu()
            fewer = ", or trials_per_device" if others else ""
            text += (
                f" — out of memory on {self.device} with batch_size {self.trial.settings.solver.batch_size}, in trial "
                f"{self.trial.id}{self._gpu_use(others)}; reduce the batch size or the model{fewer}"
            )
        return text

    def _gpu_use(self, others: Sequence[str]) -> str:
        """Returns what else uses the trial's GPU, as a part of a sentence; on a CPU an empty string."""
        device = self.trial.device
        if device.type == "cpu":
            return ""
        text = f", which shares its GPU with {' and '.join(others)}" if others else ", the only trial on its GPU"
        gpu = torch.get_device_module(device)
        with suppress(RuntimeError):  # after some errors the GPU does not answer
            free, total = gpu.mem_get_info(device)
            own = gpu.memory_reserved(device)
            rest = total - free - own
            text += f" (it uses {own / 2**30:.1f} of {total / 2**30:.1f} GiB, others {rest / 2**30:.1f})"
        return text

    def _build(self) -> Solver:
        data = _DATASETS.get(self.sets, self.trial.device)
        tables = _TABLES.get(self.tables, self.trial.device)
        # A copy: the next trial of this process must not find what this one changes in objects of the user.
        settings = copy.deepcopy(self.trial.settings)
        parts = build_parts(settings, self.trial.spec.seed, data, tables, self.init_weights)
        self.evaluators, self.normalizer = parts.evaluators, parts.normalizer
        return parts.solver

    def _continue(self, solver: Solver) -> str | None:
        """Loads the checkpoint; without one, the final state of the longest training that this one continues.

        Returns:
            A warning if the state cannot be used. Then call this again with a new solver: it tries the next state.
        """
        for folder, name in self.saved:
            content = folder.read(name)
            if content is None:
                continue
            try:
                self._load(solver, folder, unpack(content))
            except StorageError:
                raise
            except Exception as error:  # a class of the user may raise any error
                if is_machine_error(error):
                    raise
                unusable = f"the final state of {folder.trial_id}"
                if name == FileNames.CHECKPOINT:
                    unusable = "its checkpoint"
                    folder.remove(name)
                return f"warning: {self.trial.id} starts again, since {unusable} cannot be used: {error}"
            self._write_trial()  # again, now that it is known how far the trial is
            return None
        self.runs, self.epoch = (self.trial.run_id,), 0
        self.started, self.clock_start = self.created
        return None

    def _load(self, solver: Solver, folder: TrialFolder, state: Mapping[str, Any]) -> None:
        until_epoch = state["solver"]["epoch"]
        # Other examples change only what is logged; predictions of the previous ones are dropped.
        with_examples = self.examples is not None and state["examples"] == self._examples_key()
        content = bytes(state["records"].numpy()) if "records" in state else None
        log = TrialLog.read(folder, until_epoch=until_epoch, with_examples=with_examples, content=content)
        solver.load_state_dict(state["solver"])
        self.log = log
        self.epoch = solver.epoch
        self.started = state["started"]
        self.clock_start = self.created[1] - state["train_seconds"]
        self.runs = with_run(state.get("runs", self.runs), self.trial.run_id)

    def _write_checkpoint(self, solver: Solver) -> None:
        # Records come first: they must have all epochs of the checkpoint.
        files = self.log.files(self.trial.id, self.examples)
        self._write_trial(files={**files, FileNames.CHECKPOINT: pack(self._state(solver))})

    def _final_state(self, solver: Solver) -> bytes:
        """Returns what a longer training continues from, with the records: their file may move to the archive."""
        records = torch.frombuffer(bytearray(self.log.parquet(self.trial.id)), dtype=torch.uint8)
        return pack(self._state(solver) | {"records": records, "runs": list(self.runs)})

    def _state(self, solver: Solver) -> dict[str, Any]:
        return {
            "solver": solver.state_dict(),
            "started": self.started,
            "train_seconds": self._train_seconds(),
            # Without predictions, examples.npz is not written, and may have those of other examples.
            "examples": self._examples_key() if self.log.predictions else None,
        }

    def _examples_key(self) -> list[Any]:
        config = self.trial.settings.solver
        return [config.val_example_subset, *config.val_example_indices]

    def _pause(self, solver: Solver) -> TrialReport:
        self._write_checkpoint(solver)
        return TrialReport(self.trial.id, "paused", self.epoch, solver.best.val_distance_mm, place=self._place())

    def _finish(self, solver: Solver) -> TrialReport:
        files = {FileNames.STATE: self._final_state(solver)} if self.trial.keeps_state else {}
        best = solver.best
        solver.model.load_state_dict(best.weights)
        metrics: dict[str, Any] = {}
        for split, evaluator in self.evaluators.items():
            measured = evaluator.final(solver.model)
            self.log.records += [Record(best.epoch, 0, split, m.subset, m.space, m.metric, m.value) for m in measured]
            metrics[split] = _headline(measured)
            error_mm = metrics[split][MEAN_SUBSET]["distance"]
            if not math.isfinite(error_mm):
                raise DivergedError(
                    f"the {split} error of the best weights is {error_mm}", best.epoch, len(solver.loader)
                )
        files |= self.log.files(self.trial.id, self.examples)
        if self.trial.settings.experiment.keep_weights != "none":
            *_, reported = self.evaluators.values()
            files[FileNames.FRAMES] = self._frame_errors(reported.frame_errors(solver.model))
            files[FileNames.WEIGHTS] = tensor_bytes({name: tensor.cpu() for name, tensor in best.weights.items()})
        learned = None if self.normalizer is None else self.normalizer.learned()
        self._write_trial("finished", files, best_epoch=best.epoch, metrics=metrics, normalizer=learned)
        with suppress(StorageError, OSError):  # a leftover checkpoint does no harm
            self.folder.remove(FileNames.CHECKPOINT)
        return TrialReport(self.trial.id, "finished", self.epoch, best.val_distance_mm)

    def _frame_errors(self, errors_mm: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> bytes:
        """Returns the content of frames.parquet."""
        *_, reported = self.sets.values()
        by_subset = {subset: (before.numpy(), after.numpy()) for subset, (before, after) in errors_mm.items()}
        distances = training_distances(self.sets["train"], reported)
        return FrameErrors(by_subset, reported.frames, distances).to_parquet()

    def _write_trial(
        self, status: Status = "interrupted", files: Mapping[str, bytes] = MappingProxyType({}), **outcome: Any
    ) -> None:
        """Writes files of the trial and then `trial.json`, whose status decides whether the others count."""
        spec = self.trial.spec
        names = names_in(spec.combination.encoded)
        file = TrialFile(
            key=spec.key,
            repetition=spec.repetition,
            seed=spec.seed,
            runs=self.runs,
            status=status,
            options=spec.combination.options,
            description=json.loads(spec.combination.encoded),
            sources={name: self.trial.sources[name] for name in sorted(names & self.trial.sources.keys())},
            epochs=self.epoch,
            started=self.started,
            ended=None if status == "interrupted" else time.time(),
            train_seconds=self._train_seconds(),
            device=self.device,
            gpu=self.gpu,
            node=socket.gethostname(),
            pid=os.getpid(),
            threads=self.trial.settings.experiment.cpus_per_trial,
        )
        self.folder.write_trial(file._replace(**self._gpu_memory(), **outcome), files)

    def _gpu_memory(self) -> dict[str, Any]:
        """Returns the fields of the trial's file that say how much memory it took on its GPU; none on a CPU."""
        device = self.trial.device
        if device.type == "cpu":
            return {}
        gpu = torch.get_device_module(device)
        with suppress(RuntimeError):  # after some errors the GPU does not answer
            _, total = gpu.mem_get_info(device)
            return {"gpu_peak_gib": gpu.max_memory_reserved(device) / 2**30, "gpu_total_gib": total / 2**30}
        return {}

    def _place(self) -> str:
        return f"{self.device} on {socket.gethostname()}"

    def _train_seconds(self) -> float:
        return time.monotonic() - self.clock_start

    def _plot(self, report: EpochReport) -> None:
        n_epochs = self.trial.settings.solver.num_epochs
        predictions = report.log_points[-1].examples
        is_due = report.epoch in (1, n_epochs) or report.epoch % max(1, n_epochs // 10) == 0
        if self.examples is None or predictions is None or not is_due:
            return
        picture = plot_examples(
            self.examples.inputs,
            predictions.numpy(),
            self.examples.labels,
            self.sets["val"].skeleton,
            title=f"{self.trial.id}, epoch {report.epoch}",
        )
        self.folder.write(f"{FileNames.PLOTS_FOLDER}/epoch_{report.epoch:05d}.png", picture)


def with_run(runs: Sequence[str], run_id: str) -> tuple[str, ...]:
    """Returns the ids of the runs that trained a trial, with that of the present one as the last."""
    return (*(run for run in runs if run != run_id), run_id)


def _headline(measured: list[Measurement]) -> dict[str, dict[str, float]]:
    """Returns the metrics that tables show, in mm, by subset; the records have all metrics."""
    headline: dict[str, dict[str, float]] = {}
    for m in measured:
        if m.space == "original" and not set("@[") & set(m.metric):
            headline.setdefault(m.subset, {})[m.metric] = m.value
    return headline

"""The training of one model. It knows neither Ray nor folders: it yields its results epoch by epoch."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from data_pipeline.batch import Batch
from data_pipeline.loader import TrainingLoader
from data_pipeline.subsets import MEAN_SUBSET
from posenet import errors
from posenet.evaluator import Evaluator
from posenet.losses import Loss
from posenet.models import ClosedFormCorrector, Corrector
from posenet.record import Record, Space
from posenet.reproducible import random_state, random_state_kept, set_random_state


class DivergedError(Exception):
    """The loss or the validation error is no longer a finite number.

    Attributes:
        epoch: The epoch, from 1.
        batch: The batch within the epoch, from 1.
    """

    def __init__(self, what: str, epoch: int, batch: int) -> None:
        super().__init__(f"{what} in epoch {epoch}, batch {batch}")
        self.epoch = epoch
        self.batch = batch


@dataclass(frozen=True)
class LogPoint:
    """The measurements at one of an epoch's log points.

    Attributes:
        batch: The number of batches done in the epoch.
        records: All numbers.
        text: The most important numbers as text.
        val_distance_mm: The mean distance on the validation set, mean over subsets.
        examples: The predictions for the examples, (E, J, 3), mm; None if there are no examples.
    """

    batch: int
    records: list[Record]
    text: str
    val_distance_mm: float
    examples: Tensor | None


@dataclass(frozen=True)
class EpochReport:
    """The results of an epoch.

    Attributes:
        epoch: The number of epochs done.
        val_distance_mm: The mean distance on the validation set at the end of the epoch, mean over subsets.
        log_points: The log points, in order; the last one is at the end of the epoch.
    """

    epoch: int
    val_distance_mm: float
    log_points: list[LogPoint]


@dataclass(frozen=True)
class Examples:
    """Samples of the validation set whose predictions are saved at every log point."""

    subset: str
    indices: Tensor


@dataclass(frozen=True, kw_only=True)
class SolverSettings:
    """How a model is trained and what is logged; `tune_runs/README.md` explains each setting."""

    num_epochs: int
    loss_space: Space = "default"
    scheduler_requires_metric: bool = False
    log_frequency: int = 1
    log_loss: bool = False
    log_grad: bool = False


@dataclass
class Best:
    """The epoch with the lowest validation distance so far, and its weights."""

    epoch: int = 0
    val_distance_mm: float = math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)


class Solver:
    """Trains a model.

    Args:
        model: A corrector; it is trained in place, on its device.
        loss: The loss to minimise. A `ClosedFormCorrector` minimises its own; then this one is only logged.
        optimizer: The optimizer of the model's parameters; None for a `ClosedFormCorrector`.
        scheduler: The scheduler, stepped after each epoch; None likewise.
        loader: The training batches.
        evaluator: Evaluates on the validation set, which determines the best epoch.
        settings: The other settings.
        examples: Samples whose predictions are saved; None for none.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer | None,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None,
        loader: TrainingLoader,
        evaluator: Evaluator,
        settings: SolverSettings,
        examples: Examples | None = None,
    ) -> None:
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.loader = loader
        self.evaluator = evaluator
        self.settings = settings
        self.examples = examples
        self.epoch = 0
        self.best = Best()

    @property
    def device(self) -> torch.device:
        """The device of the data and the model."""
        return self.loader.data.labels.device

    def epochs(self, until: int | None = None) -> Iterator[EpochReport]:
        """Trains for the remaining epochs, or up to epoch `until`, and yields after each.

        Raises:
            DivergedError: If a loss or the validation distance is not finite.
        """
        last = self.settings.num_epochs if until is None else min(until, self.settings.num_epochs)
        while self.epoch < last:
            yield self._run_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that the next epoch depends on; call it between two epochs."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "sums": self.model.sums() if isinstance(self.model, ClosedFormCorrector) else None,
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "loader": self.loader.state_dict(),
            "random": random_state(self.device),
            "best": vars(self.best),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a `state_dict`, with bitwise the same results as without the interruption."""
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        if isinstance(self.model, ClosedFormCorrector):
            self.model.load_sums(state["sums"])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.loader.load_state_dict(state["loader"])
        set_random_state(state["random"], self.device)
        self.best = Best(**state["best"])

    def _run_epoch(self) -> EpochReport:
        self.epoch += 1
        progress = _EpochProgress(len(self.loader))
        log_points = []
        self.model.train()
        for batch in self.loader.epoch():
            if isinstance(self.model, ClosedFormCorrector):
                self._add_batch(self.model, batch, progress)
            else:
                self._train_batch(batch, progress)
            if _is_log_point(progress.n_done, len(self.loader), self.settings.log_frequency):
                log_points.append(self._log(progress))
        self._step_scheduler(progress)
        val_distance_mm = log_points[-1].val_distance_mm
        if val_distance_mm < self.best.val_distance_mm:
            weights = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
            self.best = Best(self.epoch, val_distance_mm, weights)
        return EpochReport(self.epoch, val_distance_mm, log_points)

    def _add_batch(self, model: ClosedFormCorrector, batch: Batch, progress: "_EpochProgress") -> None:
        with torch.no_grad():
            corrected = model(batch.inputs)  # (N, J, 3)
            progress.add(len(batch.poses), self._loss(batch, corrected), self._distance(batch, corrected))
            model.add(batch.inputs, batch.labels)
            if progress.n_done == len(self.loader):
                model.fit()

    def _train_batch(self, batch: Batch, progress: "_EpochProgress") -> None:
        assert self.optimizer is not None
        n_done, optimizer = progress.n_done, self.optimizer

        def closure() -> Tensor:
            optimizer.zero_grad()
            corrected = self.model(batch.inputs)  # (N, J, 3)
            if corrected.shape != batch.poses.shape:
                shapes = f"{tuple(corrected.shape)} for poses of shape {tuple(batch.poses.shape)}"
                raise ValueError(f"the model returned a tensor of shape {shapes}; the two must be the same")
            loss = self._loss(batch, corrected)
            loss.backward()  # type: ignore[no-untyped-call] # torch declares no types for it
            # Some optimizers (LBFGS) call this several times, others once: the first loss is that of the batch.
            if progress.n_done == n_done:
                distance = self._distance(batch, corrected)
                grad_norm = [self._grad_norm()] if self.settings.log_grad else []
                progress.add(len(batch.poses), loss, distance, *grad_norm)
            return loss

        # torch declares floats where its optimizers pass tensors through.
        optimizer.step(closure)  # type: ignore[arg-type]

    def _loss(self, batch: Batch, corrected: Tensor) -> Tensor:
        skeleton = self.loader.data.skeleton
        if self.settings.loss_space == "original":
            return self.loss(batch.in_mm(corrected), batch.labels_mm, skeleton)
        return self.loss(corrected, batch.labels, skeleton)

    @torch.no_grad()  # lengths take less time without gradients
    def _distance(self, batch: Batch, corrected: Tensor) -> Tensor:
        skeleton = self.loader.data.skeleton
        if self.evaluator.eval_space == "original":
            return errors.distance_error(batch.in_mm(corrected), batch.labels_mm, skeleton).mean()
        return errors.distance_error(corrected, batch.labels, skeleton).mean()

    def _grad_norm(self) -> Tensor:
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        return torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]).mean()

    def _step_scheduler(self, progress: "_EpochProgress") -> None:
        if self.scheduler is None:
            return
        if self.settings.scheduler_requires_metric:
            self.scheduler.step(progress.mean_loss(since=0))  # type: ignore[arg-type] # an epoch for the base class
        else:
            self.scheduler.step()

    def _log(self, progress: "_EpochProgress") -> LogPoint:
        since, n_done = progress.n_fetched, progress.n_done
        progress.fetch()
        for index in range(since, n_done):
            if not math.isfinite(progress.losses[index]):
                raise DivergedError(f"the loss is {progress.losses[index]}", self.epoch, index + 1)
        with random_state_kept(self.device):  # what models and metrics draw here must not change the training
            strength = self._choose_strength()
            validation = self.evaluator.intermediate(self.model)
            examples_mm = self._predict_examples()
        (val_distance_mm,) = (
            m.value for m in validation if (m.subset, m.space, m.metric) == (MEAN_SUBSET, "original", "distance")
        )
        if not math.isfinite(val_distance_mm):
            raise DivergedError(f"the validation error is {val_distance_mm}", self.epoch, n_done)

        eval_space, loss_space = self.evaluator.eval_space, self.settings.loss_space
        loss, distance = progress.mean_loss(since), progress.mean_distance(since)
        records = [
            Record(self.epoch, n_done, "train", MEAN_SUBSET, loss_space, "loss", loss),
            Record(self.epoch, n_done, "train", MEAN_SUBSET, eval_space, "distance", distance),
            *(Record(self.epoch, n_done, "val", m.subset, m.space, m.metric, m.value) for m in validation),
        ]
        if strength is not None:
            records.append(Record(self.epoch, n_done, "val", MEAN_SUBSET, "original", "strength", strength))
        for index in range(since, n_done):
            at = (self.epoch, index + 1, "train", MEAN_SUBSET, loss_space)
            if self.settings.log_loss:
                records.append(Record(*at, "batch_loss", progress.losses[index]))
            if self.settings.log_grad and self.optimizer is not None:
                records.append(Record(*at, "batch_grad_norm", progress.grad_norms[index]))
        text = (
            f"epoch {self.epoch}/{self.settings.num_epochs}, batch {n_done}/{len(self.loader)}: "
            f"training loss {loss:.5g}, distance {distance:.5g}; validation distance {val_distance_mm:.3f} mm"
            + ("" if strength is None else f" with strength {strength}")
        )
        return LogPoint(n_done, records, text, val_distance_mm, examples_mm)

    def _choose_strength(self) -> float | None:
        """Sets the strength of the model, if it has one, to the best one on the validation set, and returns it."""
        if not isinstance(self.model, Corrector) or self.model.chosen_strength is None:
            return None
        strength = self.evaluator.best_strength(self.model)
        self.model.chosen_strength.fill_(strength)
        return strength

    def _predict_examples(self) -> Tensor | None:
        if self.examples is None:
            return None
        return self.evaluator.predict(self.model, self.examples.subset, self.examples.indices).cpu()


@dataclass
class _EpochProgress:
    """The numbers of an epoch's batches; they stay on the device until a log point fetches all of them."""

    n_batches: int
    sizes: list[int] = field(default_factory=list)
    # (B, 2) or (B, 3). A small tensor for each batch, kept between the batches' large ones, would fragment the memory.
    on_device: Tensor | None = None
    losses: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)

    @property
    def n_done(self) -> int:
        return len(self.sizes)

    @property
    def n_fetched(self) -> int:
        return len(self.losses)

    def add(self, size: int, *numbers: Tensor) -> None:
        """Adds a batch: its size, loss and mean distance, and the mean norm of its gradients if that is logged."""
        # A loss may have one element in any number of dimensions.
        of_batch = [number.detach().reshape(()) for number in numbers]
        if self.on_device is None:
            self.on_device = torch.stack(of_batch).expand(self.n_batches, -1).clone()
        else:
            torch.stack(of_batch, out=self.on_device[self.n_done])
        self.sizes.append(size)

    def fetch(self) -> None:
        assert self.on_device is not None
        by_kind = self.on_device[self.n_fetched : self.n_done].T.tolist()
        for values, fetched in zip((self.losses, self.distances, self.grad_norms), by_kind, strict=False):
            values += fetched

    def mean_loss(self, since: int) -> float:
        """The mean loss over the samples of the batches from `since` on."""
        return self._mean(self.losses, since)

    def mean_distance(self, since: int) -> float:
        """The mean distance over the samples of the batches from `since` on."""
        return self._mean(self.distances, since)

    def _mean(self, values: list[float], since: int) -> float:
        weights = self.sizes[since:]
        return sum(value * weight for value, weight in zip(values[since:], weights, strict=True)) / sum(weights)


def _is_log_point(n_done: int, n_batches: int, log_frequency: int) -> bool:
    """Returns whether one of `log_frequency` evenly spaced points is reached; the last one is the end of the epoch."""
    # Point i of f is after ceil(i·n/f) batches: where floor(n_done·f/n) increases.
    return n_done * log_frequency // n_batches > (n_done - 1) * log_frequency // n_batches

"""Compares one epoch of the solver with a bare loop over the same data, alternating in one process.

The bare loop gathers and shifts the poses, runs forward pass, loss, backward pass and Adam step, and then one plain
evaluation. The solver does the same and also logs all metrics three times. Bound: 1.3; target: 1.15.
"""

import statistics
import time

import torch
from torch import nn

from data_pipeline.batch import DeviceDataset
from data_pipeline.distorters import NoDistorter
from data_pipeline.loader import Generators, TrainingLoader
from data_pipeline.normalizers import Shifter
from data_pipeline.skeleton import HANDS17
from posenet import errors
from posenet.evaluator import Evaluator
from posenet.losses import MetricLoss
from posenet.models import CorrectorMLP
from posenet.reproducible import reproducible_process
from posenet.solver import Solver, SolverSettings

N_TRAIN, N_VAL, BATCH, ROUNDS = 20_000, 4_000, 512, 15


def random_set(n: int, seed: int) -> DeviceDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randn(n, 21, 3, generator=generator) * 50
    return DeviceDataset(labels, {"A": labels + 6 * torch.randn(n, 21, 3, generator=generator)}, HANDS17)


class BareLoop:
    """A training loop written by hand."""

    def __init__(self, train: DeviceDataset, val: DeviceDataset) -> None:
        self.train, self.val = train, val
        self.model = CorrectorMLP(HANDS17, hidden_dims=[256, 256])
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.loss = nn.L1Loss()

    def epoch(self) -> float:
        for indices in torch.randperm(N_TRAIN).split(BATCH):
            poses, labels = self.train.poses["A"][indices], self.train.labels[indices]
            centre = poses.mean(dim=1, keepdim=True)
            self.optimizer.zero_grad()
            self.loss(self.model(poses - centre), labels - centre).backward()
            self.optimizer.step()
        with torch.inference_mode():
            centre = self.val.poses["A"].mean(dim=1, keepdim=True)
            corrected = self.model(self.val.poses["A"] - centre) + centre
            return (corrected - self.val.labels).norm(dim=2).mean().item()


def solver(train: DeviceDataset, val: DeviceDataset) -> Solver:
    model = CorrectorMLP(HANDS17, hidden_dims=[256, 256])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generators = Generators(*(torch.Generator().manual_seed(seed) for seed in range(3)))
    return Solver(
        model,
        MetricLoss(errors.coordinate_difference, "absolute"),
        optimizer,
        torch.optim.lr_scheduler.StepLR(optimizer, step_size=1000),
        TrainingLoader(
            train,
            batch_size=BATCH,
            distorter=NoDistorter(),
            augmenters=[],
            normalizer=Shifter(HANDS17),
            generators=generators,
        ),
        Evaluator(val, normalizer=Shifter(HANDS17), eval_space="original"),
        SolverSettings(num_epochs=10_000, log_frequency=3),
    )


def seconds(step: object) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


with reproducible_process(threads=1, deterministic=True, matmul_precision="highest"):
    train, val = random_set(N_TRAIN, 0), random_set(N_VAL, 1)
    bare, epochs = BareLoop(train, val), solver(train, val).epochs()
    for _ in range(2):
        bare.epoch(), next(epochs)
    pairs = [(seconds(lambda: next(epochs)), seconds(bare.epoch)) for _ in range(ROUNDS)]
ratios = sorted(ours / theirs for ours, theirs in pairs)
ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
print(f"solver {ours * 1e3:.0f} ms, bare loop {theirs * 1e3:.0f} ms an epoch (medians of {ROUNDS})")
print(f"ratio: {statistics.median(ratios):.3f} (from {ratios[0]:.3f} to {ratios[-1]:.3f}); bound 1.3, target 1.15")

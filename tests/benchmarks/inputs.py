"""What distorting, augmenting and normalising cost, as a share of an epoch of the small MLP that does nothing of it.

All in one process and on one thread, in turns with epochs. Target: 10 % for the three together, which are measured in
a row, since what one leaves in memory the next one finds.
"""

import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from data_pipeline.augmenters import RandomRotator, RandomScaler
from data_pipeline.batch import Batch, DeviceDataset
from data_pipeline.distorters import (
    Distorter,
    ErrorBankDistorter,
    GaussianDistorter,
    InterpolationDistorter,
    LayeredGaussianDistorter,
    NeighborErrorBankDistorter,
    NoDistorter,
    TrainingSamples,
)
from data_pipeline.loader import Generators, TrainingLoader
from data_pipeline.normalizers import (
    GlobalNormalizer,
    IndividualNormalizer,
    Normalizer,
    Shifter,
    ViewpointNormalizer,
)
from data_pipeline.skeleton import HANDS17
from data_pipeline.synthetic import Backbone, synthetic_hands
from posenet import errors
from posenet.evaluator import Evaluator
from posenet.losses import MetricLoss
from posenet.models import CorrectorMLP
from posenet.reproducible import reproducible_process
from posenet.solver import Solver, SolverSettings

N_TRAIN, N_VAL, BATCH, ROUNDS, N_BANK = 20_000, 4_000, 512, 15, 10_000

NORMALIZERS = [Shifter, GlobalNormalizer, ViewpointNormalizer, IndividualNormalizer]
LAYERS = ((0.8, 0.0, 6.0), (0.15, 15.0, 4.0), (0.05, 40.0, 10.0))
USUAL = "Gaussian, 8 mm"
DISTORTERS: dict[str, Distorter] = {
    "none": NoDistorter(),
    USUAL: GaussianDistorter(std_mm=8),
    "Gaussian, by joint": GaussianDistorter(stats_name="stats"),
    "three layers": LayeredGaussianDistorter(layers=LAYERS),
    "and 2 % confused": LayeredGaussianDistorter(layers=LAYERS, confusion_prob=0.02),
    "error bank": ErrorBankDistorter(bank_name="bank", strength_std=0.3),
    "of 20 neighbours": NeighborErrorBankDistorter(bank_name="bank", neighbors_name="near", max_k=20),
    "interpolation": InterpolationDistorter(),
}


def hands(n: int, seed: int) -> DeviceDataset:
    labels = synthetic_hands(n, seed)
    poses = Backbone("A").predict(labels, seed)
    return DeviceDataset(torch.from_numpy(labels), {"A": torch.from_numpy(poses)}, HANDS17)


def epochs(train: DeviceDataset, val: DeviceDataset) -> Iterator[object]:
    """Epochs in which inputs are only gathered."""
    model = CorrectorMLP(HANDS17, hidden_dims=[256, 256])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = TrainingLoader(
        train,
        batch_size=BATCH,
        distorter=NoDistorter(),
        augmenters=[],
        normalizer=None,
        generators=Generators(*(torch.Generator().manual_seed(seed) for seed in range(3))),
    )
    return Solver(
        model,
        MetricLoss(errors.coordinate_difference, "absolute"),
        optimizer,
        torch.optim.lr_scheduler.StepLR(optimizer, step_size=1000),
        loader,
        Evaluator(val, normalizer=None, eval_space="original"),
        SolverSettings(num_epochs=10_000, log_frequency=1),
    ).epochs()


def steps(normalizers: dict[str, Normalizer]) -> dict[tuple[str, str], Callable[[TrainingSamples], object]]:
    """What is done to a batch, by a name for its row and one for its column: single steps, and all three in a row."""
    generator, rotator = torch.Generator().manual_seed(0), RandomRotator()
    found: dict[tuple[str, str], Callable[[TrainingSamples], object]] = {}
    for augmenter in (rotator, RandomScaler()):
        name = type(augmenter).__name__
        found[name, "alone"] = lambda samples, it=augmenter: it(samples.poses, samples.labels, generator)
    for name, normalizer in normalizers.items():
        # The pose is normalised at once, the label when the loss asks for it.
        found[name, "alone"] = lambda samples, it=normalizer: Batch.of(samples.poses, samples.labels, it).labels
    for row, distorter in DISTORTERS.items():
        found[row, "alone"] = lambda samples, it=distorter: it(samples, generator)
        for column, normalizer in normalizers.items():

            def all_three(samples, distorter=distorter, normalizer=normalizer):
                poses, labels = rotator(distorter(samples, generator), samples.labels, generator)
                return Batch.of(poses, labels, normalizer).labels

            found[row, column] = all_three
    return found


def seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


with reproducible_process(threads=1, deterministic=True, matmul_precision="highest"):
    train, val = hands(N_TRAIN, 0), hands(N_VAL, 1)
    rng = np.random.default_rng(0)
    tables = {
        "stats_error_stats.json": torch.from_numpy(rng.uniform(1, 9, (2, 21, 3)).astype(np.float32)),
        "bank_errors.pt": torch.from_numpy(rng.normal(0, 8, (N_BANK, 21, 3)).astype(np.float32)),
        "near_neighbors.pt": torch.from_numpy(rng.integers(0, N_BANK, (N_TRAIN, 50)).astype(np.int32)),
    }
    batches = [
        TrainingSamples(*train.gather("A", indices), indices, HANDS17, tables)
        for indices in torch.randperm(N_TRAIN).split(BATCH)
    ]
    normalizers = {member.__name__: member(HANDS17) for member in NORMALIZERS}
    for normalizer in normalizers.values():
        normalizer.fit([train.poses["A"]])
    running, by_name = epochs(train, val), steps(normalizers)
    for _ in range(2):
        next(running)
    epoch_s: list[float] = []
    step_s: dict[tuple[str, str], list[float]] = {name: [] for name in by_name}
    for _ in range(ROUNDS):
        epoch_s.append(seconds(lambda: next(running)))
        for name, step in by_name.items():
            step_s[name].append(seconds(lambda step=step: [step(samples) for samples in batches]))

epoch = statistics.median(epoch_s)
print(f"an epoch of {len(batches)} batches of {BATCH}: {epoch * 1e3:.0f} ms (median of {ROUNDS})\n")
shares = {name: statistics.median(times) / epoch for name, times in step_s.items()}
for name in (RandomRotator.__name__, RandomScaler.__name__, *normalizers):
    print(f"{shares[name, 'alone']:6.1%}  {name}")
print(f"\n{'a distorter':18}  alone | with RandomRotator and " + " ".join(f"{name[:10]:>10}" for name in normalizers))
for row in DISTORTERS:
    totals = " ".join(f"{shares[row, column]:10.1%}" for column in normalizers)
    print(f"{row:18} {shares[row, 'alone']:6.1%} | {'':23} {totals}")
worst = max((name for name in shares if name[1] != "alone"), key=lambda name: shares[name])
print(f"\nthe usual, Shifter, {USUAL}, and RandomRotator: {shares[USUAL, 'Shifter']:.1%}; target 10 %")
print(f"the worst, {worst[1]}, {worst[0]}, and RandomRotator: {shares[worst]:.1%}; target 10 %")

"""Measures what distorting, augmenting and normalising cost, relative to an epoch of a small MLP.

The small MLP is that of `nyu_backbones.py`, two layers of 256, with batches of 256 and of 512: with larger ones an
epoch is shorter, and the share of the inputs is larger. It has no dropout and the fused optimizer, so it is the fastest
that trials use.

Everything runs in one process and on one thread, alternating with epochs that only gather their inputs. The time of a
loader that only gathers is subtracted. What is left is given as a share of an epoch with these inputs, and, which is
stricter, of one without. Target: 10 % of the latter for the three together; they are measured in sequence, because each
depends on the memory layout that the previous one leaves. Each normalizer is measured with the most expensive augmenter
that it does not undo.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from data_pipeline.augmenters import Augmenter, RandomBoneScaler, RandomRotator, RandomScaler
from data_pipeline.batch import DeviceDataset
from data_pipeline.distorters import (
    Distorter,
    ErrorBankDistorter,
    GaussianDistorter,
    InterpolationDistorter,
    LayeredGaussianDistorter,
    NeighborErrorBankDistorter,
    NoDistorter,
)
from data_pipeline.loader import Generators, TrainingLoader
from data_pipeline.normalizers import (
    GlobalNormalizer,
    IndividualNormalizer,
    Normalizer,
    Shifter,
    ViewpointNormalizer,
)
from data_pipeline.preparation.synthetic import Backbone, synthetic_hands
from data_pipeline.skeleton import HANDS17
from posenet import errors
from posenet.evaluator import Evaluator
from posenet.losses import MetricLoss
from posenet.models import CorrectorMLP
from posenet.reproducible import reproducible_process
from posenet.solver import Solver, SolverSettings

N_TRAIN, N_VAL, ROUNDS, N_BANK = 20_000, 4_000, 15, 10_000
BATCH_SIZES = (256, 512)

NORMALIZERS: dict[type[Normalizer], list[Augmenter]] = {
    Shifter: [RandomRotator()],
    GlobalNormalizer: [RandomRotator()],
    ViewpointNormalizer: [RandomScaler()],
    IndividualNormalizer: [],
}
LAYERS = ((0.8, 0.0, 6.0), (0.15, 15.0, 4.0), (0.05, 40.0, 10.0))
BARE, USUAL = "bare", "Gaussian, 8 mm"
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


def make_loader(
    train: DeviceDataset,
    batch_size: int,
    distorter: Distorter | None = None,
    augmenters: Sequence[Augmenter] = (),
    normalizer: Normalizer | None = None,
    tables: Mapping[str, torch.Tensor] | None = None,
) -> TrainingLoader:
    return TrainingLoader(
        train,
        batch_size=batch_size,
        distorter=distorter or NoDistorter(),
        augmenters=augmenters,
        normalizer=normalizer,
        generators=Generators(*(torch.Generator().manual_seed(seed) for seed in range(3))),
        tables=tables,
    )


def epochs(train: DeviceDataset, val: DeviceDataset, batch_size: int) -> Iterator[object]:
    """Epochs in which inputs are only gathered."""
    model = CorrectorMLP(HANDS17, hidden_dims=[256, 256])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    return Solver(
        model,
        MetricLoss(errors.coordinate_difference, "absolute"),
        optimizer,
        torch.optim.lr_scheduler.StepLR(optimizer, step_size=1000),
        make_loader(train, batch_size),
        Evaluator(val, normalizer=None, eval_space="original"),
        SolverSettings(num_epochs=10_000, log_frequency=1),
    ).epochs()


def loaders(
    train: DeviceDataset, batch_size: int, normalizers: Mapping[str, Normalizer], tables: Mapping[str, torch.Tensor]
) -> dict[tuple[str, str], TrainingLoader]:
    """Returns loaders with single steps and with all three, keyed by row and column of the table."""
    make = partial(make_loader, train, batch_size)
    found = {(BARE, BARE): make()}
    for augmenter in (RandomRotator(), RandomScaler(), RandomBoneScaler()):
        found[type(augmenter).__name__, BARE] = make(augmenters=[augmenter])
    for name, normalizer in normalizers.items():
        found[name, BARE] = make(normalizer=normalizer)
    for row, distorter in DISTORTERS.items():
        found[row, BARE] = make(distorter, tables=tables)
        for column, normalizer in normalizers.items():
            found[row, column] = make(distorter, NORMALIZERS[type(normalizer)], normalizer, tables)
    return found


def prepare_epoch(loader: TrainingLoader) -> None:
    for batch in loader.epoch():
        _ = batch.labels  # normalised when the loss asks for them


def seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def measure(
    train: DeviceDataset,
    val: DeviceDataset,
    batch_size: int,
    normalizers: Mapping[str, Normalizer],
    tables: Mapping[str, torch.Tensor],
) -> tuple[float, dict[tuple[str, str], float]]:
    """Returns the seconds of an epoch that only gathers, and what each loader adds to it; medians of all rounds."""
    running, by_name = epochs(train, val, batch_size), loaders(train, batch_size, normalizers, tables)
    for _ in range(2):
        next(running)
    epoch_s: list[float] = []
    inputs_s: dict[tuple[str, str], list[float]] = {name: [] for name in by_name}
    for _ in range(ROUNDS):
        epoch_s.append(seconds(lambda: next(running)))
        for name, loader in by_name.items():
            inputs_s[name].append(seconds(lambda loader=loader: prepare_epoch(loader)))
    bare = statistics.median(inputs_s.pop((BARE, BARE)))
    return statistics.median(epoch_s), {name: statistics.median(times) - bare for name, times in inputs_s.items()}


def print_table(epoch: float, extra_s: Mapping[tuple[str, str], float], normalizers: Sequence[str]) -> None:
    """Prints what the steps cost, as shares of an epoch without them."""
    for name in (RandomRotator.__name__, RandomScaler.__name__, RandomBoneScaler.__name__, *normalizers):
        print(f"{extra_s[name, BARE] / epoch:6.1%}  {name}")
    print(f"\n{'with':27}" + " ".join(f"{name:>20}" for name in normalizers))
    augmented = [
        "and " + (", ".join(type(one).__name__ for one in some) or "no augmenter") for some in NORMALIZERS.values()
    ]
    print(f"{'':20} alone " + " ".join(f"{text:>20}" for text in augmented))
    for row in DISTORTERS:
        alone, *others = (extra_s[row, column] / epoch for column in (BARE, *normalizers))
        print(f"{row:19} {alone:6.1%} " + " ".join(f"{share:20.1%}" for share in others))
    for title, is_strict in (("without", True), ("with", False)):
        all_three = {
            n: extra / (epoch if is_strict else epoch + extra) for n, extra in extra_s.items() if BARE not in n
        }
        worst = max(all_three, key=all_three.__getitem__)
        within = sum(share <= 0.1 for share in all_three.values())
        print(
            f"\nshares of an epoch {title} these inputs: {all_three[USUAL, 'Shifter']:.1%} in the usual case ({USUAL}, "
            f"RandomRotator and Shifter); {within} of {len(all_three)} within 10 %; the most expensive, {worst[0]} and "
            f"{worst[1]}: {all_three[worst]:.1%}"
        )


with reproducible_process(threads=1, deterministic=True, matmul_precision="highest"):
    train, val = hands(N_TRAIN, 0), hands(N_VAL, 1)
    rng = np.random.default_rng(0)
    tables = {
        "stats_error_stats.json": torch.from_numpy(rng.uniform(1, 9, (2, 21, 3)).astype(np.float32)),
        "bank_errors.pt": torch.from_numpy(rng.normal(0, 8, (N_BANK, 21, 3)).astype(np.float32)),
        "near_neighbors.pt": torch.from_numpy(rng.integers(0, N_BANK, (N_TRAIN, 50)).astype(np.int32)),
    }
    normalizers = {member.__name__: member(HANDS17) for member in NORMALIZERS}
    for normalizer in normalizers.values():
        normalizer.fit([train.poses["A"]])
    for batch_size in BATCH_SIZES:
        epoch, extra_s = measure(train, val, batch_size, normalizers, tables)
        print(
            f"\nbatches of {batch_size}: an epoch without these steps takes {epoch * 1e3:.0f} ms (median of {ROUNDS})"
        )
        print_table(epoch, extra_s, list(normalizers))

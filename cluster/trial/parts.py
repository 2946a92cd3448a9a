"""The parts of a training, built from a combination's settings."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from cluster.planning import builders
from cluster.planning.config import Settings
from cluster.planning.seeds import TrialSeeds
from data_pipeline.batch import DeviceDataset, fuses, window_of
from data_pipeline.loader import TrainingLoader
from data_pipeline.normalizers import Normalizer
from posenet.evaluator import Evaluator
from posenet.reproducible import seed_process
from posenet.solver import Examples, Solver, SolverSettings


class Parts(NamedTuple):
    """What a training consists of.

    Attributes:
        solver: Trains the model; it has the model, the loss, the optimizer, the scheduler and the loader.
        evaluators: Evaluate on the validation set and, if there is one, on the test set.
        normalizer: The normalizer, fitted to the training set; None for none.
    """

    solver: Solver
    evaluators: Mapping[str, Evaluator]
    normalizer: Normalizer | None


def build_parts(
    settings: Settings,
    seed: int,
    data: Mapping[str, DeviceDataset],
    tables: Mapping[str, Tensor],
    init_weights: bytes | None = None,
) -> Parts:
    """Builds a training. It seeds the global generators.

    Args:
        settings: The combination's settings.
        seed: The seed of the repetition.
        data: The sets by split, on the device of the training.
        tables: The tables that the distorter reads, by file name, on the same device.
        init_weights: The content of a weights file with the initial weights.
    """
    config, solver_config, hyperparams = settings.experiment, settings.solver, settings.hyperparams
    seeds = TrialSeeds.of(seed)
    train = data["train"]
    device = train.labels.device

    seed_process(seeds.initialisation)  # for normalizers that use random algorithms
    normalizer = None if config.normalizer is None else config.normalizer(train.skeleton)
    if normalizer is not None:
        normalizer.fit(poses for subset in train.subsets for poses, _ in train.chunks(subset, 65536))
    evaluators = {
        split: Evaluator(
            data[split],
            normalizer=normalizer,
            eval_space=hyperparams.eval_space,
            own_metrics=solver_config.metrics,
        )
        for split in data
        if split != "train"
    }
    # Built on the CPU, so the initial weights are the same on every device.
    seed_process(seeds.initialisation)
    model = builders.build_model(hyperparams, train.skeleton)
    if init_weights is not None:
        model.load_state_dict(builders.initial_weights(builders.read_weights(init_weights), model))
    model.to(device)
    loader = TrainingLoader(
        train,
        batch_size=solver_config.batch_size,
        distorter=builders.build_distorter(hyperparams),
        augmenters=hyperparams.augmenters,
        normalizer=normalizer,
        generators=seeds.generators(device),
        tables=tables,
        window=window_of(model),
        fused=fuses(model),
    )

    optimizer = builders.build_optimizer(hyperparams, model.parameters())
    scheduler = builders.build_scheduler(hyperparams, optimizer)
    seed_process(seeds.training)

    examples = None
    if solver_config.val_example_indices:
        indices = torch.tensor(solver_config.val_example_indices, device=device)
        examples = Examples(solver_config.val_example_subset, indices)
    solver_settings = SolverSettings(
        num_epochs=solver_config.num_epochs,
        loss_space=hyperparams.loss_space,
        scheduler_requires_metric=hyperparams.scheduler_requires_metric,
        log_frequency=solver_config.log_frequency,
        log_loss=solver_config.log_loss,
        log_grad=solver_config.log_grad,
    )
    loss = builders.build_loss(hyperparams)
    solver = Solver(model, loss, optimizer, scheduler, loader, evaluators["val"], solver_settings, examples)
    return Parts(solver, evaluators, normalizer)

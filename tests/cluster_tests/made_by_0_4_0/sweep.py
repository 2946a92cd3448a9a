"""The sweep whose results lie beside it, as version 0.4.0 wrote them: a member of every family is in its options.

`tests/test_older_results.py` runs it on a copy of them, and nothing is trained.
"""

import torch

from cluster.experiment import Experiment
from data_pipeline.augmenters import RandomRotator, RandomScaler
from data_pipeline.distorters import (
    ErrorBankDistorter,
    GaussianDistorter,
    InterpolationDistorter,
    LayeredGaussianDistorter,
    NeighborErrorBankDistorter,
    NoDistorter,
)
from data_pipeline.normalizers import GlobalNormalizer, IndividualNormalizer, Shifter, ViewpointNormalizer
from posenet import errors
from posenet.losses import CombinedLoss, MetricLoss
from posenet.models import CorrectorGNN, CorrectorLCN, CorrectorMLP, CorrectorTransformer, GlobalShiftMLP

experiment_config = {
    "name": "every_family",
    "train_set": "two_train",
    "train_set_size": None,
    "val_set": "two_val",
    "val_set_size": None,
    "test_set": "two_test",
    "use_preset": True,
    "normalizer": Shifter,
    "target_device": torch.device("cpu"),
    "n_repetitions": 2,
    "init_weights_path": None,
    "data_dir": "data",
    "storage_path": "results",
}
solver_config = {
    "num_epochs": 2,
    "batch_size": 16,
    "log_frequency": 1,
    "log_loss": False,
    "log_grad": False,
    "verbose": False,
    "show_plots": False,
    "interest_keys": [],
    "val_example_indices": [0, 3],
    "val_example_subset": "A",
}
base_hyperparams = {
    "model": CorrectorMLP,
    "model_args": {"hidden_dims": [8], "activation": "leaky_relu", "dropout": None, "batchnorm": False},
    "loss_function": MetricLoss(errors.coordinate_difference, "absolute"),
    "loss_space": "default",
    "eval_space": "original",
    "optimizer": torch.optim.Adam,
    "optimizer_args": {"lr": 1e-3},
    "scheduler": torch.optim.lr_scheduler.StepLR,
    "scheduler_args": {"step_size": 1, "gamma": 0.5},
    "scheduler_requires_metric": False,
    "distorter": NoDistorter,
    "distorter_args": {},
    "augmenters": [],
}

MLP = (CorrectorMLP, base_hyperparams["model_args"])
GNN = (
    CorrectorGNN,
    {
        **{"n_iter": 1, "latent_dim": 4, "encoder": "shared", "encoder_dims": [], "message_dims": [4]},
        **{"decoder": "per_joint", "decoder_dims": []},
    },
)
LCN = (CorrectorLCN, {"dim": 4, "n_blocks": 1, "reach": 1})
TRANSFORMER = (CorrectorTransformer, {"dim": 4, "n_layers": 1, "n_heads": 2, "feedforward_dim": 8})
SHIFT = (GlobalShiftMLP, {"hidden_dims": [8], "activation": "relu"})

BANK = {"bank_name": "bank"}
LAYERS = {"layers": [(0.75, 2.0, 1.0), (0.25, 20.0, 5.0)]}
NEIGHBORS = {"bank_name": "bank", "neighbors_name": "near", "max_k": 3}
DISTANCE = MetricLoss(errors.distance_error, "squared")
BONES = CombinedLoss([(errors.distance_error, 1.0, "absolute"), (errors.bone_length_error, 0.1, "absolute")])
RATIOS = CombinedLoss([(errors.distance_error, 1.0, "absolute"), (errors.proportion_error, 0.1, "absolute")])

KEYS = (
    *("model", "model_args", "experiment_config.normalizer", "distorter", "distorter_args", "augmenters"),
    *("loss_function", "optimizer", "scheduler", "scheduler_args"),
)
STEP = (torch.optim.Adam, torch.optim.lr_scheduler.StepLR, {"step_size": 1, "gamma": 0.5})
COSINE = (torch.optim.AdamW, torch.optim.lr_scheduler.CosineAnnealingLR, {"T_max": 2})
ROWS = [
    (*MLP, Shifter, NoDistorter, {}, [], base_hyperparams["loss_function"], *STEP),
    (*GNN, ViewpointNormalizer, GaussianDistorter, {"std_mm": 5.0}, [RandomRotator()], DISTANCE, *STEP),
    (*LCN, IndividualNormalizer, ErrorBankDistorter, BANK, [RandomScaler(), RandomRotator()], BONES, *COSINE),
    (*TRANSFORMER, GlobalNormalizer, NeighborErrorBankDistorter, NEIGHBORS, [], RATIOS, *STEP),
    (*SHIFT, Shifter, InterpolationDistorter, {}, [RandomScaler()], DISTANCE, *COSINE),
    (*MLP, Shifter, LayeredGaussianDistorter, LAYERS, [], DISTANCE, *STEP),
]

if __name__ == "__main__":
    experiment = Experiment(experiment_config, solver_config, base_hyperparams)
    experiment.add_joint_options(KEYS, ROWS)
    experiment.run("inline")

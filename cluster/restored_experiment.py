"""Restores an experiment with a single combination from a trial's files."""

from collections.abc import Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import torch

from cluster.experiment import Experiment
from cluster.planning.identity import constructor_parameters
from cluster.results.deserialize import decode_class, decode_value
from cluster.storage.experiment_file import DataEntry, ExperimentFile
from cluster.storage.trial_file import TrialFile
from data_pipeline.augmenters import Augmenter
from data_pipeline.distorters import Distorter
from data_pipeline.normalizers import Normalizer
from data_pipeline.user_error import UserError
from posenet.losses import Loss


def restore_experiment(
    content: ExperimentFile,
    trial: TrialFile,
    modules: Sequence[ModuleType],
    data_dir: str | None,
    device: torch.device,
    storage_path: str,
    *,
    log_frequency: int,
) -> Experiment:
    """Returns an experiment with only the combination of a trial.

    Args:
        content: The content of its `experiment.json`.
        trial: The content of its `trial.json`.
        modules: Where to look for classes that are not of this project or of torch.
        data_dir: The folder with the datasets; None for the experiment's.
        device: Where it will be trained.
        storage_path: The results folder of the new experiment.
        log_frequency: How often it logs in an epoch.

    Raises:
        UserError: If the files lack something that is needed.
        ConfigError: If this version of PoseTune does not accept the settings.
    """
    try:
        encoded = trial.description
        configs = {section: dict(config) for section, config in content.configs.items()}
        hyperparams = _hyperparams(encoded, modules)
        schedule = encoded["schedule"]
        solver = configs["solver_config"] | {
            name: schedule[name] for name in ("num_epochs", "batch_size", "matmul_precision")
        }
        solver |= {
            "log_frequency": log_frequency,
            "verbose": False,
            "show_plots": False,
            "interest_keys": [],
            "metrics": [],
            "callbacks": [],
        }
        config = configs["experiment_config"] | {
            "name": "reproduction",
            "storage_path": storage_path,
            "n_repetitions": 1,
            "keep_weights": "all",
            "keep_state": "none",
            "race": None,
            "search": None,
            "target_device": device,
            "normalizer": _normalizer(encoded["spaces"]["normalizer"], modules),
            "init_weights_path": trial.options.get(
                "experiment_config.init_weights_path", configs["experiment_config"]["init_weights_path"]
            ),
            **{name: schedule[name] for name in ("seed", "deterministic_mode", "cpus_per_trial")},
            **_data(content.data, encoded["data"]),
        }
        if data_dir is not None:
            config["data_dir"] = data_dir
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the files of {trial.key} do not say how it was trained: {error!r}") from error
    return Experiment(config, solver, hyperparams)


def _hyperparams(encoded: Mapping[str, Any], modules: Sequence[ModuleType]) -> dict[str, Any]:
    optimisation, inputs = encoded["optimisation"], encoded["inputs"]
    families: dict[str, tuple[Mapping[str, Any] | None, type[Any]]] = {
        "model": (encoded["model"], torch.nn.Module),
        "optimizer": (optimisation["optimizer"], torch.optim.Optimizer),
        "scheduler": (optimisation["scheduler"], torch.optim.lr_scheduler.LRScheduler),
        "distorter": (inputs["distorter"], Distorter),
    }
    hyperparams: dict[str, Any] = {}
    for name, (part, family) in families.items():
        # A model that is fitted in closed form has no optimizer and no scheduler.
        hyperparams[name] = None if part is None else decode_class(part["name"], family, modules)
        hyperparams[f"{name}_args"] = {} if part is None else decode_value(part["args"], modules)
    scheduler = hyperparams["scheduler"]
    loss = decode_value(encoded["loss"], modules)
    augmenters = decode_value(inputs["augmenters"], modules)
    if not isinstance(loss, Loss) or not all(isinstance(augmenter, Augmenter) for augmenter in augmenters):
        raise TypeError(f"{loss!r} is not a loss, or one of {augmenters!r} is not an augmenter")
    return {
        **hyperparams,
        "choose_strength": encoded["model"].get("choose_strength", False),
        "loss_function": loss,
        "loss_space": encoded["spaces"]["loss_space"],
        "eval_space": encoded["spaces"]["eval_space"],
        "scheduler_requires_metric": scheduler is not None and "metrics" in constructor_parameters(scheduler.step),
        "augmenters": augmenters,
    }


def _normalizer(encoded: Mapping[str, Any] | None, modules: Sequence[ModuleType]) -> Any:
    if encoded is None:
        return None
    found = decode_class(encoded["name"], Normalizer, modules)
    return partial(found, **decode_value(encoded["args"], modules)) if encoded["args"] else found


def _data(known: Sequence[DataEntry], encoded: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the settings of the sets: those that the experiment read, found by their fingerprints."""
    config: dict[str, Any] = {"test_set": None, "test_set_size": None}
    for split in ("train", "val", "test"):
        if split not in encoded:
            continue
        fingerprint = encoded[split]["fingerprint"]
        found = next((data for data in known if data.fingerprint == fingerprint), None)
        if found is None:
            raise ValueError(f"the experiment's last run did not read the {split} set of the trial")
        config |= {f"{split}_set": found.name, f"{split}_set_size": found.size}
        if split == "train":
            config["use_preset"] = found.use_preset
    return config

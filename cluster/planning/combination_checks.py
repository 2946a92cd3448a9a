"""What settings mean together: the aspects of a training, each described and checked as a whole.

An aspect reads a few keys. Its description says everything in them that can change a number: constructor arguments
after defaults, the content of data and weights instead of their names. The descriptions of all aspects make the
combination's identity; the device, the number of processes, what is logged and where results lie are in none of them.
The CPU cores of a trial are in one: sums over another number of threads differ in the last bits.
"""

import copy
import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch.optim import lr_scheduler

from cluster.planning import builders as parts
from cluster.planning.arguments import check_arguments, describe_arguments, refused
from cluster.planning.config import STAND_INS, Hyperparams, Problem, Settings
from cluster.planning.identity import (
    Description,
    UndescribableError,
    canonical_json,
    constructor_parameters,
    describe,
    describe_call,
    partial_arguments,
)
from cluster.planning.inputs import Sources, set_keys
from data_pipeline.pose_dataset import DatasetError, PoseDataset
from data_pipeline.skeleton import BUILT_IN, Skeleton
from data_pipeline.tables import Table, TableError
from data_pipeline.user_error import UserError, did_you_mean, first_line

NUMERICS = 4
"""Raised by a change of this project's code that changes numbers: trials before and after are never in one table."""


@dataclass(frozen=True)
class Aspect:
    """An aspect of a training.

    Attributes:
        name: What it is called in a description.
        keys: The dotted paths of the settings that it reads.
        examine: Returns its description and what is wrong with it. Where something is wrong the description
            means nothing.
    """

    name: str
    keys: tuple[str, ...]
    examine: Callable[[Settings, Sources], tuple[Description, list[Problem]]]


def _examine_data(settings: Settings, sources: Sources) -> tuple[Description, list[Problem]]:
    description: dict[str, Description] = {}
    skeletons: list[Skeleton] = []
    problems = []
    for split, key in set_keys(settings).items():
        try:
            dataset = sources.read_set(key)
        except UserError as error:
            problems.append(Problem(f"experiment_config.{split}_set", str(error)))
            continue
        # A batch's subset is drawn by its place in the file, which the fingerprint does not tell.
        subsets = list(dataset.poses)
        description[split] = {"fingerprint": dataset.fingerprint, "samples": len(dataset), "subsets": subsets}
        skeletons.append(dataset.skeleton)
        if dataset.skeleton != skeletons[0]:
            text = f"{key.name} has the {_named(dataset.skeleton)}, the sets before it the {_named(skeletons[0])}"
            problems.append(Problem(f"experiment_config.{split}_set", text))
    if skeletons:
        description["skeleton"] = _describe_skeleton(skeletons[0])
    if not problems:
        problems += _check_examples(settings, sources.read_set(set_keys(settings)["val"]))
    if settings.experiment.test_set is None and settings.experiment.test_set_size is not None:
        problems.append(Problem("experiment_config.test_set_size", "is given, but there is no test_set"))
    return description, problems


def _describe_skeleton(skeleton: Skeleton) -> Description:
    description = describe(skeleton)
    if skeleton.palm is None or skeleton in BUILT_IN:
        # Nothing but a palm that the user gave says more than the joints, by which older results are known.
        del description["args"]["palm"]
    return description


def _named(skeleton: Skeleton) -> str:
    return f"{skeleton.name} skeleton of {skeleton.n_joints} joints"


def _check_examples(settings: Settings, val_set: PoseDataset) -> list[Problem]:
    problems = []
    subset = settings.solver.val_example_subset
    if settings.solver.val_example_indices and subset not in val_set.poses:
        hint = did_you_mean(subset, list(val_set.poses))
        problems.append(Problem("solver_config.val_example_subset", f"{val_set.name} has no subset {subset!r}{hint}"))
    too_large = [index for index in settings.solver.val_example_indices if index >= len(val_set)]
    if too_large:
        text = f"{val_set.name} has {len(val_set)} samples, numbered from 0, so there is no {too_large[0]}"
        problems.append(Problem("solver_config.val_example_indices", text))
    return problems


def _examine_model(settings: Settings, sources: Sources) -> tuple[Description, list[Problem]]:
    hyperparams = settings.hyperparams
    problems = check_arguments("model_args", hyperparams.model, hyperparams.model_args, n_passed=1)
    description: dict[str, Description] = {}
    if not problems:
        description, problems = describe_arguments("model_args", hyperparams.model, hyperparams.model_args)
    weights: Mapping[str, torch.Tensor] | None = None
    path = settings.experiment.init_weights_path
    if path is not None:
        try:
            content = sources.read_weights(str(path))
            description["init_weights"] = hashlib.sha256(content).hexdigest()
            weights = parts.read_weights(content)
        except OSError as error:
            problems.append(Problem("experiment_config.init_weights_path", f"{path}: {error.strerror or error}"))
        except Exception as error:
            # torch.load has no error of its own for what it cannot read.
            reason = first_line(error)
            text = f"{path} is not a file that torch.load(..., weights_only=True) reads: {reason}"
            problems.append(Problem("experiment_config.init_weights_path", text))
    try:
        train_set = sources.read_set(set_keys(settings)["train"])
    except UserError:
        return description, problems  # the data aspect tells
    if problems:
        return description, problems
    try:
        model = sources.model(settings)
    except Exception as error:
        return description, [refused("model_args", hyperparams.model, hyperparams.model_args, error)]
    if weights is not None:
        try:
            copy.deepcopy(model).load_state_dict(weights, assign=True)
        except Exception as error:
            text = f"the weights of {path} do not fit the model {hyperparams.model.__name__}: {error}"
            problems.append(Problem("experiment_config.init_weights_path", text))
    return description, problems + _check_last_batch(settings, model, train_set)


def _check_last_batch(settings: Settings, model: torch.nn.Module, train_set: PoseDataset) -> list[Problem]:
    batch_size, n_samples = settings.solver.batch_size, len(train_set)
    if batch_size > 1 and n_samples % batch_size != 1:
        return []
    try:
        with torch.random.fork_rng(devices=[]):
            model(torch.zeros(1, train_set.skeleton.n_joints, 3, device="meta"))
    except Exception as error:
        # What else goes wrong on the meta device need not do so in a training.
        if "Expected more than 1 value per channel" in str(error):
            text = (
                f"with batches of {batch_size}, the last one of the {n_samples} samples of {train_set.name} has 1 "
                f"sample, and {settings.hyperparams.model.__name__} normalises over the batch, which takes at least 2; "
                "change batch_size or train_set_size"
            )
            return [Problem("solver_config.batch_size", text)]
    return []


def _examine_optimisation(settings: Settings, sources: Sources) -> tuple[Description, list[Problem]]:
    hyperparams = settings.hyperparams
    problems = [
        *check_arguments("optimizer_args", hyperparams.optimizer, hyperparams.optimizer_args, n_passed=1),
        *check_arguments("scheduler_args", hyperparams.scheduler, hyperparams.scheduler_args, n_passed=1),
    ]
    takes_metric = "metrics" in constructor_parameters(hyperparams.scheduler.step)
    if takes_metric != hyperparams.scheduler_requires_metric:
        text = f"must be {takes_metric} for {hyperparams.scheduler.__name__}, whose step takes "
        text += "a metric" if takes_metric else "no metric"
        problems.append(Problem("base_hyperparams.scheduler_requires_metric", text))
    if problems:
        return None, problems
    optimizer, problems = describe_arguments("optimizer_args", hyperparams.optimizer, hyperparams.optimizer_args)
    scheduler, more = describe_arguments("scheduler_args", hyperparams.scheduler, hyperparams.scheduler_args)
    problems += more
    description = {"optimizer": optimizer, "scheduler": scheduler}
    if problems:
        return description, problems
    try:
        model = sources.model(settings)
    except Exception:
        model = torch.nn.Linear(1, 1, bias=False, device="meta")  # the aspect of the model tells
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they may say things that matter only to a training
        at = "optimizer"
        try:
            built = _try_optimizer(hyperparams, model, sources)
            at = "scheduler"
            _try_scheduler(settings, built, sources)
        except Exception as error:
            arguments = getattr(hyperparams, f"{at}_args")
            problems.append(refused(f"{at}_args", getattr(hyperparams, at), arguments, error))
    return description, problems


def _try_optimizer(hyperparams: Hyperparams, model: torch.nn.Module, sources: Sources) -> torch.optim.Optimizer:
    """Builds the optimizer, and takes a step with the first of its class for a model."""

    def build(model: torch.nn.Module) -> torch.optim.Optimizer:
        optimizer = parts.build_optimizer(hyperparams, model)
        if key not in sources.tried:
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)
            with suppress(AssertionError):  # so they say that a setting is for a GPU
                optimizer.step(lambda: 0.0)  # LBFGS asks for the loss
        return optimizer

    key = (hyperparams.optimizer, model)
    try:
        built = build(model)
    except Exception:
        # As with models: if it fails with real numbers too, that error counts.
        built = build(copy.deepcopy(model).to_empty(device="cpu"))
    sources.tried.add(key)
    return built


def _try_scheduler(settings: Settings, optimizer: torch.optim.Optimizer, sources: Sources) -> None:
    """Builds the scheduler, and lets the first of its kind go through all epochs."""
    hyperparams, num_epochs = settings.hyperparams, settings.solver.num_epochs
    scheduler = parts.build_scheduler(hyperparams, optimizer)
    key = (hyperparams.scheduler, canonical_json(describe(hyperparams.scheduler_args)), num_epochs)
    n_steps = 1 if hyperparams.scheduler in _ENDLESS or key in sources.tried else min(num_epochs, _MAX_STEPS)
    metric = [1.0] if hyperparams.scheduler_requires_metric else []
    for _ in range(n_steps):
        # Some look at their arguments only when they use them.
        scheduler.step(*metric)  # type: ignore[arg-type] # an epoch for the base class
    sources.tried.add(key)


_MAX_STEPS = 10_000

_ENDLESS = (
    *(lr_scheduler.StepLR, lr_scheduler.MultiStepLR, lr_scheduler.ExponentialLR, lr_scheduler.ConstantLR),
    *(lr_scheduler.LinearLR, lr_scheduler.PolynomialLR, lr_scheduler.CosineAnnealingLR, lr_scheduler.CyclicLR),
    *(lr_scheduler.CosineAnnealingWarmRestarts, lr_scheduler.ReduceLROnPlateau),
)
"""Schedulers that go on after any number of epochs."""


def _examine_loss(settings: Settings, sources: Sources) -> tuple[Description, list[Problem]]:
    try:
        return describe(parts.build_loss(settings.hyperparams)), []
    except (TypeError, ValueError) as error:
        return None, [Problem("base_hyperparams.loss_function", str(error))]


def _examine_spaces(settings: Settings, sources: Sources) -> tuple[Description, list[Problem]]:
    normalizer, hyperparams = settings.experiment.normalizer, settings.hyperparams
    problems = []
    if normalizer is None:
        problems = [
            Problem(f"base_hyperparams.{key}", "must be 'default' without a normalizer: there is one space, in mm")
            for key in ("loss_space", "eval_space")
            if getattr(hyperparams, key) != "default"
        ]
    else:
        # Where the set cannot be read, the data aspect tells.
        with suppress(UserError):
            skeleton = sources.read_set(set_keys(settings)["train"]).skeleton
            try:
                normalizer(skeleton)
            except Exception as error:
                problems = [Problem("experiment_config.normalizer", str(error))]
    try:
        described = None
        if normalizer is not None:
            described = describe_call(getattr(normalizer, "func", normalizer), partial_arguments(normalizer))
    except UndescribableError as error:
        return None, [*problems, Problem("experiment_config.normalizer", str(error))]
    spaces = {"loss_space": hyperparams.loss_space, "eval_space": hyperparams.eval_space}
    return {"normalizer": described, **spaces}, problems


def _examine_inputs(settings: Settings, sources: Sources) -> tuple[Description, list[Problem]]:
    hyperparams = settings.hyperparams
    arguments = hyperparams.distorter_args or {}
    tables: dict[str, str] = {}
    problems = check_arguments("distorter_args", hyperparams.distorter, arguments, n_passed=0)
    if not problems:
        tables, problems = _try_distorter(settings, sources)
    description: dict[str, Description] = {}
    if not problems:
        description["distorter"], problems = describe_arguments("distorter_args", hyperparams.distorter, arguments)
    if tables:
        description["tables"] = tables
    try:
        description["augmenters"] = describe(list(hyperparams.augmenters))
    except UndescribableError as error:
        problems.append(Problem("base_hyperparams.augmenters", str(error)))
    return description, problems


def _try_distorter(settings: Settings, sources: Sources) -> tuple[dict[str, str], list[Problem]]:
    """Holds the distorter against the training set; returns the fingerprints of its tables, and what is wrong."""
    hyperparams = settings.hyperparams
    tables: dict[str, Table] = {}
    problems = []
    try:
        distorter = parts.build_distorter(hyperparams)
        if not settings.experiment.use_preset and not distorter.makes_input:
            text = (
                f"{hyperparams.distorter.__name__} does not make an input, and with use_preset False the input is the "
                "label; take another distorter, or set experiment_config.use_preset to True"
            )
            problems.append(Problem("base_hyperparams.distorter", text))
        tables = {file: sources.read_table(file) for file in distorter.tables}
        with suppress(DatasetError):  # the data aspect tells
            train_set = sources.read_set(set_keys(settings)["train"])
            distorter.check(train_set.skeleton, tables, train_set.labels)
    except TableError as error:
        problems.append(Problem("base_hyperparams.distorter_args", str(error)))
    except Exception as error:
        problems.append(refused("distorter_args", hyperparams.distorter, hyperparams.distorter_args or {}, error))
    return {file: table.fingerprint for file, table in tables.items()}, problems


def _examine_schedule(settings: Settings, sources: Sources) -> tuple[Description, list[Problem]]:
    solver = settings.solver
    description = {
        "num_epochs": solver.num_epochs,
        "batch_size": solver.batch_size,
        "matmul_precision": solver.matmul_precision,
        "deterministic_mode": settings.experiment.deterministic_mode,
        "seed": settings.experiment.seed,
        "cpus_per_trial": settings.experiment.cpus_per_trial,
        "numerics": NUMERICS,
    }
    return description, []


_TRAIN_SET_KEYS = (
    "experiment_config.train_set",
    "experiment_config.train_set_size",
    "experiment_config.use_preset",
)
_MODEL_KEYS = ("model", "model_args", *_TRAIN_SET_KEYS)
_DATA_KEYS = (
    *_TRAIN_SET_KEYS,
    *("experiment_config.val_set", "experiment_config.val_set_size"),
    *("experiment_config.test_set", "experiment_config.test_set_size"),
)

ASPECTS = (
    Aspect("data", _DATA_KEYS, _examine_data),
    Aspect(
        "model",
        (*_MODEL_KEYS, "experiment_config.init_weights_path", "solver_config.batch_size"),
        _examine_model,
    ),
    Aspect(
        "optimisation",
        (
            *("optimizer", "optimizer_args", "scheduler", "scheduler_args", "scheduler_requires_metric"),
            *("solver_config.num_epochs", *_MODEL_KEYS),
        ),
        _examine_optimisation,
    ),
    Aspect("loss", ("loss_function",), _examine_loss),
    Aspect("spaces", ("experiment_config.normalizer", "loss_space", "eval_space", *_TRAIN_SET_KEYS), _examine_spaces),
    Aspect("inputs", ("distorter", "distorter_args", "augmenters", *_TRAIN_SET_KEYS), _examine_inputs),
    Aspect(
        "schedule",
        ("solver_config.num_epochs", "solver_config.batch_size", "solver_config.matmul_precision"),
        _examine_schedule,
    ),
)


def examine_beside(settings: Settings, sources: Sources, problems: Sequence[Problem]) -> list[Problem]:
    """Returns what is wrong with aspects of settings that have problems already: those that read no wrong key.

    So a user sees all problems at once and not one kind after the other.
    """
    wrong = {problem.path.removeprefix("base_hyperparams.") for problem in problems}
    wrong -= {f"solver_config.{key}" for key in STAND_INS}
    found: dict[Problem, None] = {}
    for aspect in ASPECTS:
        if wrong.isdisjoint(aspect.keys):
            # A wrong key elsewhere may be in the way of this aspect after all; then it has nothing to say.
            with suppress(Exception):
                found |= dict.fromkeys(aspect.examine(settings, sources)[1])
    told = {problem.path for problem in problems}
    return [problem for problem in found if problem.path not in told]

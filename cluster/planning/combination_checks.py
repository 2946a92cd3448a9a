"""The groups of settings that are checked together and encoded for the identity of a combination.

A group reads a few keys. Its encoding contains everything in them that can change a number: constructor arguments after
defaults, and the content of data and weights instead of their names. The encodings of all groups form the combination's
identity. The device, the number of processes, what is logged and where results are stored are in none of them. The
number of CPU cores of a trial is: sums over another number of threads differ in the last bits.
"""

import copy
import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from torch.optim import lr_scheduler

from cluster.planning import builders
from cluster.planning.arguments import check_arguments, encode_arguments, refused
from cluster.planning.config import PLACEHOLDERS, Hyperparams, Problem, Settings, takes_metric, wrong_paths
from cluster.planning.identity import (
    Encoded,
    NotEncodableError,
    encode,
    encode_call,
    partial_arguments,
)
from cluster.planning.inputs import Inputs, set_keys
from data_pipeline.batch import fuses, window_of
from data_pipeline.pose_dataset import DatasetError, PoseDataset, SizeError
from data_pipeline.skeleton import BUILT_IN, Skeleton
from data_pipeline.tables import Table, TableError
from data_pipeline.user_error import UserError, did_you_mean, first_line
from posenet.models import ClosedFormCorrector, Corrector, FusingCorrector

NUMERICS = 7
"""Incremented when a change of this project's code changes numbers: trials before and after are never in one table."""


@dataclass(frozen=True)
class SettingsGroup:
    """Settings that are checked and encoded together.

    Attributes:
        name: Its key in an encoded combination.
        keys: The dotted paths of the settings that it reads.
        encode: Checks the settings. Returns them encoded, and their problems; with problems the encoding is
            meaningless.
    """

    name: str
    keys: tuple[str, ...]
    encode: Callable[[Settings, Inputs], tuple[Encoded, list[Problem]]]

    def problems(self, settings: Settings, inputs: Inputs) -> list[Problem]:
        """Returns only the problems."""
        return self.encode(settings, inputs)[1]


def _encode_data(settings: Settings, inputs: Inputs) -> tuple[Encoded, list[Problem]]:
    encoded: dict[str, Encoded] = {}
    skeletons: list[Skeleton] = []
    problems = []
    for split, key in set_keys(settings).items():
        unreadable = _check_set(split, settings, inputs)
        problems += unreadable
        if unreadable:
            continue
        dataset = inputs.read_set(key)
        # A batch's subset is drawn by its place in the file, which is not part of the fingerprint.
        subsets = list(dataset.poses)
        encoded[split] = {"fingerprint": dataset.fingerprint, "samples": len(dataset), "subsets": subsets}
        skeletons.append(dataset.skeleton)
        if dataset.skeleton != skeletons[0]:
            text = f"{key.name} has the {_named(dataset.skeleton)}, the sets before it have the {_named(skeletons[0])}"
            problems.append(Problem(f"experiment_config.{split}_set", text))
    if skeletons:
        encoded["skeleton"] = _encode_skeleton(skeletons[0])
    if not problems:
        inputs.measure_separations(set_keys(settings))  # for the plan and for captions; no number depends on it
    problems += _check_examples(settings, inputs)
    if settings.experiment.test_set is None and settings.experiment.test_set_size is not None:
        problems.append(Problem("experiment_config.test_set_size", "is given, but there is no test_set"))
    return encoded, problems


def _paths_of_set(split: str) -> tuple[str, str]:
    return f"experiment_config.{split}_set", f"experiment_config.{split}_set_size"


def _check_set(split: str, settings: Settings, inputs: Inputs) -> list[Problem]:
    """Returns a problem if a set cannot be read."""
    key = set_keys(settings).get(split)
    set_path, size_path = _paths_of_set(split)
    try:
        if key is not None:
            inputs.read_set(key)
    except UserError as error:
        return [Problem(size_path if isinstance(error, SizeError) else set_path, str(error))]
    return []


def _encode_skeleton(skeleton: Skeleton) -> Encoded:
    encoded = encode(skeleton)
    if skeleton.palm is None or skeleton in BUILT_IN:
        # Older results have no palm in their identity. Only one that the user gave says more than the joints do.
        del encoded["args"]["palm"]
    return encoded


def _named(skeleton: Skeleton) -> str:
    return f"{skeleton.name} skeleton of {skeleton.n_joints} joints"


def _check_examples(settings: Settings, inputs: Inputs) -> list[Problem]:
    try:
        val_set = inputs.read_set(set_keys(settings)["val"])
    except UserError:
        return []  # reported as a problem of the set
    problems = []
    subset = settings.solver.val_example_subset
    if settings.solver.val_example_indices and subset not in val_set.poses:
        hint = did_you_mean(subset, list(val_set.poses))
        problems.append(Problem("solver_config.val_example_subset", f"{val_set.name} has no subset {subset!r}{hint}"))
    too_large = [index for index in settings.solver.val_example_indices if index >= len(val_set)]
    if too_large:
        text = f"{val_set.name} has {len(val_set)} samples, numbered from 0; there is no sample {too_large[0]}"
        problems.append(Problem("solver_config.val_example_indices", text))
    return problems


def _encode_model(settings: Settings, inputs: Inputs) -> tuple[Encoded, list[Problem]]:
    hyperparams = settings.hyperparams
    encoded, problems = _encode_call("model", settings)
    if hyperparams.choose_strength:
        encoded["choose_strength"] = True  # older results do not have this key
        if not issubclass(hyperparams.model, Corrector):
            text = f"must be False for {hyperparams.model.__name__}, which is not a Corrector of posenet.models"
            problems.append(Problem("base_hyperparams.choose_strength", text))
    weights: Mapping[str, torch.Tensor] | None = None
    path = settings.experiment.init_weights_path
    if path is not None and issubclass(hyperparams.model, ClosedFormCorrector):
        problems.append(_unused_in_closed_form("experiment_config.init_weights_path", None, hyperparams.model))
    elif path is not None:
        try:
            content = inputs.read_weights(str(path))
            encoded["init_weights"] = hashlib.sha256(content).hexdigest()
            weights = builders.read_weights(content)
        except OSError as error:
            problems.append(Problem("experiment_config.init_weights_path", f"{path}: {error.strerror or error}"))
        except Exception as error:
            # torch.load raises various errors for a file that it cannot read.
            reason = first_line(error)
            text = f"{path} is not a file that torch.load(..., weights_only=True) reads: {reason}"
            problems.append(Problem("experiment_config.init_weights_path", text))
    try:
        train_set = inputs.read_set(set_keys(settings)["train"])
    except UserError:
        return encoded, problems  # the data group reports it
    if problems:
        return encoded, problems
    try:
        model = inputs.model(settings)
    except Exception as error:
        return encoded, [refused("model_args", hyperparams.model, hyperparams.model_args, error)]
    if isinstance(model, FusingCorrector):
        problems += _check_subsets(model, settings, inputs)
    if weights is not None:
        try:
            copy.deepcopy(model).load_state_dict(builders.initial_weights(weights, model), assign=True)
        except Exception as error:
            text = f"the weights of {path} do not fit the model {hyperparams.model.__name__}: {error}"
            problems.append(Problem("experiment_config.init_weights_path", text))
    return encoded, problems + _check_last_batch(settings, model, train_set)


def _check_subsets(model: FusingCorrector, settings: Settings, inputs: Inputs) -> list[Problem]:
    """Returns a problem for each set whose subsets a model cannot fuse."""
    name, keys = type(model).__name__, set_keys(settings)
    subsets = list(inputs.read_set(keys["train"]).poses)
    if len(subsets) < 2:
        text = f"{name} fuses the poses of at least 2 subsets, but {keys['train'].name} has only {subsets[0]}"
        if not settings.experiment.use_preset:
            return [Problem("experiment_config.use_preset", f"must be True: {name} fuses the predictions of backbones")]
        return [Problem("experiment_config.train_set", text)]
    problems = []
    if model.n_subsets not in (None, len(subsets)):
        text = f"is {model.n_subsets}, but {keys['train'].name} has {len(subsets)} subsets: {', '.join(subsets)}"
        problems.append(Problem("base_hyperparams.model_args.n_subsets", text))
    for split, key in keys.items():
        with suppress(UserError):  # the data group reports it
            found = list(inputs.read_set(key).poses)
            if found != subsets:
                text = (
                    f"{name} needs the same subsets in the same order in all sets, but {key.name} has "
                    f"{', '.join(found)}, and {keys['train'].name} has {', '.join(subsets)}"
                )
                problems.append(Problem(f"experiment_config.{split}_set", text))
    return problems


def _check_last_batch(settings: Settings, model: torch.nn.Module, train_set: PoseDataset) -> list[Problem]:
    batch_size, n_samples = settings.solver.batch_size, len(train_set)
    if batch_size > 1 and n_samples % batch_size != 1:
        return []
    try:
        with torch.random.fork_rng(devices=[]):
            window = window_of(model)
            subsets = (len(train_set.poses),) if fuses(model) else ()
            frames = (1,) if window is None else (1, *subsets, window.size)
            model(torch.zeros(*frames, train_set.skeleton.n_joints, 3, device="meta"))
    except Exception as error:
        # Other errors on the meta device may not occur in a training.
        if "Expected more than 1 value per channel" in str(error):
            text = (
                f"with batches of {batch_size}, the last batch of the {n_samples} samples of {train_set.name} has 1 "
                f"sample, but {settings.hyperparams.model.__name__} normalises over the batch, which needs at least 2; "
                "change batch_size or train_set_size"
            )
            return [Problem("solver_config.batch_size", text)]
    return []


def _encode_optimisation(settings: Settings, inputs: Inputs) -> tuple[Encoded, list[Problem]]:
    hyperparams = settings.hyperparams
    if issubclass(hyperparams.model, ClosedFormCorrector):
        return {"optimizer": None, "scheduler": None}, _check_closed_form(hyperparams)
    if hyperparams.optimizer is None:
        text = f"is None, but {hyperparams.model.__name__} is trained with gradients; give a class of torch.optim"
        return None, [Problem("base_hyperparams.optimizer", text)]
    optimizer, problems = _encode_call("optimizer", settings)
    scheduler, scheduler_problems = _encode_call("scheduler", settings)
    scheduler_problems += _check_requires_metric(settings)
    encoded = {"optimizer": optimizer, "scheduler": scheduler}
    if problems:
        return encoded, problems + scheduler_problems
    try:
        model = inputs.model(settings)
    except Exception:
        model = torch.nn.Linear(1, 1, bias=False, device="meta")  # the model group reports it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such warnings matter only in a training
        at = "optimizer"
        try:
            built = _try_optimizer(hyperparams, model, inputs)
            at = "scheduler"
            if not scheduler_problems and hyperparams.scheduler is not None:
                _try_scheduler(settings, built, inputs)
        except Exception as error:
            arguments = getattr(hyperparams, f"{at}_args")
            problems.append(refused(f"{at}_args", getattr(hyperparams, at), arguments, error))
    return encoded, problems + scheduler_problems


def _encode_call(key: str, settings: Settings) -> tuple[Encoded, list[Problem]]:
    """Checks and encodes a class, such as the model, with its arguments."""
    hyperparams = settings.hyperparams
    target, arguments = getattr(hyperparams, key), getattr(hyperparams, f"{key}_args") or {}
    if target is None:
        without = [Problem(f"base_hyperparams.{key}_args", f"must be {{}} without {_with_article(key)}")]
        return None, without if arguments else []
    is_passed_something = key in ("optimizer", "scheduler") or (key == "model" and builders.takes_skeleton(target))
    problems = check_arguments(f"{key}_args", target, arguments, n_passed=int(is_passed_something))
    return ({}, problems) if problems else encode_arguments(f"{key}_args", target, arguments)


def _check_call(key: str, settings: Settings, inputs: Inputs) -> list[Problem]:
    return _encode_call(key, settings)[1]


def _with_article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _check_requires_metric(settings: Settings) -> list[Problem]:
    scheduler, given = settings.hyperparams.scheduler, settings.hyperparams.scheduler_requires_metric
    takes = takes_metric(scheduler)
    if takes == given:
        return []
    text = "must be False without a scheduler"
    if scheduler is not None:
        text = f"must be {takes} for {scheduler.__name__}, whose step takes {'a' if takes else 'no'} metric"
    return [Problem("base_hyperparams.scheduler_requires_metric", text)]


def _check_closed_form(hyperparams: Hyperparams) -> list[Problem]:
    unused: dict[str, object] = {
        **{"optimizer": None, "optimizer_args": {}, "scheduler": None, "scheduler_args": {}},
        "scheduler_requires_metric": False,
    }
    return [
        _unused_in_closed_form(f"base_hyperparams.{key}", nothing, hyperparams.model)
        for key, nothing in unused.items()
        if getattr(hyperparams, key) != nothing
    ]


def _unused_in_closed_form(path: str, nothing: object, model: type[torch.nn.Module]) -> Problem:
    return Problem(path, f"must be {nothing}: {model.__name__} is fitted in closed form, without gradients")


def _try_optimizer(hyperparams: Hyperparams, model: torch.nn.Module, inputs: Inputs) -> torch.optim.Optimizer:
    """Builds the optimizer; the first of its class for a model gets all parameters and takes a step."""

    def build(parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
        optimizer = builders.build_optimizer(hyperparams, parameters)
        assert optimizer is not None
        if is_first:
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter)
            with suppress(AssertionError):  # torch's optimizers raise it for settings that need a GPU
                optimizer.step(lambda: 0.0)  # LBFGS asks for the loss
        return optimizer

    assert hyperparams.optimizer is not None
    kind, key = hyperparams.optimizer, (hyperparams.optimizer, model)
    is_first = key not in inputs.tried
    built: torch.optim.Optimizer | None = None
    # If the class has accepted the parameters, what is new is its arguments. To check these, one parameter is enough
    # for an optimizer of torch, which has one group of parameters. Others may make groups, which a scheduler may count.
    n_parameters = 1 if not is_first and builders.is_of_torch(kind) else None
    parameters = list(islice(model.parameters(), n_parameters))
    if not is_first:
        with suppress(Exception):  # it may need real tensors, as models may; if it fails with them too, that counts
            built = build(parameters)
    if built is None:
        # A step on the meta device would import torch.compile, and `to_empty` sympy.
        built = build([torch.nn.Parameter(torch.empty(p.shape, dtype=p.dtype), p.requires_grad) for p in parameters])
    inputs.tried.add(key)
    return built


def _try_scheduler(settings: Settings, optimizer: torch.optim.Optimizer, inputs: Inputs) -> None:
    """Builds the scheduler, which takes its first step; the first of its kind also steps through all epochs."""
    hyperparams, num_epochs = settings.hyperparams, settings.solver.num_epochs
    kind, optimizer_kind = hyperparams.scheduler, hyperparams.optimizer
    assert kind is not None
    assert optimizer_kind is not None
    key = (kind, inputs.arguments_text("scheduler_args", hyperparams), num_epochs, optimizer_kind)
    is_tried = key in inputs.tried
    # Whether a scheduler of torch accepts one of torch's optimizers depends on its class, not on its arguments. Other
    # optimizers may make groups of parameters, see `_try_optimizer`.
    if is_tried and builders.is_of_torch(kind) and builders.is_of_torch(optimizer_kind):
        return
    scheduler = builders.build_scheduler(hyperparams, optimizer)
    assert scheduler is not None
    if is_tried:
        return
    n_steps = 1 if kind in _ENDLESS else min(num_epochs, MAX_STEPS)
    metric = [1.0] if hyperparams.scheduler_requires_metric else []
    for _ in range(n_steps):
        # Some check their arguments only when they use them.
        scheduler.step(*metric)  # type: ignore[arg-type] # an epoch for the base class
    inputs.tried.add(key)


MAX_STEPS = 10_000
"""How many epochs are tried at most; more would take long."""

_ENDLESS = (
    *(lr_scheduler.StepLR, lr_scheduler.MultiStepLR, lr_scheduler.ExponentialLR, lr_scheduler.ConstantLR),
    *(lr_scheduler.LinearLR, lr_scheduler.PolynomialLR, lr_scheduler.CosineAnnealingLR, lr_scheduler.CyclicLR),
    *(lr_scheduler.CosineAnnealingWarmRestarts, lr_scheduler.ReduceLROnPlateau),
)
"""Schedulers that can step any number of times."""


def _check_augmenters(settings: Settings, inputs: Inputs) -> list[Problem]:
    """Returns a problem for an augmenter that cannot change what a model over time, or of several subsets, sees."""
    hyperparams = settings.hyperparams
    unfit = [augmenter for augmenter in hyperparams.augmenters if not augmenter.fits_windows]
    with suppress(Exception):  # the model group reports it
        if unfit and window_of(inputs.model(settings)) is not None:
            model = hyperparams.model.__name__
            text = f"{unfit[0]!r} changes single poses, but {model} sees several of a hand together; leave it out"
            return [Problem("base_hyperparams.augmenters", text)]
    return []


def _encode_loss(settings: Settings, inputs: Inputs) -> tuple[Encoded, list[Problem]]:
    try:
        return encode(builders.build_loss(settings.hyperparams)), []
    except (TypeError, ValueError) as error:
        return None, [Problem("base_hyperparams.loss_function", str(error))]


def _encode_spaces(settings: Settings, inputs: Inputs) -> tuple[Encoded, list[Problem]]:
    normalizer, hyperparams = settings.experiment.normalizer, settings.hyperparams
    problems = []
    if normalizer is None:
        problems = [
            Problem(f"base_hyperparams.{key}", "must be 'default' without a normalizer: there is only one space, in mm")
            for key in ("loss_space", "eval_space")
            if getattr(hyperparams, key) != "default"
        ]
    else:
        # If the set cannot be read, the data group reports it.
        with suppress(UserError):
            skeleton = inputs.read_set(set_keys(settings)["train"]).skeleton
            try:
                normalizer(skeleton)
            except Exception as error:
                problems = [Problem("experiment_config.normalizer", str(error))]
    try:
        encoded = None
        if normalizer is not None:
            encoded = encode_call(getattr(normalizer, "func", normalizer), partial_arguments(normalizer))
    except NotEncodableError as error:
        return None, [*problems, Problem("experiment_config.normalizer", str(error))]
    spaces = {"loss_space": hyperparams.loss_space, "eval_space": hyperparams.eval_space}
    return {"normalizer": encoded, **spaces}, problems


def _encode_inputs(settings: Settings, inputs: Inputs) -> tuple[Encoded, list[Problem]]:
    encoded: dict[str, Encoded] = {}
    encoded["distorter"], problems = _encode_call("distorter", settings)
    if not problems:
        tables, problems = _try_distorter(settings, inputs)
        if tables:
            encoded["tables"] = tables
    encoded["augmenters"], more = _encode_augmenters(settings)
    return encoded, problems + (more or _check_augmenters(settings, inputs))


def _encode_augmenters(settings: Settings) -> tuple[Encoded, list[Problem]]:
    try:
        return encode(list(settings.hyperparams.augmenters)), []
    except NotEncodableError as error:
        return None, [Problem("base_hyperparams.augmenters", str(error))]


def _try_distorter(settings: Settings, inputs: Inputs) -> tuple[dict[str, str], list[Problem]]:
    """Checks the distorter against the training set. Returns the fingerprints of its tables, and its problems."""
    hyperparams = settings.hyperparams
    tables: dict[str, Table] = {}
    problems = []
    try:
        distorter = builders.build_distorter(hyperparams)
        if not settings.experiment.use_preset and not distorter.makes_input:
            text = (
                f"{hyperparams.distorter.__name__} does not make an input, and with use_preset False the input is the "
                "label; use another distorter, or set experiment_config.use_preset to True"
            )
            problems.append(Problem("base_hyperparams.distorter", text))
        tables = {file: inputs.read_table(file) for file in distorter.tables}
        with suppress(DatasetError):  # the data group reports it
            train_set = inputs.read_set(set_keys(settings)["train"])
            distorter.check(train_set.skeleton, tables, train_set.labels)
    except TableError as error:
        problems.append(Problem("base_hyperparams.distorter_args", str(error)))
    except Exception as error:
        problems.append(refused("distorter_args", hyperparams.distorter, hyperparams.distorter_args or {}, error))
    return {file: table.fingerprint for file, table in tables.items()}, problems


def _encode_schedule(settings: Settings, inputs: Inputs) -> tuple[Encoded, list[Problem]]:
    solver = settings.solver
    encoded = {
        "num_epochs": solver.num_epochs,
        "batch_size": solver.batch_size,
        "matmul_precision": solver.matmul_precision,
        "deterministic_mode": settings.experiment.deterministic_mode,
        "seed": settings.experiment.seed,
        "cpus_per_trial": settings.experiment.cpus_per_trial,
        "numerics": NUMERICS,
    }
    return encoded, []


_TRAIN_SET_KEYS = (
    "experiment_config.data_dir",
    "experiment_config.train_set",
    "experiment_config.train_set_size",
    "experiment_config.use_preset",
)
_EXAMPLE_KEYS = ("solver_config.val_example_indices", "solver_config.val_example_subset")
_MODEL_KEYS = ("model", "model_args", "choose_strength", *_TRAIN_SET_KEYS)
_DATA_KEYS = (
    *_TRAIN_SET_KEYS,
    *("experiment_config.val_set", "experiment_config.val_set_size"),
    *("experiment_config.test_set", "experiment_config.test_set_size"),
)

SETTINGS_GROUPS = (
    SettingsGroup("data", (*_DATA_KEYS, *_EXAMPLE_KEYS), _encode_data),
    SettingsGroup(
        "model",
        (*_MODEL_KEYS, *_DATA_KEYS, "experiment_config.init_weights_path", "solver_config.batch_size"),
        _encode_model,
    ),
    SettingsGroup(
        "optimisation",
        (
            *("optimizer", "optimizer_args", "scheduler", "scheduler_args", "scheduler_requires_metric"),
            *("solver_config.num_epochs", *_MODEL_KEYS),
        ),
        _encode_optimisation,
    ),
    SettingsGroup("loss", ("loss_function",), _encode_loss),
    SettingsGroup(
        "spaces", ("experiment_config.normalizer", "loss_space", "eval_space", *_TRAIN_SET_KEYS), _encode_spaces
    ),
    SettingsGroup("inputs", ("distorter", "distorter_args", "augmenters", *_MODEL_KEYS), _encode_inputs),
    SettingsGroup(
        "schedule",
        ("solver_config.num_epochs", "solver_config.batch_size", "solver_config.matmul_precision"),
        _encode_schedule,
    ),
)


_Check = Callable[[Settings, Inputs], list[Problem]]

_CHECKS: tuple[tuple[tuple[str, ...], _Check], ...] = (
    *((group.keys, group.problems) for group in SETTINGS_GROUPS),
    (_TRAIN_SET_KEYS, partial(_check_set, "train")),
    *((("experiment_config.data_dir", *_paths_of_set(split)), partial(_check_set, split)) for split in ("val", "test")),
    (("experiment_config.data_dir", *_paths_of_set("val"), *_EXAMPLE_KEYS), _check_examples),
    *(((key, f"{key}_args"), partial(_check_call, key)) for key in ("model", "optimizer", "scheduler", "distorter")),
    (("scheduler", "scheduler_requires_metric"), lambda settings, inputs: _check_requires_metric(settings)),
    (("augmenters",), lambda settings, inputs: _encode_augmenters(settings)[1]),
)
"""The keys that a check reads, and the check: those of the groups, and parts of these that read fewer keys."""


def check_unaffected(settings: Settings, inputs: Inputs, problems: Sequence[Problem]) -> list[Problem]:
    """Returns what those checks find that read none of the keys that have problems already.

    So one error lists all problems of a config.
    """
    wrong = {path.removeprefix("base_hyperparams.") for path in wrong_paths(problems)}
    wrong -= {f"solver_config.{key}" for key in PLACEHOLDERS}
    found: list[Problem] = []
    for keys, check in _CHECKS:
        if wrong.isdisjoint(keys):
            known = {problem.path for problem in (*problems, *found)}
            # A wrong key elsewhere may make this check fail after all; then it reports nothing.
            with suppress(Exception):
                found += [problem for problem in check(settings, inputs) if problem.path not in known]
    return found

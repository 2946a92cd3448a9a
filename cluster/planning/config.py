"""The three dicts of a run script, checked and typed.

Each dict has a dataclass here, with a field and a rule for each key. A check collects all problems of all three dicts.
`combination_checks.py` checks what depends on several keys together, such as the constructor arguments of a class, for
each combination of options.
"""

import copy
import dataclasses
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.planning.identity import constructor_parameters
from cluster.racing.successive_halving import SuccessiveHalving
from cluster.searching.search import Search
from data_pipeline.augmenters import Augmenter
from data_pipeline.dataset_name import DATASET_NAME
from data_pipeline.distorters import Distorter, NoDistorter
from data_pipeline.files.regular import why_no_path
from data_pipeline.normalizers import Normalizer
from data_pipeline.skeleton import Skeleton
from data_pipeline.subsets import DEFAULT_SUBSET
from data_pipeline.user_error import UserError, did_you_mean
from data_pipeline.words import count, value_text
from posenet.errors import ErrorFunction
from posenet.evaluator import METRICS
from posenet.losses import Loss
from posenet.record import Space
from posenet.solver import EpochReport

SECTIONS = ("experiment_config", "solver_config", "base_hyperparams")

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class Problem:
    """One problem of a config: the path of the key, and a text that says what is wrong and what to do."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


class ConfigError(UserError):
    """The configuration is wrong. Nothing was trained.

    Attributes:
        problems: All problems of it.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        first = f"{count(len(self.problems), 'problem')} in the configuration:"
        super().__init__("\n  ".join([first, *map(str, self.problems)]))


Rule = Callable[[Any], str | None]
"""Takes a value. Returns what is allowed, or None if the value is."""


def _integer(minimum: int) -> Rule:
    def rule(value: Any) -> str | None:
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= minimum
        return None if fits else f"an int of at least {minimum}"

    return rule


def _number(value: Any) -> str | None:
    # NaN fails this comparison.
    fits = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    return None if fits else "a number of at least 0"


_LONGEST_S = 1e9
"""Thirty years, which every timer can count."""


def _seconds(value: Any) -> str | None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _LONGEST_S
    return None if fits else f"a finite number above 0, at most {_LONGEST_S:g}"


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "True or False"


def _one_of(*allowed: str) -> Rule:
    def rule(value: Any) -> str | None:
        return None if isinstance(value, str) and value in allowed else f"one of {', '.join(map(repr, allowed))}"

    return rule


def _or_none(rule: Rule) -> Rule:
    def optional(value: Any) -> str | None:
        allowed = None if value is None else rule(value)
        return None if allowed is None else f"{allowed}, or None"

    return optional


def _file_name(value: Any) -> str | None:
    if isinstance(value, str) and FILE_NAME.fullmatch(value):
        return None
    return "a name of letters, digits, '.', '_' and '-' that begins with a letter or digit, 200 at most"


def _dataset_name(value: Any) -> str | None:
    if isinstance(value, str) and all(DATASET_NAME.fullmatch(part) for part in value.split("/")):
        return None
    return "the name of a dataset below data_dir, without '_labels.pt' or '_poses.pt'"


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "a str"


def _path(value: Any) -> str | None:
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    fits = isinstance(text, str) and text and why_no_path(text) is None
    return None if fits else "a path"


def _class_of(base: type, where: str, *, or_partial: bool = False) -> Rule:
    def rule(value: Any) -> str | None:
        # A partial fixes constructor arguments for which the dicts have no key.
        target = value.func if or_partial and isinstance(value, partial) else value
        fits = isinstance(target, type) and issubclass(target, base) and target is not base
        return None if fits else f"a class {where}, not an instance of one or its name"

    return rule


def _loss(value: Any) -> str | None:
    fits = isinstance(value, Loss) or (isinstance(value, type) and issubclass(value, Loss))
    return (
        None if fits else "a loss of posenet.losses, such as MetricLoss(errors.distance_error, 'squared'), or your own"
    )


def _search(value: Any) -> str | None:
    return None if isinstance(value, Search) else "a Search of cluster.searching.search"


def _arguments(value: Any) -> str | None:
    fits = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    return None if fits else "a dict of the constructor's arguments"


def _list_of(rule: Rule, what: str) -> Rule:
    def each(value: Any) -> str | None:
        fits = isinstance(value, list | tuple) and all(rule(item) is None for item in value)
        return None if fits else f"a list of {what}"

    return each


def _race(value: Any) -> str | None:
    fits = isinstance(value, SuccessiveHalving)
    return None if fits else "a race of cluster.racing.successive_halving, such as SuccessiveHalving()"


def _augmenter(value: Any) -> str | None:
    return None if isinstance(value, Augmenter) else "an instance of an augmenter"


def _functions(value: Any) -> str | None:
    functions = value if isinstance(value, list | tuple) else [None]
    names = [getattr(function, "__name__", "") for function in functions]
    fits = all(callable(function) for function in functions) and all(name.isidentifier() for name in names)
    if not fits or len(set(names)) < len(names):
        return "a list of functions with different names, see the docs"
    try:
        copy.deepcopy(value)  # each trial has its own, and a method its own object
    except Exception as error:
        return f"functions that can be copied, so no methods of an object with a lock or an open file ({error})"
    return None


_METRIC_END = re.compile(r"(_before)?(_mm|_mm_per_frame2)?$")


def _metrics(value: Any) -> str | None:
    wrong = _functions(value)
    # Columns of tables have the unit in their names.
    names = [] if wrong else [metric.__name__ for metric in value]
    if any(name.endswith("_before") or _METRIC_END.sub("", name) in METRICS for name in names):
        return f"functions whose names do not end in _before and are not PoseTune's own: {', '.join(METRICS)}"
    return wrong


def _keys(value: Any) -> str | None:
    fits = isinstance(value, list) and all(isinstance(key, str) for key in value)
    return None if fits else "an empty list; the run fills it"


def _device(value: Any) -> str | None:
    spelling = "'cpu', 'cuda', 'cuda:0', the same as a torch.device, or a list of these as a pool"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{spelling}; write 'cuda:{value}'"
    given = value if isinstance(value, list | tuple) else [value]
    if not given or not all(isinstance(device, str | torch.device) for device in given):
        return spelling
    try:
        devices = [torch.device(device) for device in given]
    except RuntimeError:  # torch has no such device
        return spelling
    # torch calls an AMD GPU 'cuda' and an Intel GPU 'xpu'.
    if any(device.type not in ("cpu", "cuda", "xpu") for device in devices):
        return spelling
    if len({(device.type, device.index) for device in devices}) < len(devices):
        return "a pool without duplicate devices"
    if len({device.type for device in devices}) > 1:
        return "a pool of one kind of device, so that all trials run on the same kind"
    if len(devices) > 1 and any(device.type == "cpu" or device.index is None for device in devices):
        return "a pool of GPUs with their index, such as ['cuda:0', 'cuda:1']"
    return None


def _key(rule: Rule, **default: Any) -> Any:
    return field(metadata={"rule": rule}, **default)


_DERIVED: Any = None
"""The default of a key whose default depends on other keys, see `Settings.with_derived`."""


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """`experiment_config`: the experiment as a whole. `tune_runs/README.md` explains each key."""

    name: str = _key(_file_name)
    train_set: str = _key(_dataset_name)
    val_set: str = _key(_dataset_name)
    train_set_size: int | None = _key(_or_none(_integer(1)), default=None)
    val_set_size: int | None = _key(_or_none(_integer(1)), default=None)
    test_set: str | None = _key(_or_none(_dataset_name), default=None)
    test_set_size: int | None = _key(_or_none(_integer(1)), default=None)
    use_preset: bool = _key(_boolean, default=True)
    normalizer: Callable[[Skeleton], Normalizer] | None = _key(
        _or_none(_class_of(Normalizer, "of data_pipeline.normalizers, such as Shifter", or_partial=True))
    )
    target_device: str | torch.device | Sequence[str | torch.device] = _key(_device, default="cpu")
    n_repetitions: int = _key(_integer(1))
    init_weights_path: str | os.PathLike[str] | None = _key(_or_none(_path), default=None)
    seed: int = _key(_integer(0), default=0)
    deterministic_mode: bool = _key(_boolean, default=True)
    data_dir: str | os.PathLike[str] = _key(_path, default="data")
    storage_path: str | os.PathLike[str] = _key(_path, default="results")
    cpus_per_trial: int = _key(_integer(1), default=1)
    trials_per_device: int = _key(_integer(1), default=1)
    max_retries: int = _key(_integer(0), default=2)
    checkpoint_interval_s: float = _key(_number, default=30.0)
    trial_timeout_s: float | None = _key(_or_none(_seconds), default=None)
    stop_if_all_fail: int | None = _key(_or_none(_integer(1)), default=5)
    keep_weights: str = _key(_one_of("all", "best", "none"), default="all")
    keep_state: str = _key(_one_of("all", "none"), default="none")
    race: SuccessiveHalving | None = _key(_or_none(_race), default=None)
    search: Search | None = _key(_or_none(_search), default=None)

    @property
    def n_confirming(self) -> int:
        """The repetitions in which only the finalists of a race are trained."""
        return 0 if self.race is None else self.race.confirm

    @property
    def data_folder(self) -> Path:
        """The folder with the datasets."""
        return local_path(self.data_dir)

    @property
    def devices(self) -> list[torch.device]:
        """The target devices, one or a pool."""
        given = self.target_device
        return [torch.device(device) for device in ([given] if isinstance(given, str | torch.device) else given)]


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """`solver_config`: how a model is trained. `tune_runs/README.md` explains each key."""

    num_epochs: int = _key(_integer(1))
    batch_size: int = _key(_integer(1))
    log_frequency: int = _key(_integer(1), default=1)
    log_loss: bool = _key(_boolean, default=False)
    log_grad: bool = _key(_boolean, default=False)
    verbose: bool = _key(_boolean, default=False)
    show_plots: bool = _key(_boolean, default=False)
    matmul_precision: str = _key(_one_of("highest", "high", "medium"), default="highest")
    interest_keys: list[str] = _key(_keys, default_factory=list)
    val_example_indices: Sequence[int] = _key(_list_of(_integer(0), "ints, the indices of samples"), default=())
    val_example_subset: str = _key(_text, default=DEFAULT_SUBSET)
    metrics: Sequence[ErrorFunction] = _key(_metrics, default=())
    callbacks: Sequence[Callable[[str, EpochReport, torch.nn.Module], object]] = _key(_functions, default=())


@dataclass(frozen=True, kw_only=True)
class Hyperparams:
    """`base_hyperparams`: model and optimisation. `tune_runs/README.md` explains each key."""

    model: type[torch.nn.Module] = _key(_class_of(torch.nn.Module, "of posenet.models, such as CorrectorMLP"))
    model_args: Mapping[str, Any] = _key(_arguments, default_factory=dict)
    choose_strength: bool = _key(_boolean, default=False)
    loss_function: Loss | type[Loss] = _key(_loss)
    loss_space: Space = _key(_one_of("default", "original"), default="default")
    eval_space: Space = _key(_one_of("default", "original"), default=_DERIVED)
    optimizer: type[torch.optim.Optimizer] | None = _key(
        _or_none(_class_of(torch.optim.Optimizer, "of torch.optim, such as torch.optim.Adam"))
    )
    optimizer_args: Mapping[str, Any] = _key(_arguments, default_factory=dict)
    scheduler: type[torch.optim.lr_scheduler.LRScheduler] | None = _key(
        _or_none(_class_of(torch.optim.lr_scheduler.LRScheduler, "of torch.optim.lr_scheduler, such as StepLR")),
        default=None,
    )
    scheduler_args: Mapping[str, Any] = _key(_arguments, default_factory=dict)
    scheduler_requires_metric: bool = _key(_boolean, default=_DERIVED)
    distorter: type[Distorter] = _key(
        _class_of(Distorter, "of data_pipeline.distorters, such as NoDistorter"), default=NoDistorter
    )
    distorter_args: Mapping[str, Any] | None = _key(_or_none(_arguments), default_factory=dict)
    augmenters: Sequence[Augmenter] = _key(_list_of(_augmenter, "instances of data_pipeline.augmenters"), default=())


@dataclass(frozen=True)
class Settings:
    """The three configs of one combination of options."""

    experiment: ExperimentConfig
    solver: SolverConfig
    hyperparams: Hyperparams

    @classmethod
    def of(cls, dicts: Mapping[str, Mapping[str, Any]]) -> "Settings":
        """Takes three checked dicts, keyed by `SECTIONS`."""
        return cls(*(_CLASSES[section](**dicts[section]) for section in SECTIONS))

    @property
    def sections(self) -> dict[str, ExperimentConfig | SolverConfig | Hyperparams]:
        """The configs, keyed by `SECTIONS`."""
        return dict(zip(SECTIONS, (self.experiment, self.solver, self.hyperparams), strict=True))

    def with_derived(self) -> "Settings":
        """Returns the settings with the defaults that depend on other keys, which options may vary."""
        hyperparams, derived = self.hyperparams, dict[str, Any]()
        if hyperparams.eval_space is _DERIVED:
            derived["eval_space"] = "default" if self.experiment.normalizer is None else "original"
        if hyperparams.scheduler_requires_metric is _DERIVED:
            derived["scheduler_requires_metric"] = takes_metric(hyperparams.scheduler)
        return dataclasses.replace(self, hyperparams=dataclasses.replace(hyperparams, **derived)) if derived else self


def takes_metric(scheduler: type[torch.optim.lr_scheduler.LRScheduler] | None) -> bool:
    """Returns whether a scheduler's `step` takes a metric, as that of `ReduceLROnPlateau`."""
    return scheduler is not None and "metrics" in constructor_parameters(scheduler.step)


_CLASSES = dict(zip(SECTIONS, (ExperimentConfig, SolverConfig, Hyperparams), strict=True))


PLACEHOLDERS = {"num_epochs": 1, "batch_size": sys.maxsize}
"""Values in place of wrong ones, with which all other settings can still be checked."""


def valid_settings(dicts: Mapping[str, Any], problems: Sequence[Problem]) -> Settings:
    """Returns the settings of three dicts that have problems: wrong and missing keys are placeholders or None."""
    wrong = wrong_paths(problems)
    valid: dict[str, dict[str, Any]] = {}
    for section, config in _CLASSES.items():
        valid[section] = {f.name: _default(f) for f in dataclasses.fields(config)}
        given = dicts[section] if isinstance(dicts[section], Mapping) else {}
        valid[section] |= {key: value for key, value in given.items() if key in valid[section]}
        valid[section] |= {key: PLACEHOLDERS.get(key) for key in valid[section] if f"{section}.{key}" in wrong}
    valid["experiment_config"]["data_dir"] = valid["experiment_config"]["data_dir"] or "data"
    return Settings.of(valid).with_derived()


def wrong_paths(problems: Sequence[Problem]) -> set[str]:
    """Returns the paths of the keys that have problems; those of all keys of something that should be a dict."""
    paths = {problem.path for problem in problems}
    for section in paths & _CLASSES.keys():
        paths |= {f"{section}.{f.name}" for f in dataclasses.fields(_CLASSES[section])}
    return paths


def _default(config_field: dataclasses.Field[Any]) -> Any:
    """Returns the default of a key; MISSING if it has none."""
    factory = config_field.default_factory
    return config_field.default if factory is dataclasses.MISSING else factory()


def local_path(path: str | os.PathLike[str]) -> Path:
    """Returns a path on this machine. `~` is the home folder."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser fails for a user without a home


def without_numpy(value: Any) -> Any:
    """Returns a copy of a setting with Python numbers instead of numpy numbers; dicts, lists and tuples are new.

    The settings of a race or a search are replaced too.

    A checkpoint with a numpy number in the optimizer's state does not load with `weights_only=True`. A setting that
    contains itself, or is nested too deeply, is returned as it is: `encode` refuses it.
    """
    try:
        return _without_numpy(value)
    except RecursionError:
        return value


def _without_numpy(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _without_numpy(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_without_numpy(item) for item in value)
    if isinstance(value, SuccessiveHalving | Search):
        return replace(value, **{name: _without_numpy(item) for name, item in vars(value).items()})
    return value


def check_dicts(dicts: Mapping[str, Any]) -> list[Problem]:
    """Returns the problems of three dicts, keyed by `SECTIONS`; checks each key, type and value separately."""
    return [problem for section in SECTIONS for problem in _check_dict(section, dicts[section])]


def check_value(section: str, key: str, value: Any) -> str | None:
    """Returns what is allowed for a key; None if `value` is."""
    rules: dict[str, Rule] = {f.name: f.metadata["rule"] for f in dataclasses.fields(_CLASSES[section])}
    return rules[key](value)


def _check_dict(section: str, given: Any) -> list[Problem]:
    if not isinstance(given, Mapping):
        return [Problem(section, f"got {value_text(given)}; allowed: a dict")]
    fields = {f.name: f for f in dataclasses.fields(_CLASSES[section])}
    problems = []
    for key, value in given.items():
        if key not in fields:
            problems.append(Problem(f"{section}.{key}", f"there is no such key{did_you_mean(key, list(fields))}"))
            continue
        allowed = fields[key].metadata["rule"](value)
        if allowed is not None:
            problems.append(Problem(f"{section}.{key}", f"got {value_text(value)}; allowed: {allowed}"))
        elif isinstance(value, SuccessiveHalving | Search):
            problems += [
                Problem(f"{section}.{key}.{name}", f"got {value_text(getattr(value, name))}; allowed: {allowed}")
                for name, allowed in value.wrong.items()
            ]
    for key, config_field in fields.items():
        if key not in given and _default(config_field) is dataclasses.MISSING:
            problems.append(Problem(f"{section}.{key}", "is missing; see tune_runs/README.md for what it means"))
    return problems

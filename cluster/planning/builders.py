"""Builds the objects of a trial from a combination's settings."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from inspect import Parameter as ConstructorParameter
from inspect import signature, unwrap
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from cluster.planning.config import Hyperparams
from cluster.planning.identity import constructor_parameters
from data_pipeline.distorters import Distorter
from data_pipeline.files.tensors import require_uncompressed
from data_pipeline.skeleton import Skeleton
from posenet.losses import Loss
from posenet.models import Corrector
from posenet.models.corrector import STRENGTH

_FUSED_DEVICES = ("cpu", "cuda")
"""The devices for which all of torch's fused optimizers are implemented; some also work on others."""


def build_model(hyperparams: Hyperparams, skeleton: Skeleton) -> torch.nn.Module:
    """Returns a new model for poses with `skeleton`; torch's global generator initialises it."""
    model = new_model(hyperparams.model, skeleton, hyperparams.model_args)
    if isinstance(model, Corrector) and hyperparams.choose_strength:
        model.add_strength()
    return model


def new_model(kind: type[torch.nn.Module], skeleton: Skeleton, arguments: Mapping[str, Any]) -> torch.nn.Module:
    """Returns a new model of a class; its constructor gets the skeleton if it takes one."""
    return kind(skeleton, **arguments) if takes_skeleton(kind) else kind(**arguments)


def takes_skeleton(kind: type[torch.nn.Module]) -> bool:
    """Returns whether a model's constructor takes the skeleton: as its first parameter, named `skeleton`."""
    if kind.__init__ is torch.nn.Module.__init__:
        return False  # it takes no arguments, although the signature has *args
    first = next(iter(signature(kind).parameters.values()), None)
    return first is not None and (first.name == "skeleton" or first.kind is ConstructorParameter.VAR_POSITIONAL)


def is_of_torch(kind: Callable[..., Any]) -> bool:
    """Returns whether an optimizer or scheduler is one of torch's."""
    return f"{kind.__module__}.".startswith("torch.optim.")


def build_optimizer(hyperparams: Hyperparams, parameters: Iterable[Parameter]) -> torch.optim.Optimizer | None:
    """Returns a new optimizer over a model's parameters; None for a model that is fitted in closed form.

    Torch's own optimizers use their fused implementation if they have one for the parameters and arguments. An argument
    `fused` or `foreach` takes precedence. They do the same as torch's, but do not import torch.compile at their first
    use, which takes as long as the import of torch.
    """
    kind: Any = hyperparams.optimizer
    if kind is None:
        return None
    given, trained = hyperparams.optimizer_args, list(parameters)
    fused = {"fused": True} if _has_fused(kind, given, trained) else {}
    return (_uncompiled(kind) if is_of_torch(kind) else kind)(trained, **{**given, **fused})


def _has_fused(kind: Callable[..., Any], given: Mapping[str, Any], parameters: Sequence[Parameter]) -> bool:
    """Returns whether an optimizer of torch has a fused implementation for these arguments and parameters."""
    return (
        is_of_torch(kind)
        and "fused" in constructor_parameters(kind)
        and given.get("fused") is None
        and given.get("foreach") is None
        and not given.get("differentiable")
        and not given.get("dampening")  # `_with_late_momentum` is exact only without
        and all(parameter.device.type in _FUSED_DEVICES and parameter.is_floating_point() for parameter in parameters)
    )


@lru_cache
def _uncompiled(kind: Any) -> type[torch.optim.Optimizer]:
    """Returns a subclass of an optimizer of torch without the decorators that import torch.compile.

    Its steps call no hooks and are not named in torch's profiler: both would take 4 % of an epoch of a small MLP.
    """
    plain_step = unwrap(kind.step)

    def step(self: torch.optim.Optimizer, closure: Callable[[], float] | None = None) -> Any:
        with torch.set_grad_enabled(self.defaults.get("differentiable", False)):  # as the decorators do
            return plain_step(self, closure)

    def zero_grad(self: torch.optim.Optimizer) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    step.hooked = True  # type: ignore[attr-defined] # otherwise torch wraps it
    names = ("add_param_group", "state_dict", "load_state_dict")
    plain = {name: unwrap(getattr(kind, name)) for name in names} | {"step": step, "zero_grad": zero_grad}
    if kind is torch.optim.SGD:
        plain["_init_group"] = _with_late_momentum
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, **plain})


def _with_late_momentum(
    self: torch.optim.SGD, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor], momenta: list[Any]
) -> Any:
    """Collects what a step of SGD takes, as torch does, and lets momenta begin after the first step.

    A parameter may get its first gradient later than others, as with layers that are left out at random. There, torch's
    other implementations of SGD begin with the gradient, and the fused one fails. With zero, it does the same.
    """
    init_group: Callable[..., Any] = torch.optim.SGD._init_group  # torch declares no types for it
    is_sparse = init_group(self, group, parameters, gradients, momenta)
    if group["fused"] and not group["dampening"] and any(momentum is not None for momentum in momenta):
        pairs = zip(parameters, momenta, strict=True)
        momenta[:] = [torch.zeros_like(of) if momentum is None else momentum for of, momentum in pairs]
    return is_sparse


def build_scheduler(
    hyperparams: Hyperparams, optimizer: torch.optim.Optimizer | None
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """Returns a new learning-rate scheduler for the optimizer; None if there is none."""
    if hyperparams.scheduler is None or optimizer is None:
        return None
    return hyperparams.scheduler(optimizer, **hyperparams.scheduler_args)


def build_loss(hyperparams: Hyperparams) -> Loss:
    """Returns the loss; a class means an instance with its defaults."""
    loss = hyperparams.loss_function
    return loss() if isinstance(loss, type) else loss


def build_distorter(hyperparams: Hyperparams) -> Distorter:
    """Returns the distorter."""
    return hyperparams.distorter(**(hyperparams.distorter_args or {}))


def read_weights(data: bytes) -> Mapping[str, Tensor]:
    """Reads the weights of a model from the content of a `weights.pt`; ValueError if it is compressed."""
    require_uncompressed(data)
    weights: Mapping[str, Tensor] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    return weights


def initial_weights(weights: Mapping[str, Tensor], model: torch.nn.Module) -> Mapping[str, Tensor]:
    """Returns the weights of a trained model for another one to start from: all but the strength."""
    if not isinstance(model, Corrector):
        return weights
    strength = {} if model.chosen_strength is None else {STRENGTH: model.chosen_strength}
    return {name: tensor for name, tensor in weights.items() if name != STRENGTH} | strength

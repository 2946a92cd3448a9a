"""Settings that no experiment needs, but that a script may hold by mistake: each is an error that names the key."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from cluster.planning.config import ConfigError
from cluster.planning.identity import NotEncodableError, encode
from data_pipeline.augmenters import RandomRotator
from tests.cluster_tests.small_experiment import LR

FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Unprintable(RandomRotator):
    """An augmenter without a usable `repr`."""

    def __repr__(self) -> str:
        raise RuntimeError("not printable")


class Chain:
    """Holds another object of its kind."""

    def __init__(self, next_one: object) -> None:
        self.next_one = next_one


def nested(levels, wrap):
    value = 1
    for _ in range(levels):
        value = wrap(value)
    return value


def cycle(begin, insert):
    insert(begin)
    return begin


DEEP = {
    "a list in itself": lambda: cycle([1], lambda value: value.append(value)),
    "a dict in itself": lambda: cycle({}, lambda value: value.update(a=value)),
    "an object in itself": lambda: cycle(Chain(None), lambda value: setattr(value, "next_one", value)),
    "2,000 lists": lambda: nested(2000, lambda value: [value]),
    "2,000 tuples": lambda: nested(2000, lambda value: (value,)),
    "2,000 dicts": lambda: nested(2000, lambda value: {"a": value}),
    "2,000 objects": lambda: nested(2000, Chain),
    "200 lists": lambda: nested(200, lambda value: [value]),
}


def problems(make):
    with pytest.raises(ConfigError) as caught:
        make()
    return {problem.path: problem.text for problem in caught.value.problems}


class TestAValueWithoutAnEnd:
    @pytest.mark.parametrize("make", DEEP.values(), ids=DEEP)
    def test_is_refused_as_an_option(self, small_experiment, make):
        found = problems(lambda: small_experiment.experiment({}, {"model_args.hidden_dims": [[8], make()]}))
        assert "it contains itself, or is nested more than 100 levels deep" in found["model_args.hidden_dims"]

    @pytest.mark.parametrize("make", DEEP.values(), ids=DEEP)
    def test_is_refused_in_the_base(self, small_experiment, make):
        value = make()
        found = problems(lambda: small_experiment.experiment({"base_hyperparams.model_args.activation": value}).plan())
        (text,) = found.values()
        assert "it contains itself, or is nested" in text or "cannot be shown" in text or "allowed" in text

    @pytest.mark.parametrize("make", DEEP.values(), ids=DEEP)
    def test_is_refused_where_another_type_belongs(self, small_experiment, make):
        value = make()
        for path in ("experiment_config.name", "solver_config.val_example_indices", "base_hyperparams.loss_function"):
            assert path in problems(lambda path=path: small_experiment.experiment({path: value}))
        problems(lambda: small_experiment.experiment().add_options("loss_space", value))
        problems(lambda: small_experiment.experiment().add_joint_options([LR], value))


class TestAValueWithoutARepr:
    def test_is_shown_by_its_type_where_it_is_refused(self, small_experiment):
        says = "got a value of type Unprintable that cannot be shown; allowed: "
        value = Unprintable()
        assert (
            says
            in problems(lambda: small_experiment.experiment({"experiment_config.seed": value}))[
                "experiment_config.seed"
            ]
        )
        assert says in problems(lambda: small_experiment.experiment({}, {"loss_space": [value]}))["loss_space"]
        huge = 10**5000  # Python refuses to write it
        assert (
            "of type int"
            in problems(lambda: small_experiment.experiment({"experiment_config.name": huge}))["experiment_config.name"]
        )

    def test_trains_where_it_belongs(self, small_experiment):
        table = small_experiment.run({}, {"augmenters": [[], [Unprintable()]]})
        assert [row["status"] for row in table.trials] == ["finished"] * 2


class TestANumberThatTorchCannotHold:
    @pytest.mark.parametrize("lr", [10**300, 1e300, -(10**300), 10**5000, 2**63, np.float64(1e39)], ids=type)
    def test_is_refused_before_anything_is_trained(self, small_experiment, lr):
        says = "is too large: torch can hold at most"
        assert says in problems(lambda: small_experiment.experiment({}, {LR: [1e-3, lr]}))[LR]
        in_base = problems(lambda: small_experiment.experiment({f"base_hyperparams.{LR}": lr}).plan())
        assert says in in_base[f"base_hyperparams.{LR}"]

    @pytest.mark.parametrize("number", [FLOAT32_MAX, -FLOAT32_MAX, 2**63 - 1, 5e-324, 0.1])
    def test_is_none_of_the_others(self, number):
        assert encode(number) == number

    def test_is_not_infinity(self):
        assert encode(math.inf) == {"float": "inf"}
        with pytest.raises(NotEncodableError, match="NaN is not a setting"):
            encode(math.nan)

    def test_is_a_time_that_no_timer_can_count(self, small_experiment):
        for seconds in (1e300, 10**300, math.inf, 2e9):
            problems(
                lambda seconds=seconds: small_experiment.experiment({"experiment_config.trial_timeout_s": seconds})
            )


@pytest.mark.parametrize("key", ["storage_path", "data_dir", "init_weights_path"])
@pytest.mark.parametrize("path", ["a\0b", "a\ud800b", b"a", ""])
def test_a_path_that_no_file_can_have_is_refused(small_experiment, key, path):
    found = problems(lambda: small_experiment.experiment({f"experiment_config.{key}": path}))
    assert "allowed: a path" in found[f"experiment_config.{key}"]


def test_a_device_without_numbers_is_refused(small_experiment):
    problems(lambda: small_experiment.experiment({"experiment_config.target_device": torch.device("meta")}))

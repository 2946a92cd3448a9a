from types import SimpleNamespace

import pytest
import torch

from cluster.planning.builders import build_optimizer


def built(optimizer, parameters=None, **arguments):
    model = torch.nn.Linear(3, 2)
    hyperparams = SimpleNamespace(optimizer=optimizer, optimizer_args=arguments)
    return build_optimizer(hyperparams, model.parameters() if parameters is None else parameters)


class MyAdam(torch.optim.Adam):
    """A class of the user, which may do anything with the argument."""


class TestTheFusedImplementation:
    @pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
    def test_is_used_by_every_optimizer_of_torch_that_has_one(self, optimizer):
        assert built(optimizer, lr=0.1).defaults["fused"] is True

    @pytest.mark.parametrize("optimizer", [torch.optim.RMSprop, torch.optim.NAdam, torch.optim.LBFGS])
    def test_is_not_expected_of_others(self, optimizer):
        assert "fused" not in built(optimizer, lr=0.1).defaults

    def test_is_used_if_the_arguments_leave_the_choice_to_torch(self):
        """So are they in the description of a combination, from which a trial is trained again."""
        assert built(torch.optim.Adam, fused=None, foreach=None).defaults["fused"] is True

    @pytest.mark.parametrize("arguments", [{"fused": False}, {"foreach": True}, {"differentiable": True}])
    def test_gives_way_to_arguments_that_ask_for_another(self, arguments):
        assert not built(torch.optim.Adam, **arguments).defaults["fused"]

    def test_is_not_used_by_sgd_with_dampening(self):
        assert not built(torch.optim.SGD, momentum=0.9, dampening=0.1).defaults["fused"]

    def test_is_not_used_by_a_class_of_the_user(self):
        assert built(MyAdam).defaults["fused"] is None

    def test_is_not_used_for_parameters_that_it_does_not_support(self):
        parameter = torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64))
        assert not built(torch.optim.SGD, [parameter]).defaults["fused"]

    @pytest.mark.parametrize(
        ("optimizer", "arguments"),
        [
            (torch.optim.Adam, {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1}),
            (torch.optim.AdamW, {"lr": 0.01, "maximize": True}),
            (torch.optim.SGD, {"lr": 0.01}),
            (torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}),
            (torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": True, "maximize": True}),
            (torch.optim.Adagrad, {"lr": 0.01, "lr_decay": 0.1}),
        ],
    )
    def test_takes_the_steps_of_the_plain_one_up_to_rounding(self, optimizer, arguments):
        """Also where a parameter gets its first gradient later than another, and misses some."""
        weights = []
        for fused in ({}, {"fused": False}):
            torch.manual_seed(0)
            parameters = [torch.nn.Parameter(torch.randn(50, dtype=torch.float64)) for _ in range(2)]
            one = built(optimizer, parameters, **arguments, **fused)
            for step in range(10):
                for parameter, has_gradient in zip(parameters, (True, step in (3, 4, 7)), strict=True):
                    parameter.grad = torch.randn(50, dtype=torch.float64) if has_gradient else None
                one.step()
            weights.append(torch.cat(parameters).detach())
        torch.testing.assert_close(weights[0], weights[1], rtol=1e-9, atol=1e-12)


def test_a_model_without_gradients_has_no_optimizer():
    assert built(None) is None

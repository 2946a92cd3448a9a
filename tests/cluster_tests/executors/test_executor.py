import os
import signal
import sys

import pytest
import torch

from cluster.executors.executor import Executor, default_device
from cluster.executors.signals import Signals
from data_pipeline.user_error import UserError


@pytest.fixture(autouse=True)
def _no_address(monkeypatch):
    for variable in ("POSETUNE_ADDRESS", "RAY_ADDRESS", "POSETUNE_WAIT_FOR_NODES", "POSETUNE_GRACE_S"):
        monkeypatch.delenv(variable, raising=False)


class TestTheAddress:
    @pytest.mark.parametrize(
        ("given", "environment", "address"),
        [
            (None, {}, None),
            (None, {"RAY_ADDRESS": "a:1"}, "a:1"),
            (None, {"RAY_ADDRESS": "a:1", "POSETUNE_ADDRESS": "b:2"}, "b:2"),
            ("c:3", {"RAY_ADDRESS": "a:1", "POSETUNE_ADDRESS": "b:2"}, "c:3"),
            ("local", {"RAY_ADDRESS": "a:1"}, None),
            (None, {"RAY_ADDRESS": "a:1", "POSETUNE_ADDRESS": "local"}, None),
            (None, {"RAY_ADDRESS": ""}, None),
        ],
    )
    def test_is_the_given_one_or_that_of_the_environment(self, monkeypatch, given, environment, address):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert Executor.of("ray", given, wait_for_nodes=False).address == address

    def test_is_of_no_interest_inline(self, monkeypatch):
        monkeypatch.setenv("POSETUNE_ADDRESS", "a:1")
        assert Executor.of("inline", "b:2", wait_for_nodes=False).address is None

    @pytest.mark.parametrize(("variable", "waits"), [("1", True), ("", False), ("0", False)])
    def test_waiting_can_be_asked_for_by_the_environment(self, monkeypatch, variable, waits):
        monkeypatch.setenv("POSETUNE_WAIT_FOR_NODES", variable)
        assert Executor.of("ray", "a:1", wait_for_nodes=False).wait_for_nodes is waits


@pytest.mark.parametrize(
    ("environment", "has_gpu", "device"),
    [
        ({}, False, "cpu"),
        ({}, True, "cuda"),
        ({"POSETUNE_ADDRESS": "a:1"}, False, "cuda"),
        ({"RAY_ADDRESS": "auto"}, False, "cuda"),
        ({"RAY_ADDRESS": "a:1", "POSETUNE_ADDRESS": "local"}, False, "cpu"),
    ],
)
def test_a_driver_without_a_gpu_does_not_choose_the_cpu_for_a_cluster(monkeypatch, environment, has_gpu, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_device() == torch.device(device)


class TestTheGrace:
    def test_is_twenty_seconds_where_the_environment_says_nothing_else(self, monkeypatch):
        assert Executor.of("ray", None, wait_for_nodes=False).signals.grace_s == 20
        monkeypatch.setenv("POSETUNE_GRACE_S", "90")
        assert Executor.of("ray", None, wait_for_nodes=False).signals.grace_s == 90

    @pytest.mark.parametrize("text", ["a minute", "-1", "nan", "inf"])
    def test_is_a_number_of_seconds(self, monkeypatch, text):
        monkeypatch.setenv("POSETUNE_GRACE_S", text)
        with pytest.raises(UserError, match=f"POSETUNE_GRACE_S is '{text}', but must be a number"):
            Executor.of("ray", None, wait_for_nodes=False)


def test_what_this_machine_lacks_is_of_no_interest_where_a_cluster_trains(small_experiment):
    config = small_experiment.experiment({"experiment_config.target_device": torch.device("cuda:99")}).config
    (problem,) = Executor.of("ray", None, wait_for_nodes=False).problems(config)
    assert problem.path == "experiment_config.target_device"
    assert not Executor.of("ray", "a:1", wait_for_nodes=False).problems(config)


class TestSignals:
    def test_sigterm_is_noted_as_often_as_it_comes(self):
        signals, before = Signals(), signal.getsignal(signal.SIGTERM)
        with signals.sigterm_noted():
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signals.preempted
        assert signal.getsignal(signal.SIGTERM) is before

    def test_one_that_arrives_while_another_is_handled_does_no_harm(self):
        def again(frame, what, argument):
            if frame.f_code.co_filename != __file__:  # at each line of the handler and of what it calls
                signal.raise_signal(signal.SIGTERM)
            return again

        def give_up(number, frame):
            raise TimeoutError("the handler waits for itself")

        signals, before = Signals(), signal.signal(signal.SIGALRM, give_up)
        traced = sys.gettrace()
        try:
            with signals.sigterm_noted():
                signal.alarm(5)
                sys.settrace(again)
                os.kill(os.getpid(), signal.SIGTERM)
                sys.settrace(traced)
        finally:
            sys.settrace(traced)
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        assert signals.preempted

    def test_ctrl_c_is_noted_the_first_time_and_obeyed_the_second(self):
        signals, before = Signals(), signal.getsignal(signal.SIGINT)
        with signals.first_sigint_noted():
            os.kill(os.getpid(), signal.SIGINT)
            assert signals.interrupted
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is before

from collections import Counter

import pytest
import torch

from cluster.config import ConfigError
from cluster.devices import Placement, Slots, place, resource_name

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def cuda(*indices):
    return [torch.device("cuda", index) for index in indices]


@pytest.fixture
def placed(tiny):
    """Places the tiny experiment on a machine with so many CPU cores and GPUs."""

    def placed(device, *, n_cpus=8, n_gpus=4, **config):
        changes = {f"experiment_config.{key}": value for key, value in config.items()}
        experiment = tiny.experiment({"experiment_config.target_device": device, **changes})
        return place(experiment.config, n_cpus=n_cpus, n_gpus=n_gpus)

    return placed


class TestATargetDevice:
    def test_cpu_has_a_place_for_every_core_and_no_gpu(self, placed):
        assert placed(CPU) == Placement((CPU,), 8, 1)
        assert placed([CPU], cpus_per_trial=3) == Placement((CPU,), 2, 3)
        assert placed(CPU, n_gpus=0).n_slots == 8

    def test_cuda_is_all_gpus_of_the_machine(self, placed):
        assert placed(CUDA).devices == tuple(cuda(0, 1, 2, 3))
        assert placed([CUDA], n_gpus=1).devices == tuple(cuda(0))

    def test_with_an_index_is_that_gpu(self, placed):
        assert placed(torch.device("cuda:2")) == Placement(tuple(cuda(2)), 1, 1)

    def test_list_is_a_pool(self, placed):
        assert placed(cuda(3, 1)) == Placement(tuple(cuda(3, 1)), 1, 1)
        assert placed(cuda(3, 1), trials_per_device=2).n_slots == 4

    def test_gpu_is_shared_by_as_many_trials_as_there_are_cores_to_feed(self, placed):
        assert placed(CUDA, trials_per_device=2) == Placement(tuple(cuda(0, 1, 2, 3)), 2, 1)
        assert placed(CUDA, trials_per_device=9) == Placement(tuple(cuda(0, 1, 2, 3)), 2, 1)
        assert placed(CUDA, trials_per_device=2, cpus_per_trial=2) == Placement(tuple(cuda(0, 1, 2, 3)), 1, 2)

    def test_gpus_without_a_core_are_left_out(self, placed):
        assert placed(CUDA, n_cpus=2) == Placement(tuple(cuda(0, 1)), 1, 1)

    def test_never_takes_more_cores_than_there_are(self, placed):
        for n_cpus in range(1, 12):
            for n_gpus in range(1, 6):
                for per_trial in range(1, n_cpus + 1):
                    for share in (1, 2, 5):
                        placement = placed(
                            CUDA, n_cpus=n_cpus, n_gpus=n_gpus, cpus_per_trial=per_trial, trials_per_device=share
                        )
                        assert 1 <= placement.n_slots * per_trial <= n_cpus

    def test_is_sought_on_this_machine_by_default(self, tiny):
        assert place(tiny.experiment().config).n_slots >= 1

    @pytest.mark.parametrize(
        ("device", "machine", "says"),
        [
            (
                CUDA,
                {"n_gpus": 0},
                "cuda was asked for, but this machine has no GPU that torch can use; take torch.device('cpu')",
            ),
            (torch.device("cuda:1"), {"n_gpus": 0}, "cuda:1 was asked for, but this machine has no GPU"),
            (
                cuda(0, 4, 5),
                {},
                "cuda:4, cuda:5 was asked for, but this machine has 4 GPU(s), cuda:0 to cuda:3; take one of these or",
            ),
        ],
    )
    def test_that_is_not_there_is_an_error_that_says_what_is(self, placed, device, machine, says):
        with pytest.raises(ConfigError) as caught:
            placed(device, **machine)
        (problem,) = caught.value.problems
        assert problem.path == "experiment_config.target_device"
        assert problem.text.startswith(says)

    def test_that_is_not_there_stands_in_one_error_with_all_else_that_is_wrong(self, tiny, placed):
        with pytest.raises(ConfigError) as caught:
            placed(CUDA, n_gpus=0, cpus_per_trial=9)
        lacking = ["experiment_config.cpus_per_trial", "experiment_config.target_device"]
        assert [problem.path for problem in caught.value.problems] == lacking
        changes = {
            "experiment_config.cpus_per_trial": 10**6,
            "experiment_config.target_device": torch.device("cuda:99"),
            "base_hyperparams.optimizer_args.lr": -1,
        }
        with pytest.raises(ConfigError) as caught:
            tiny.run(changes)
        paths = [problem.path for problem in caught.value.problems]
        assert paths == ["base_hyperparams.optimizer_args", *lacking]
        assert not tiny.storage_path.exists()

    def test_with_too_few_cores_is_an_error_that_says_how_many_there_are(self, placed):
        with pytest.raises(
            ConfigError, match=r"cpus_per_trial: got 9, but this machine has 8 CPU core\(s\); ask for at most 8"
        ):
            placed(CPU, cpus_per_trial=9)


class TestSlots:
    def test_spread_trials_over_all_gpus_before_any_has_two(self):
        slots = Slots(Placement(tuple(cuda(0, 1, 2, 3)), 2, 1))
        assert [slots.take(str(trial)) for trial in range(8)] == cuda(0, 1, 2, 3) * 2
        assert Counter(slots.taken.values()) == dict.fromkeys(cuda(0, 1, 2, 3), 2)

    def test_give_the_place_that_was_given_back(self):
        slots = Slots(Placement(tuple(cuda(0, 1, 2)), 1, 1))
        for trial in "abc":
            slots.take(trial)
        slots.give_back("b")
        slots.give_back("b")  # a second time is nothing
        assert slots.take("d") == torch.device("cuda:1")

    def test_are_resources_that_a_trial_takes_one_of(self):
        placement = Placement(tuple(cuda(0, 2)), 3, 2)
        assert placement.ray_resources == {"posetune:cuda:0": 3.0, "posetune:cuda:2": 3.0}
        assert placement.trial_resources(torch.device("cuda:2")) == {"CPU": 2.0, "posetune:cuda:2": 1.0}
        assert resource_name(CPU) == "posetune:cpu"

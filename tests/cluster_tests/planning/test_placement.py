import pytest
import torch

from cluster.planning.config import ConfigError
from cluster.planning.placement import Node, NoRoomError, Placement, device_name, given_device, place_here, place_on

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FIRST = torch.device("cuda", 0)


def cuda(*indices):
    return [torch.device("cuda", index) for index in indices]


@pytest.fixture
def config(small_experiment):
    """The config of the small experiment for a device."""

    def config(device, **settings):
        changes = {f"experiment_config.{key}": value for key, value in settings.items()}
        return small_experiment.experiment({"experiment_config.target_device": device, **changes}).config

    return config


@pytest.fixture
def placed(config):
    """Places the small experiment, as if it had many trials, on a machine with these CPU cores and GPUs."""

    def placed(device, *, n_trials=1000, n_cpus=8, n_gpus=4, **settings):
        return place_here(config(device, **settings), n_trials, n_cpus=n_cpus, n_gpus=n_gpus)

    return placed


def message(caught):
    (problem,) = caught.value.problems
    return problem.text


class TestOnThisMachine:
    def test_cpu_has_a_place_for_every_core_and_no_gpu(self, placed):
        assert placed(CPU) == Placement(CPU, 8, 1)
        assert placed([CPU], cpus_per_trial=3) == Placement(CPU, 2, 3)
        assert placed(CPU, n_gpus=0).n_slots == 8
        assert placed(CPU).trial_resources == {"CPU": 1.0}

    def test_cuda_is_all_gpus_of_the_machine(self, placed):
        assert placed(CUDA) == Placement(FIRST, 4, 1, 1.0, (0, 1, 2, 3))
        assert placed([CUDA], n_gpus=1).gpus == (0,)

    def test_with_an_index_is_that_gpu(self, placed):
        assert placed(torch.device("cuda:2")) == Placement(FIRST, 1, 1, 1.0, (2,))
        assert placed(torch.device("cuda:2")).first_device == torch.device("cuda:2")

    def test_list_is_a_pool(self, placed):
        assert placed(cuda(3, 1)) == Placement(FIRST, 2, 1, 1.0, (3, 1))
        assert placed(cuda(*range(8)), n_gpus=8).n_slots == 8
        assert placed(cuda(3, 1), trials_per_device=2).n_slots == 4

    def test_gpu_is_shared_by_as_many_trials_as_there_are_cores_to_feed(self, placed):
        assert placed(CUDA, trials_per_device=2) == Placement(FIRST, 8, 1, 1 / 2, (0, 1, 2, 3))
        assert placed(CUDA, trials_per_device=9) == Placement(FIRST, 8, 1, 1 / 2, (0, 1, 2, 3))
        assert placed(CUDA, trials_per_device=2, cpus_per_trial=2) == Placement(FIRST, 4, 2, 1.0, (0, 1, 2, 3))

    def test_no_gpu_has_two_trials_while_another_has_none(self, placed):
        """Ray fills a GPU before it uses the next one, so only the share spreads trials."""
        assert placed(CUDA, trials_per_device=4, n_cpus=16, n_trials=4).gpu_share == 1
        assert placed(CUDA, trials_per_device=4, n_cpus=16, n_trials=8).gpu_share == 1 / 2
        assert placed(CUDA, trials_per_device=4, n_cpus=16, n_trials=9).gpu_share == 1 / 3
        assert placed(CUDA, trials_per_device=4, n_cpus=16, n_trials=99).gpu_share == 1 / 4

    def test_never_takes_more_cores_or_gpus_than_there_are(self, placed):
        for n_cpus in range(1, 10):
            for n_gpus in range(1, 5):
                for per_trial in range(1, n_cpus + 1):
                    for share in (1, 2, 5):
                        for n_trials in (1, 3, 100):
                            placement = placed(
                                CUDA,
                                n_trials=n_trials,
                                n_cpus=n_cpus,
                                n_gpus=n_gpus,
                                cpus_per_trial=per_trial,
                                trials_per_device=share,
                            )
                            assert 1 <= placement.n_slots * per_trial <= n_cpus
                            assert placement.n_slots * placement.gpu_share <= n_gpus + 1e-9
                            assert 1 / placement.gpu_share <= share

    def test_is_sought_here_by_default(self, config):
        assert place_here(config(CPU)).n_slots >= 1

    @pytest.mark.parametrize(
        ("device", "machine", "says"),
        [
            (
                CUDA,
                {"n_gpus": 0},
                "cuda was requested, but this machine has no GPU that torch can use; use torch.device('cpu')",
            ),
            (torch.device("cuda:1"), {"n_gpus": 0}, "cuda:1 was requested, but this machine has no GPU"),
            (
                cuda(0, 4, 5),
                {},
                "cuda:4, cuda:5 was requested, but this machine has 4 GPU(s), cuda:0 to cuda:3; use one of these or",
            ),
        ],
    )
    def test_that_is_not_there_is_an_error_that_says_what_is(self, placed, device, machine, says):
        with pytest.raises(ConfigError) as caught:
            placed(device, **machine)
        assert caught.value.problems[0].path == "experiment_config.target_device"
        assert message(caught).startswith(says)

    def test_that_is_not_there_stands_in_one_error_with_all_else_that_is_wrong(self, small_experiment, placed):
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
            small_experiment.run(changes)
        paths = [problem.path for problem in caught.value.problems]
        assert paths == ["base_hyperparams.optimizer_args", *lacking]
        assert not small_experiment.storage_path.exists()

    def test_with_too_few_cores_is_an_error_that_says_how_many_there_are(self, placed):
        with pytest.raises(
            ConfigError, match=r"cpus_per_trial: got 9, but this machine has 8 CPU core\(s\); request at most 8"
        ):
            placed(CPU, cpus_per_trial=9)


HEAD, A, B = Node("head", 4, 0), Node("a", 16, 8), Node("b", 8, 4)


class TestOnACluster:
    def test_every_node_counts(self, config):
        assert place_on(config(CPU), 100, [HEAD, A, B]) == Placement(CPU, 28, 1)
        assert place_on(config(CPU, cpus_per_trial=5), 100, [HEAD, A, B]).n_slots == 4
        assert place_on(config(CUDA), 100, [HEAD, A, B]) == Placement(FIRST, 12, 1, 1.0)
        assert place_on(config(CUDA, trials_per_device=2), 100, [HEAD, A, B]) == Placement(FIRST, 24, 1, 1 / 2)

    def test_few_trials_are_spread_over_all_gpus(self, config):
        assert place_on(config(CUDA, trials_per_device=4), 12, [HEAD, A, B]).gpu_share == 1

    def test_nodes_that_come_and_go_change_how_many_trials_run_and_not_what_each_takes(self, config):
        placement = place_on(config(CUDA, trials_per_device=2), 100, [A])
        assert (placement.n_slots, placement.gpu_share) == (16, 1 / 2)
        assert placement.slots_on([HEAD, A, B]) == 24
        assert placement.slots_on([HEAD]) == placement.slots_on([]) == 0
        assert place_on(config(CPU, cpus_per_trial=3), 100, [A]).slots_on([A, B]) == 7

    def test_a_pool_of_all_gpus_of_every_node_is_the_same_as_cuda(self, config):
        assert place_on(config(cuda(*range(8))), 100, [HEAD, A]) == place_on(config(CUDA), 100, [HEAD, A])

    def test_some_gpus_by_their_index_are_an_error_that_says_what_to_do(self, config):
        with pytest.raises(ConfigError) as caught:
            place_on(config(cuda(0, 1)), 100, [HEAD, A])
        assert not isinstance(caught.value, NoRoomError), "no further node would mend it"
        assert message(caught) == (
            "cuda:0, cuda:1 was requested, but GPUs of a Ray cluster cannot be chosen by index; the cluster "
            "has head (4 CPU core(s), no GPU), a (16 CPU core(s), 8 GPU(s)). Write torch.device('cuda'), or start its "
            "nodes with only these GPUs: CUDA_VISIBLE_DEVICES=0,1 ray start …"
        )

    def test_what_no_node_has_is_an_error_that_says_what_each_has_and_what_to_change(self, config):
        with pytest.raises(NoRoomError) as caught:
            place_on(config(CUDA, cpus_per_trial=4), 100, [HEAD, Node("c", 2, 1)])
        assert message(caught) == (
            "a GPU and 4 CPU core(s) per trial (cpus_per_trial) were requested, but no node has that; the cluster has "
            "head (4 CPU core(s), no GPU), c (2 CPU core(s), 1 GPU(s)). Use torch.device('cpu'), request fewer cores, "
            "or add a node; run(wait_for_nodes=True) waits for one"
        )
        with pytest.raises(
            NoRoomError, match=r"cpus_per_trial: 5 CPU core\(s\) per trial were requested, but no node has"
        ):
            place_on(config(CPU, cpus_per_trial=5), 100, [HEAD])
        with pytest.raises(NoRoomError, match="the cluster has no node"):
            place_on(config(CPU), 100, [])


class TestInTheTrialsProcess:
    def test_who_asks_for_no_gpu_sees_none(self, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        assert given_device(Placement(CPU, 1, 1)) == CPU
        assert torch.cuda.device_count() == 0

    def test_a_gpu_is_the_first_and_only_one(self):
        assert given_device(Placement(FIRST, 1, 1, 1.0)) == FIRST

    def test_a_gpu_that_is_pretended_is_the_cpu(self, monkeypatch):
        monkeypatch.setenv("POSETUNE_PRETEND_GPUS", "1")
        assert given_device(Placement(FIRST, 1, 1, 1.0)) == CPU

    def test_a_cpu_has_a_name_and_no_gpu(self):
        assert device_name(CPU) == ("cpu", None)

    @pytest.mark.parametrize(
        ("shown", "index", "name"),
        [(None, 1, "cuda:1"), ("3", 0, "cuda:3"), ("4,6", 1, "cuda:6"), ("GPU-8f3a", 0, "cuda:GPU-8f3a")],
    )
    def test_a_gpu_has_the_machines_number_and_tells_model_and_uuid(self, monkeypatch, shown, index, name):
        class Module:
            @staticmethod
            def get_device_properties(device):
                return type("Properties", (), {"name": "NVIDIA H100", "uuid": f"8f3a-{device.index}"})

        monkeypatch.setattr(torch, "get_device_module", lambda device: Module)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if shown is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
        assert device_name(torch.device("cuda", index)) == (name, f"NVIDIA H100 8f3a-{index}")

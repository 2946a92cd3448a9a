import math
import os

import pytest
import torch

from cluster.planning.config import ConfigError
from cluster.planning.placement import (
    Node,
    NoRoomError,
    Placement,
    _cpu_quota,
    device_name,
    given_device,
    place_here,
    place_on,
)

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

    @pytest.mark.parametrize(
        ("n_trials", "per_device", "n_cpus", "loads"),
        [
            (4, 4, 16, [1, 1, 1, 1]),
            (6, 2, 16, [2, 2, 1, 1]),
            (9, 4, 16, [3, 2, 2, 2]),
            (99, 4, 16, [4, 4, 4, 4]),
            (99, 4, 7, [2, 2, 2, 1]),
            (3, 2, 16, [1, 1, 1, 0]),
        ],
    )
    def test_trials_are_spread_evenly_over_gpus(self, placed, n_trials, per_device, n_cpus, loads):
        placement = placed(CUDA, trials_per_device=per_device, n_cpus=n_cpus, n_trials=n_trials)
        assert placement.gpu_loads([Node("here", n_cpus, 4)], placement.n_slots) == [loads]
        assert (placement.n_slots, placement.gpu_share) == (sum(loads), 1 / max(loads))

    @pytest.mark.parametrize("per_gpu", range(1, 130))
    def test_shares_of_a_gpu_are_not_more_than_the_gpu_after_ray_has_rounded_them(self, per_gpu):
        share = Placement(FIRST, per_gpu, 1, 1 / per_gpu).trial_resources["GPU"]
        assert per_gpu * round(share * 10_000) <= 10_000

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
        for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR"):
            monkeypatch.setenv(name, "0,1")
        assert given_device(Placement(CPU, 1, 1)) == CPU
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
        assert os.environ["HIP_VISIBLE_DEVICES"] == "-1", "an empty one shows all"
        assert os.environ["ONEAPI_DEVICE_SELECTOR"] == "*:cpu"

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

    @pytest.mark.parametrize(
        ("hip", "device", "variables", "name"),
        [
            ("6.4", torch.device("cuda", 0), {"HIP_VISIBLE_DEVICES": "3"}, "cuda:3"),
            ("6.4", torch.device("cuda", 1), {"HIP_VISIBLE_DEVICES": "", "CUDA_VISIBLE_DEVICES": "4,6"}, "cuda:6"),
            ("6.4", torch.device("cuda", 0), {"HIP_VISIBLE_DEVICES": "3", "CUDA_VISIBLE_DEVICES": "7"}, "cuda:3"),
            (None, torch.device("cuda", 0), {"HIP_VISIBLE_DEVICES": "3"}, "cuda:0"),
            (None, torch.device("xpu", 0), {"ZE_AFFINITY_MASK": "2", "CUDA_VISIBLE_DEVICES": "7"}, "xpu:2"),
        ],
    )
    def test_an_amd_or_intel_gpu_has_the_machines_number_too(self, monkeypatch, gpus, hip, device, variables, name):
        monkeypatch.setattr(torch.version, "hip", hip)
        for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"):
            monkeypatch.delenv(variable, raising=False)
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)
        assert device_name(device)[0] == name


class TestCpuCores:
    @pytest.mark.parametrize(
        ("groups", "files", "quota"),
        [
            ("0::/", {"cpu.max": "200000 100000"}, 2.0),
            ("0::/", {"cpu.max": "max 100000"}, math.inf),
            ("0::/job/task", {"job/cpu.max": "150000 100000", "job/task/cpu.max": "max 100000"}, 1.5),
            ("0::/job/task", {"job/cpu.max": "50000 100000", "job/task/cpu.max": "300000 100000"}, 0.5),
            ("5:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3.0),
            ("5:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
            ("9:memory:/a\n5:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "1000", "cpu/a/cpu.cfs_period_us": "500"}, 2.0),
            # The path of a group outside, which a container may show.
            ("5:cpu:/docker/0a", {"cpu/cpu.cfs_quota_us": "1000", "cpu/cpu.cfs_period_us": "500"}, 2.0),
            ("0::/", {}, math.inf),
            ("0::/", {"cpu.max": "nonsense"}, math.inf),
        ],
    )
    def test_are_limited_by_the_quota_of_a_container(self, tmp_path, groups, files, quota):
        for path, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(f"{text}\n")
        assert _cpu_quota(tmp_path) == quota

    def test_are_not_limited_where_there_are_no_control_groups(self, tmp_path):
        assert _cpu_quota(tmp_path) == math.inf

    @pytest.mark.parametrize(("quota", "n_cpus"), [(0.5, 1), (1.9, 1), (2.0, 2), (64.0, 8), (math.inf, 8)])
    def test_of_which_a_container_gets_a_part_are_rounded_down(self, config, monkeypatch, quota, n_cpus):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
        monkeypatch.setattr("cluster.planning.placement._cpu_quota", lambda: quota)
        assert place_here(config(CPU)).n_slots == n_cpus

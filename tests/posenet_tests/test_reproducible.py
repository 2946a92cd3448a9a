import io
import os
import random
import runpy
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch

from posenet.reproducible import current_gpu, random_state, reproducible_process, seed_process, set_random_state
from tests.support import ROOT, global_random_states, same_bits

CPU = torch.device("cpu")


def draw():
    """A draw from every global generator; after an odd number of normal draws, one is kept for the next call."""
    return (
        random.random(),
        random.gauss(0, 1),
        np.random.standard_normal(3).tolist(),  # noqa: NPY002
        torch.rand(3).tolist(),
    )


def process_settings():
    return {
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "tf32 of convolutions": torch.backends.cudnn.allow_tf32,
        "random": global_random_states(),
    }


def precisions():
    """The precision of each kind of float32 computation."""
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    kinds = (cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn)
    return [kind.fp32_precision for kind in kinds]


@pytest.fixture(autouse=True)
def _as_before():
    """Restores the process state after each test."""
    before = process_settings()
    state = random_state(CPU)
    yield
    torch.set_num_threads(before["threads"])
    torch.set_default_dtype(before["dtype"])
    torch.set_default_device(None)
    torch.backends.cudnn.benchmark = before["benchmark"]
    torch.use_deterministic_algorithms(before["deterministic"], warn_only=before["warn_only"])
    torch.utils.deterministic.fill_uninitialized_memory = before["fill"]
    torch.set_float32_matmul_precision(before["matmul_precision"])
    torch.backends.cudnn.allow_tf32 = before["tf32 of convolutions"]
    set_random_state(state, CPU)
    assert process_settings() == before


class TestReproducibleProcess:
    @pytest.mark.parametrize("deterministic", [True, False])
    @pytest.mark.parametrize("matmul_precision", ["highest", "high", "medium"])
    def test_gives_the_block_what_it_asks_for(self, deterministic, matmul_precision):
        self.unusual_process(not deterministic, warn_only=False)
        with reproducible_process(threads=3, deterministic=deterministic, matmul_precision=matmul_precision):
            settings = process_settings()
        del settings["random"]
        assert settings == {
            "threads": 3,
            "dtype": torch.float32,
            "device": CPU,
            "benchmark": False,
            "deterministic": deterministic,
            "warn_only": False,
            "fill": False,
            "matmul_precision": matmul_precision,
            "tf32 of convolutions": matmul_precision != "highest",
        }

    @pytest.mark.parametrize("name", ["inference_mode", "no_grad", "autocast"])
    def test_leaves_the_modes_of_a_script(self, name):
        numbers = torch.rand(4, 4, requires_grad=True)
        mode = torch.autocast("cpu", dtype=torch.bfloat16) if name == "autocast" else getattr(torch, name)()
        with mode, reproducible_process(threads=1, deterministic=True, matmul_precision="highest"):
            product = numbers.clone() @ numbers
            assert product.requires_grad
            assert product.dtype == torch.float32

    def test_makes_models_that_are_compiled_deterministic_too(self):
        """In a process of its own, since it imports the compiler, which otherwise no training does."""
        code = """if True:
            from posenet.reproducible import reproducible_process

            for deterministic in (True, False, True):
                with reproducible_process(threads=1, deterministic=deterministic, matmul_precision="highest"):
                    from torch._inductor import config

                    assert config.deterministic == deterministic
            assert not config.deterministic"""
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

    def unusual_process(self, deterministic, warn_only):
        torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = True
        torch.set_float32_matmul_precision("medium")
        seed_process(5)
        draw()
        torch.backends.cudnn.benchmark = True
        torch.set_default_device("meta")

    @pytest.mark.parametrize(("deterministic", "warn_only"), [(False, False), (True, False), (True, True)])
    @pytest.mark.parametrize("fails", [False, True])
    def test_puts_everything_back_also_after_an_error(self, deterministic, warn_only, fails):
        self.unusual_process(deterministic, warn_only)
        before = process_settings()
        try:
            with reproducible_process(threads=1, deterministic=True, matmul_precision="highest"):
                seed_process(1)
                draw()
                torch.set_num_threads(4)
                torch.set_default_dtype(torch.float16)
                if fails:
                    raise RuntimeError("in the block")
        except RuntimeError:
            assert fails
        assert process_settings() == before

    NEW_WAY: ClassVar = {
        "for all": (torch.backends, "tf32"),
        "for matrix products": (torch.backends.cuda.matmul, "tf32"),
        "for convolutions": (torch.backends.cudnn.conv, "ieee"),
        "on the CPU": (torch.backends.mkldnn.matmul, "bf16"),
    }

    @pytest.mark.parametrize("matmul_precision", ["highest", "high", "medium"])
    @pytest.mark.parametrize("way", NEW_WAY)
    def test_gives_what_it_is_asked_for_to_a_script_that_set_the_precision_in_torchs_new_way(
        self, way, matmul_precision
    ):
        with reproducible_process(threads=1, deterministic=True, matmul_precision=matmul_precision):
            expected = precisions()
        where, precision = self.NEW_WAY[way]
        before = where.fp32_precision
        where.fp32_precision = precision
        set_by_script = precisions()
        with reproducible_process(threads=1, deterministic=True, matmul_precision=matmul_precision):
            found = precisions()
        assert precisions() == set_by_script
        where.fp32_precision = before
        assert found == expected

    @pytest.mark.parametrize("impossible", [{"threads": 0}, {"matmul_precision": None}])
    def test_changes_nothing_where_it_cannot_give_what_it_is_asked_for(self, impossible):
        self.unusual_process(deterministic=False, warn_only=False)
        before = process_settings()
        arguments = {"threads": 1, "deterministic": True, "matmul_precision": "highest", **impossible}
        with pytest.raises((RuntimeError, TypeError)), reproducible_process(**arguments):
            pytest.fail("the block was entered")
        assert process_settings() == before

    def test_prepares_cublas_when_it_is_imported_but_leaves_a_choice_of_the_user(self, monkeypatch):
        for given, expected in ((None, ":4096:8"), (":16:8", ":16:8")):
            monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
            if given is not None:
                monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", given)
            runpy.run_path(str(ROOT / "posenet" / "reproducible.py"))
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == expected


class TestRandomState:
    def test_brings_every_generator_back(self):
        seed_process(3)
        draw()
        state = random_state(CPU)
        expected = draw(), draw()
        seed_process(4)
        set_random_state(state, CPU)
        assert (draw(), draw()) == expected

    def test_is_not_changed_by_draws_or_by_being_set(self):
        state = random_state(CPU)
        kept = random_state(CPU)
        for _ in range(2):
            set_random_state(state, CPU)
            draw()
        assert same_bits(state, kept)

    def test_survives_a_file_that_loads_weights_only(self):
        seed_process(3)
        draw()
        file = io.BytesIO()
        torch.save(random_state(CPU), file)
        expected = draw()
        file.seek(0)
        set_random_state(torch.load(file, weights_only=True), CPU)
        assert draw() == expected


class TestOnAGpu:
    GPU = torch.device("cuda", 1)

    def test_the_state_of_its_generator_is_part_of_the_random_state(self, gpus):
        state = random_state(self.GPU)
        assert state["device"] == 11
        gpus.states[1] = torch.tensor([5])
        set_random_state(state, self.GPU)
        assert gpus.states == [10, 11]

    @pytest.mark.parametrize("fails", [False, True])
    def test_a_block_changes_neither_the_current_gpu_nor_any_generator_for_what_follows(self, gpus, fails):
        try:
            with current_gpu(self.GPU):
                assert gpus.current == 1
                gpus.set_rng_state_all([torch.tensor([1]), torch.tensor([2])])
                if fails:
                    raise RuntimeError("in the block")
        except RuntimeError:
            assert fails
        assert (gpus.current, gpus.states) == (0, [10, 11])

    def test_an_error_that_makes_the_gpu_unusable_is_not_hidden_by_the_next(self, gpus, monkeypatch):
        def refuse(device):
            raise RuntimeError("the GPU does not answer")

        def lose_the_gpu():
            monkeypatch.setattr(gpus, "set_device", refuse)
            gpus.states = [torch.tensor([1]), torch.tensor([2])]
            raise RuntimeError("in the block")

        with pytest.raises(RuntimeError, match="in the block"), current_gpu(self.GPU):
            lose_the_gpu()
        assert gpus.states == [10, 11]


class TestSeedProcess:
    @pytest.mark.parametrize("seed", [0, 1, 2**53 - 1])
    def test_makes_all_draws_the_same(self, seed):
        draws = []
        for _ in range(2):
            seed_process(seed)
            draws.append(draw())
        assert draws[0] == draws[1]

    def test_makes_other_draws_for_another_seed(self):
        draws = []
        for seed in range(2):
            seed_process(seed)
            draws.append(draw())
        assert all(one != other for one, other in zip(*draws, strict=True))

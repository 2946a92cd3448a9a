import io
import math
from pathlib import Path

import pytest
import torch

from posenet.checkpoint import pack, tensor_bytes, unpack
from tests.support import generator, same_bits

STATE = {
    "epoch": 7,
    "name": "ü",
    "best": {"val_distance_mm": math.inf, "weights": {"layer.weight": torch.randn(3, 4, generator=generator())}},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "betas": (0.9, 0.999), "max": None}}, "groups": [{"lr": 1}]},
    "random": torch.get_rng_state(),
    "nan": math.nan,
    "flags": [True, False],
    "empty": torch.empty(0, 3),
}

DATA = pack(STATE)


def test_a_checkpoint_returns_what_was_packed():
    assert same_bits(unpack(DATA), STATE)


def test_a_checkpoint_is_a_line_with_its_hash_and_what_torch_save_writes():
    line, _, content = DATA.partition(b"\n")
    name, _, digest = line.partition(b" ")
    assert name == b"posetune-checkpoint"
    assert len(digest) == 64
    assert same_bits(torch.load(io.BytesIO(content), weights_only=True), STATE)


def test_a_checkpoint_is_the_same_bytes_for_the_same_state():
    assert pack(STATE) == DATA


def test_a_checkpoint_that_was_cut_anywhere_is_refused():
    for length in range(len(DATA)):
        with pytest.raises(ValueError, match=r"does not begin as|truncated or changed"):
            unpack(DATA[:length])


@pytest.mark.parametrize("mask", [1, 0x20, 0xFF])
def test_a_checkpoint_with_any_changed_byte_is_refused(mask):
    for position in range(len(DATA)):
        changed = bytearray(DATA)
        changed[position] ^= mask
        with pytest.raises(ValueError, match=r"does not begin as|truncated or changed"):
            unpack(bytes(changed))


@pytest.mark.parametrize("data", [DATA + b"\n", DATA + DATA, b"\n" + DATA, DATA[:85] + pack({"epoch": 8})[85:]])
def test_a_checkpoint_with_more_or_other_content_is_refused(data):
    with pytest.raises(ValueError, match=r"does not begin as|truncated or changed"):
        unpack(data)


@pytest.mark.parametrize("data", [b"", b"\n", b"epoch 7\n", tensor_bytes(STATE), b"posetune-checkpoint \n"])
def test_what_is_no_checkpoint_is_refused(data):
    with pytest.raises(ValueError, match=r"does not begin as|truncated or changed"):
        unpack(data)


def test_a_checkpoint_cannot_run_code(tmp_path):
    """Not even with the right hash, as in a forged checkpoint."""

    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    for state in (Bomb(), {"epoch": 1, "model": Bomb()}):
        with pytest.raises(ValueError, match="weights_only=True"):
            unpack(pack(state))
    assert not (tmp_path / "executed").exists()


def test_weights_load_in_any_program_that_has_torch():
    weights = STATE["best"]["weights"]
    assert same_bits(torch.load(io.BytesIO(tensor_bytes(weights)), weights_only=True), weights)

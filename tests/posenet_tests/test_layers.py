import pytest
import torch
from torch.nn import functional

from posenet.models.layers import Dropout, Linear, dropout

PARTS = 2**16
"""A probability is rounded to a multiple of 1 / PARTS."""


def seeded_dropout(x, p, seed=0):
    torch.manual_seed(seed)
    return dropout(x, p, training=True)


class TestLinear:
    @pytest.mark.parametrize("sizes", [(63, 256), (256, 63), (150, 63), (256, 3), (63, 3)])
    @pytest.mark.parametrize("batch", [(127,), (128,), (130, 2)])
    def test_equals_that_of_torch(self, sizes, batch):
        torch.manual_seed(0)
        layer, of_torch = Linear(*sizes), torch.nn.Linear(*sizes)
        of_torch.load_state_dict(layer.state_dict())
        x = torch.randn(*batch, sizes[0])
        directions = torch.randn(*batch, sizes[1])
        found = []
        for each in (layer, of_torch):
            inputs = x.clone().requires_grad_()
            outputs = each(inputs)
            outputs.backward(directions)
            found.append([outputs, inputs.grad, each.weight.grad, each.bias.grad])
        torch.testing.assert_close(*found)
        assert [each.stride() for each in found[0]] == [each.stride() for each in found[1]]
        with torch.inference_mode():
            torch.testing.assert_close(layer(x), of_torch(x))


class TestDropout:
    @pytest.mark.parametrize("p", [0.0001, 0.2, 0.5, 0.999])
    def test_drops_each_element_with_its_probability(self, p):
        n = 4_000_000
        n_dropped = (seeded_dropout(torch.ones(n), p) == 0).sum().item()
        standard_deviation = (n * p * (1 - p)) ** 0.5
        assert abs(n_dropped - n * round(p * PARTS) / PARTS) < 5 * standard_deviation

    def test_keeps_the_mean(self):
        assert seeded_dropout(torch.ones(4_000_000), 0.3).double().mean().item() == pytest.approx(1, abs=2e-3)

    @pytest.mark.parametrize("p", [0.2, 1 / 3, 0.9])
    def test_divides_what_it_keeps_by_the_rounded_probability_of_being_kept(self, p):
        dropped = seeded_dropout(torch.full((1000,), 3.0), p)
        kept = 1 - round(p * PARTS) / PARTS
        torch.testing.assert_close(dropped[dropped != 0], torch.full_like(dropped[dropped != 0], 3 / kept))

    def test_drops_neighbours_independently(self):
        """Four neighbours share the bits of one random number."""
        dropped = (seeded_dropout(torch.ones(400_000), 0.4) == 0).view(-1, 4).double()
        correlations = torch.corrcoef(torch.cat([dropped, dropped.roll(1, dims=0)], dim=1).T) - torch.eye(8)
        assert correlations.abs().max() < 5 / len(dropped) ** 0.5

    @pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 3, 7), (0, 4)])
    def test_keeps_shape_and_dtype(self, shape):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            dropped = seeded_dropout(torch.ones(shape, dtype=dtype), 0.5)
            assert (dropped.shape, dropped.dtype) == (shape, dtype)

    def test_drops_the_gradients_of_what_it_drops(self):
        x = torch.ones(100, requires_grad=True)
        dropped = seeded_dropout(x, 0.5)
        dropped.sum().backward()
        assert torch.equal(x.grad, dropped.detach())

    def test_does_not_depend_on_how_a_tensor_is_stored(self):
        x = torch.rand(6, 10)
        assert torch.equal(seeded_dropout(x, 0.5), seeded_dropout(x.T.contiguous().T, 0.5))

    def test_overwrites_its_input_only_in_place(self):
        x, overwritten = torch.ones(100), torch.ones(100)
        dropped = seeded_dropout(x, 0.5)
        torch.manual_seed(0)
        Dropout(0.5, inplace=True)(overwritten)
        assert torch.equal(x, torch.ones(100))
        assert torch.equal(overwritten, dropped)

    @pytest.mark.parametrize("p", [0, 1e-6])
    def test_of_a_probability_that_rounds_to_zero_changes_nothing(self, p):
        x = torch.rand(100)
        assert torch.equal(seeded_dropout(x, p), x)

    def test_outside_of_training_changes_nothing_and_draws_no_numbers(self):
        x, state = torch.rand(100), torch.get_rng_state()
        assert torch.equal(Dropout(0.5).eval()(x), x)
        assert torch.equal(torch.get_rng_state(), state)

    def test_continues_from_the_state_of_the_global_generator(self):
        layer, x = Dropout(0.5), torch.ones(37)
        layer(x)
        state = torch.get_rng_state()
        expected = [layer(x) for _ in range(3)]
        torch.set_rng_state(state)
        assert all(torch.equal(layer(x), one) for one in expected)

    @pytest.mark.gpu
    def test_on_a_gpu_is_that_of_torch(self):
        x = torch.ones(1000, device="cuda")
        dropped = seeded_dropout(x, 0.3)
        torch.manual_seed(0)
        assert torch.equal(dropped, functional.dropout(x, 0.3))

import numpy as np
import pytest
import torch

from data_pipeline.layout import (
    cross_product,
    rotate,
    samples_first,
    samples_last,
    squared_lengths,
    stored_samples_last,
    whole_samples,
)

SHAPES = [(7, 5, 3), (1, 5, 3), (7, 1, 3), (512, 21, 3), (0, 5, 3)]


@pytest.fixture(params=SHAPES, ids=str)
def points(request):
    return torch.arange(float(np.prod(request.param))).view(request.param)


def test_samples_are_put_last_and_back(points):
    last = samples_last(points)
    np.testing.assert_array_equal(last, points.numpy().transpose(1, 2, 0))
    assert last.is_contiguous()
    assert torch.equal(samples_first(last), points)


def test_the_shape_stays_where_only_the_order_in_memory_changes(points):
    stored = stored_samples_last(points)
    assert torch.equal(stored, points)
    assert stored.permute(1, 2, 0).is_contiguous()
    whole = whole_samples(stored)
    assert torch.equal(whole, points)
    assert whole.is_contiguous()


def test_nothing_is_copied_that_lies_in_the_order_asked_for():
    points = torch.rand(7, 5, 3)
    assert whole_samples(points).data_ptr() == points.data_ptr()
    stored = stored_samples_last(points)
    assert stored.data_ptr() != points.data_ptr()
    assert samples_last(stored).data_ptr() == stored_samples_last(stored).data_ptr() == stored.data_ptr()


def test_points_are_turned_as_by_a_matrix_product():
    rng = np.random.default_rng(0)
    points, matrices = rng.normal(size=(7, 5, 3)), rng.normal(size=(7, 3, 3))
    last = torch.from_numpy(points.transpose(1, 2, 0).copy())
    found = rotate(last, torch.from_numpy(matrices.transpose(1, 2, 0)))
    np.testing.assert_allclose(found.numpy().transpose(2, 0, 1), points @ matrices, rtol=1e-12)


@pytest.mark.parametrize("shape", [(3, 7), (5, 3, 7), (2, 5, 3, 0)], ids=str)
def test_vectors_are_crossed_and_measured_along_the_last_axis_but_one(shape):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, *shape))
    found = cross_product(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(found, np.cross(a, b, axis=-2), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(squared_lengths(torch.from_numpy(a)), (a**2).sum(axis=-2), rtol=1e-12)

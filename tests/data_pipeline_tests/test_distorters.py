import math

import numpy as np
import pytest
import scipy.stats
import torch

from data_pipeline import distorters
from data_pipeline.distorters import Distorter, GaussianDistorter, NoDistorter
from tests.support import (
    assert_is_described_by_its_arguments,
    case_id,
    cases,
    generator,
    global_random_states,
    hands,
)

ARGUMENTS = {GaussianDistorter: [{"std_mm": 10.0}, {"std_mm": 0}]}

CASES = cases(distorters, Distorter, ARGUMENTS)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_a_distorter_is_described_by_its_arguments(case):
    assert_is_described_by_its_arguments(*case)


class TestEveryDistorter:
    @pytest.fixture(params=CASES, ids=case_id)
    def distorter(self, request):
        member, arguments = request.param
        return member(**arguments)

    @pytest.fixture
    def poses(self, skeleton):
        return hands(skeleton, 20)[0]

    @pytest.fixture
    def labels(self, skeleton):
        return hands(skeleton, 20)[1]

    def test_does_not_write_to_its_inputs(self, distorter, poses, labels):
        before = poses.clone(), labels.clone()
        distorter(poses, labels, generator())
        assert torch.equal(poses, before[0])
        assert torch.equal(labels, before[1])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_keeps_shape_precision_and_device(self, distorter, poses, labels, dtype):
        distorted = distorter(poses.to(dtype), labels.to(dtype), generator())
        assert (distorted.shape, distorted.dtype, distorted.device) == (poses.shape, dtype, poses.device)

    def test_gives_the_same_bits_for_the_same_state_of_the_generator(self, distorter, poses, labels):
        first, second = generator(), generator(1)
        distorter(poses, labels, first)
        second.set_state(first.get_state())
        assert torch.equal(distorter(poses, labels, first), distorter(poses, labels, second))
        assert torch.equal(first.get_state(), second.get_state())

    def test_draws_from_its_generator_alone(self, distorter, poses, labels):
        states = global_random_states()
        first = distorter(poses, labels, generator())
        assert global_random_states() == states
        torch.manual_seed(99)
        assert torch.equal(distorter(poses, labels, generator()), first)

    def test_says_whether_it_makes_an_input_out_of_a_label(self, distorter, labels):
        changes = not torch.equal(distorter(labels, labels, generator()), labels)
        assert distorter.makes_input is changes

    def test_distorts_anew_each_time_if_at_all(self, distorter, poses, labels):
        source = generator()
        first, second = distorter(poses, labels, source), distorter(poses, labels, source)
        assert torch.equal(first, second) is not distorter.makes_input


def test_no_distorter_leaves_the_input_as_it_is(skeleton):
    poses, labels = hands(skeleton, 5)
    assert torch.equal(NoDistorter()(poses, labels, generator()), poses)


class TestGaussianDistorter:
    @pytest.fixture(params=[0.5, 10.0])
    def std_mm(self, request):
        return request.param

    @pytest.fixture
    def noise(self, skeleton, std_mm):
        poses, labels = hands(skeleton, 4000, dtype=torch.float64)
        return (GaussianDistorter(std_mm=std_mm)(poses, labels, generator()) - poses).numpy()

    def test_adds_noise_of_mean_zero_and_the_standard_deviation_that_is_asked_for(self, noise, std_mm):
        # Four standard errors of mean and standard deviation.
        assert abs(noise.mean()) < 4 * std_mm / math.sqrt(noise.size)
        assert abs(noise.std() - std_mm) < 4 * std_mm / math.sqrt(2 * noise.size)

    def test_adds_normal_noise(self, noise, std_mm):
        assert scipy.stats.kstest(noise.ravel() / std_mm, "norm").pvalue > 1e-3

    def test_adds_noise_that_is_independent_between_coordinates(self, noise):
        correlations = np.corrcoef(noise.reshape(len(noise), -1), rowvar=False)
        off_diagonal = correlations[np.triu_indices_from(correlations, k=1)]
        # Five standard errors: of the largest skeleton there are 1,953 pairs.
        assert np.abs(off_diagonal).max() < 5 / math.sqrt(len(noise))

    @pytest.mark.parametrize("std_mm", [-1, -0.001, math.nan, math.inf])
    def test_refuses_what_is_no_standard_deviation(self, std_mm):
        with pytest.raises(ValueError, match=rf"std_mm must be .*at least 0.*not {std_mm}"):
            GaussianDistorter(std_mm=std_mm)

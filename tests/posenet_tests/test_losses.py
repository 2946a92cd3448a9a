import itertools
import math
import pickle

import numpy as np
import pytest
import torch

from data_pipeline.skeleton import HANDS17
from posenet import errors, losses
from posenet.losses import CombinedLoss, Loss, MetricLoss
from posenet.metrics import MODES
from tests.posenet_tests.test_errors import ERRORS
from tests.support import assert_is_encoded_by_its_arguments, cases, hands, on_skeletons

PARTS = [
    (errors.coordinate_difference, 1, "absolute"),
    (errors.bone_length_error, 0.1, "squared"),
    (errors.proportion_error, 2.5, "absolute"),
]

ARGUMENTS = {
    MetricLoss: [{}, *({"error": error, "mode": mode} for error, mode in itertools.product(ERRORS, MODES))],
    CombinedLoss: [{"parts": PARTS}, {"parts": PARTS[:1]}],
}

CASES = cases(losses, Loss, ARGUMENTS)


def loss_id(case):
    member, arguments = case
    return repr(member(**arguments))


def numpy_errors(error, poses, labels, skeleton):
    """The errors of all samples, (N, K), with NumPy alone."""
    if error is errors.coordinate_difference:
        return (poses - labels).reshape(len(poses), -1)
    if error is errors.distance_error:
        return np.sqrt(((poses - labels) ** 2).sum(axis=2))
    start, end = np.array(skeleton.bones).T
    a, b = (np.sqrt(((hand[:, end] - hand[:, start]) ** 2).sum(axis=2)) for hand in (poses, labels))
    if error is errors.bone_length_error:
        return a - b
    pairs = [a[:, i] / a[:, j] / (b[:, i] / b[:, j]) for i, j in itertools.combinations(range(len(start)), 2)]
    ratios = np.stack(pairs, axis=1)
    return np.clip(np.maximum(ratios, 1 / ratios) - 1, 0, 10)


def numpy_loss(error, mode, poses, labels, skeleton):
    values = numpy_errors(error, poses.numpy(), labels.numpy(), skeleton)
    return (np.abs(values) if mode == "absolute" else values**2).mean(axis=1).mean()


@pytest.mark.parametrize("case", CASES, ids=loss_id)
class TestEveryLoss:
    @pytest.fixture
    def loss(self, case):
        member, arguments = case
        return member(**arguments)

    def test_is_encoded_by_its_arguments(self, case):
        assert_is_encoded_by_its_arguments(*case)

    def test_prints_as_the_script_that_makes_an_equal_one(self, loss):
        names = {"errors": errors, "MetricLoss": MetricLoss, "CombinedLoss": CombinedLoss}
        assert eval(repr(loss), names) == loss

    def test_equals_only_a_loss_of_the_same_value(self, case, loss):
        others = [member(**arguments) for member, arguments in CASES if (member, arguments) != case]
        # The default value may also be given.
        others = [other for other in others if repr(other) != repr(loss)]
        assert len(others) >= len(CASES) - 2
        assert loss not in others
        assert len({loss, *others}) == len({repr(other) for other in others}) + 1

    def test_is_equal_after_pickling(self, loss):
        assert pickle.loads(pickle.dumps(loss)) == loss


@pytest.mark.parametrize(
    ("case", "skeleton"), on_skeletons(CASES), ids=lambda value: getattr(value, "name", None) or loss_id(value)
)
class TestEveryLossOnHands:
    @pytest.fixture
    def loss(self, case):
        member, arguments = case
        return member(**arguments)

    def test_is_a_scalar(self, loss, skeleton):
        value = loss(*hands(skeleton, 4), skeleton)
        assert (value.shape, value.dtype) == ((), torch.float32)

    def test_is_zero_with_a_finite_gradient_where_pose_and_label_are_the_same(self, loss, skeleton):
        _, labels = hands(skeleton, 4)
        poses = labels.clone().requires_grad_()
        value = loss(poses, labels, skeleton)
        value.backward()
        assert value.item() == 0
        assert poses.grad.isfinite().all()

    def test_has_a_gradient_for_every_sample_where_pose_and_label_differ(self, loss, skeleton):
        poses, labels = hands(skeleton, 4)
        loss(poses.requires_grad_(), labels, skeleton).backward()
        assert poses.grad.isfinite().all()
        assert poses.grad.flatten(1).any(dim=1).all()

    def test_falls_along_its_gradient(self, loss, skeleton):
        poses, labels = hands(skeleton, 4, dtype=torch.float64)
        before = loss(poses.requires_grad_(), labels, skeleton)
        before.backward()
        step = 1e-3 / poses.grad.norm()
        assert loss(poses - step * poses.grad, labels, skeleton) < before

    def test_of_a_batch_is_the_mean_of_the_losses_of_its_samples(self, loss, skeleton):
        poses, labels = hands(skeleton, 6, dtype=torch.float64)
        alone = [loss(poses[i : i + 1], labels[i : i + 1], skeleton) for i in range(6)]
        torch.testing.assert_close(loss(poses, labels, skeleton), torch.stack(alone).mean())

    def test_does_not_write_to_its_inputs(self, loss, skeleton):
        poses, labels = hands(skeleton, 4)
        before = poses.clone(), labels.clone()
        loss(poses, labels, skeleton)
        assert torch.equal(poses, before[0])
        assert torch.equal(labels, before[1])


class TestMetricLoss:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
    def test_is_what_numpy_gives(self, error, mode, skeleton):
        poses, labels = hands(skeleton, 6, dtype=torch.float64)
        value = MetricLoss(error, mode)(poses, labels, skeleton)
        assert value.item() == pytest.approx(numpy_loss(error, mode, poses, labels, skeleton), rel=1e-9)

    def test_is_the_mean_distance_by_default(self, skeleton):
        assert MetricLoss() == MetricLoss(errors.distance_error, "absolute")
        poses, labels = hands(skeleton, 6)
        distance = (poses - labels).norm(dim=2).mean()
        torch.testing.assert_close(MetricLoss()(poses, labels, skeleton), distance)

    @pytest.mark.parametrize("mode", MODES)
    def test_does_not_let_a_long_and_a_short_bone_cancel(self, mode):
        """+10 % in one sample and −10 % in the next are 10 % each."""
        _, label = hands(HANDS17, 1)
        centred = label - label.mean(dim=1, keepdim=True)
        labels, poses = centred.repeat(2, 1, 1), torch.cat([1.1 * centred, 0.9 * centred])
        loss = MetricLoss(errors.bone_length_error, mode)
        one = loss(poses[:1], labels[:1], HANDS17)
        assert one > 1
        torch.testing.assert_close(loss(poses, labels, HANDS17), one, rtol=1e-3, atol=0)

    def test_takes_an_error_that_the_user_defines(self):
        loss = MetricLoss(depth_error, "squared")
        poses, labels = hands(HANDS17, 4)
        torch.testing.assert_close(loss(poses, labels, HANDS17), (poses - labels)[..., 2].square().mean())
        assert repr(loss) == "MetricLoss(depth_error, 'squared')"

    @pytest.mark.parametrize("error", [None, "distance_error", 1])
    def test_refuses_an_error_that_is_not_a_function(self, error):
        with pytest.raises(ValueError, match=rf"must be a function of posenet\.errors, not {error!r}"):
            MetricLoss(error)

    @pytest.mark.parametrize("mode", ["square", "", None, ["absolute"]])
    def test_refuses_an_unknown_mode(self, mode):
        with pytest.raises(ValueError, match=r"the mode must be one of 'absolute', 'squared', not "):
            MetricLoss(errors.distance_error, mode)


class TestCombinedLoss:
    def test_is_the_weighted_sum_that_numpy_gives(self, skeleton):
        poses, labels = hands(skeleton, 6, dtype=torch.float64)
        expected = sum(weight * numpy_loss(error, mode, poses, labels, skeleton) for error, weight, mode in PARTS)
        assert CombinedLoss(PARTS)(poses, labels, skeleton).item() == pytest.approx(expected, rel=1e-9)

    def test_of_one_part_with_weight_one_is_the_metric_loss(self, skeleton):
        poses, labels = hands(skeleton, 6)
        combined = CombinedLoss([(errors.distance_error, 1.0, "squared")])
        expected = MetricLoss(errors.distance_error, "squared")(poses, labels, skeleton)
        assert torch.equal(combined(poses, labels, skeleton), expected)

    def test_does_not_change_with_the_list_that_it_was_made_of(self):
        parts = [list(part) for part in PARTS]
        loss = CombinedLoss(parts)
        parts[0][1] = 1000
        parts.clear()
        assert loss == CombinedLoss(PARTS)

    @pytest.mark.parametrize(
        ("parts", "says"),
        [
            ([], "at least one"),
            ([(errors.distance_error, 1.0)], r"each part is \(error function, weight, mode\), not"),
            ([errors.distance_error], r"each part is \(error function, weight, mode\), not"),
            ([(errors.distance_error, 1.0, "square")], "the mode must be one of"),
            ([(None, 1.0, "squared")], "must be a function of posenet.errors"),
            *(
                ([PARTS[0], (errors.distance_error, weight, "squared")], "a weight must be a finite number, not")
                for weight in (math.nan, math.inf, "1", None, True)
            ),
        ],
    )
    def test_refuses_parts_that_are_none(self, parts, says):
        with pytest.raises(ValueError, match=says):
            CombinedLoss(parts)


def depth_error(poses, labels, skeleton):
    return (poses - labels)[..., 2]


@pytest.mark.parametrize("shape", [(), (4,)])
def test_an_error_without_numbers_for_each_sample_is_refused(shape):
    def total(poses, labels, skeleton):
        return torch.zeros(shape)

    poses, labels = hands(HANDS17, 4)
    with pytest.raises(
        ValueError, match=r"total returned a tensor of shape \(.*\) instead of \(N, K\) for N = 4 poses"
    ):
        MetricLoss(total)(poses, labels, HANDS17)

import itertools

import pytest
import torch

from data_pipeline.skeleton import HANDS17, Skeleton
from posenet.models import CorrectorFingerMLP
from tests.posenet_tests.models.support import n_parameters, seeded
from tests.support import generator


class TestCorrectorFingerMLP:
    @pytest.fixture
    def model(self, skeleton):
        return seeded(lambda: CorrectorFingerMLP(skeleton, hidden_dims=[16])).double()

    @pytest.fixture
    def poses(self, skeleton):
        return torch.randn(5, skeleton.n_joints, 3, dtype=torch.float64, generator=generator())

    def test_corrects_fingers_with_the_same_number_of_joints_in_the_same_way(self, model, poses, skeleton):
        """Two fingers that change places have each other's corrections."""
        for (_, one), (_, other) in itertools.combinations(skeleton.fingers, 2):
            if len(one) == len(other):
                swapped = poses.clone()
                swapped[:, one], swapped[:, other] = poses[:, other], poses[:, one]
                corrections = model.correction(poses)[:, one], model.correction(swapped)[:, other]
                torch.testing.assert_close(*corrections)

    def test_has_a_network_for_each_number_of_joints_of_a_finger_and_one_for_the_other_joints(self, skeleton, model):
        # Inputs, 16 hidden units and outputs: 3 coordinates of each joint.
        expected = {
            "HANDS17": [(15, 12), (63, 3)],  # four joints of a finger and the wrist; the wrist from 21 joints
            "ICVL": [(12, 9), (48, 3)],
            "NYU": [(15, 6), (18, 9), (42, 9)],  # four fingers, the thumb, and three joints of wrist and palm
        }
        counts = [16 * (n_in + 1) + n_out * 17 for n_in, n_out in expected[skeleton.name]]
        assert [n_parameters(group) for group in model.groups] == counts

    def test_corrects_a_finger_from_its_own_joints_and_those_on_no_finger(self, model, poses, skeleton):
        depends = torch.autograd.functional.jacobian(model.correction, poses[:1]).abs().sum(dim=(0, 2, 3, 5)) > 0
        on_fingers = {joint for _, joints in skeleton.fingers for joint in joints}
        others = set(range(skeleton.n_joints)) - on_fingers
        seen = {joint: {*joints, *others} for _, joints in skeleton.fingers for joint in joints}
        seen |= {joint: set(range(skeleton.n_joints)) for joint in others}
        assert {joint: set(row.nonzero().flatten().tolist()) for joint, row in enumerate(depends)} == seen

    def test_needs_no_joints_beside_the_fingers(self):
        fingers = (("one", (0, 2)), ("other", (1, 3)))
        skeleton = Skeleton("Pincers", ("a", "b", "c", "d"), bones=((0, 2), (1, 3)), fingers=fingers)
        model = CorrectorFingerMLP(skeleton, hidden_dims=[8])
        assert n_parameters(model) == 8 * 7 + 6 * 9
        assert model(torch.zeros(2, 4, 3)).shape == (2, 4, 3)

    @pytest.mark.parametrize(
        ("fingers", "says"),
        [
            ((), r"needs a skeleton with fingers, but Hand has none; name the joints .*Skeleton\(\.\.\., fingers="),
            ((("one", (1, 2)), ("two", (2, 3))), r"those of Hand are {'one': \(1, 2\), 'two': \(2, 3\)}"),
        ],
    )
    def test_refuses_a_skeleton_without_separate_fingers_and_says_why(self, fingers, says):
        skeleton = Skeleton("Hand", ("a", "b", "c", "d"), bones=((0, 1), (0, 2), (0, 3)), fingers=fingers)
        with pytest.raises(ValueError, match=says):
            CorrectorFingerMLP(skeleton, hidden_dims=[8])

    @pytest.mark.parametrize("wrong", [{"hidden_dims": [0]}, {"activation": "none"}, {"dropout": -1}])
    def test_refuses_settings_that_do_not_make_a_network(self, wrong):
        (name,) = wrong
        with pytest.raises(ValueError, match=name):
            CorrectorFingerMLP(HANDS17, **{"hidden_dims": [8], **wrong})

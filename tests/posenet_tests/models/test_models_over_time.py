import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from data_pipeline.batch import DeviceDataset, Window
from data_pipeline.frame_table import FrameTable
from data_pipeline.pose_dataset import PoseDataset
from data_pipeline.skeleton import HANDS17
from posenet.models import CorrectorLCN, GaussianSmoother, TemporalFilter, TemporalLCN
from tests.posenet_tests.models.support import FILTER, LCN, TEMPORAL_LCN, graph_distances, normalized_hands, seeded
from tests.support import generator

OVER_TIME = [(GaussianSmoother, {"sigma": 1.0}), (TemporalFilter, FILTER), (TemporalLCN, TEMPORAL_LCN)]


class TestModelsOverTime:
    def test_smooth_as_scipy_does(self):
        poses = normalized_hands(HANDS17, 40)[0]
        model = GaussianSmoother(HANDS17, sigma=2.0)
        smoothed = model(model.window.of_run(poses))
        expected = gaussian_filter1d(poses.double().numpy(), 2.0, axis=0, mode="nearest", radius=6)
        np.testing.assert_allclose(smoothed, expected, atol=1e-5)

    @pytest.mark.parametrize("model", [GaussianSmoother(HANDS17, sigma=2.0), TemporalFilter(HANDS17, **FILTER)])
    def test_move_with_the_hand(self, model):
        """A filter over time knows nothing of where the hand is."""
        windows = torch.randn(3, model.window.size, 21, 3, generator=generator(0))
        shift = torch.tensor([30.0, -20.0, 50.0])
        torch.testing.assert_close(model(windows + shift), model(windows) + shift, atol=1e-4, rtol=0)

    def test_of_a_filter_treat_all_coordinates_of_all_joints_alike(self):
        model = TemporalFilter(HANDS17, **FILTER).eval()
        windows = torch.randn(3, 5, 21, 3, generator=generator(0))
        order = torch.randperm(63, generator=generator(1))
        shuffled = windows.flatten(2)[:, :, order].view(3, 5, 21, 3)
        expected = model(windows).flatten(1)[:, order].view(3, 21, 3)
        torch.testing.assert_close(model(shuffled), expected)

    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("case", OVER_TIME, ids=lambda case: case[0].__name__)
    def test_see_later_frames_unless_they_are_causal_and_no_frames_of_other_runs(self, case, causal):
        member, arguments = case
        model = seeded(lambda: member(HANDS17, **{**arguments, "causal": causal})).eval()
        poses = normalized_hands(HANDS17, 12)[0]
        changed = poses.clone()
        changed[6:] += 1
        frames = FrameTable.of(sequence=["a"] * 5 + ["b"] * 7, index=[*range(5), *range(7)])
        corrected = []
        for points in (poses, changed):
            dataset = PoseDataset("two", points.numpy(), {"A": points.numpy()}, HANDS17, "", frames)
            data = DeviceDataset.of(dataset, torch.device("cpu"))
            corrected.append(model(points[data.window_rows(torch.arange(12), model.window)]))
        is_same = (corrected[0] == corrected[1]).all(dim=2).all(dim=1)
        # Row 5 is the first one of the second run, and row 6 follows it.
        assert is_same.tolist() == [True] * 5 + [causal] + [False] * 6

    def test_have_the_corrected_frame_in_the_middle_or_at_the_end(self):
        assert TemporalFilter(HANDS17, size=5).window == Window(2, 2)
        assert TemporalFilter(HANDS17, size=4, causal=True).window == Window(3, 0)
        assert TemporalLCN(HANDS17, size=5).window == Window(2, 2)
        assert GaussianSmoother(HANDS17, sigma=1.5).window == Window(5, 5)
        with pytest.raises(ValueError, match="size must be odd, so that the corrected frame is in the middle, not 4"):
            TemporalFilter(HANDS17, size=4)


class TestTemporalLCN:
    def test_with_one_filter_is_a_temporal_filter_and_then_a_locally_connected_network(self, skeleton):
        arguments = {**TEMPORAL_LCN, "n_filters": 1}
        model = seeded(lambda: TemporalLCN(skeleton, **arguments)).eval()
        over_time = TemporalFilter(skeleton, **{name: arguments[name] for name in FILTER}).eval()
        over_joints = CorrectorLCN(skeleton, **{name: arguments[name] for name in LCN}).eval()
        over_time.layers.load_state_dict(model.filter.state_dict())
        weights = model.state_dict()
        over_joints.load_state_dict({name: weights[name] for name in over_joints.state_dict()})
        windows = model.window.of_run(normalized_hands(skeleton, 8)[0])
        torch.testing.assert_close(model(windows), over_joints(over_time(windows)))

    def test_a_joint_depends_on_all_frames_of_the_joints_within_the_reach_of_its_layers_only(self, skeleton):
        model = seeded(lambda: TemporalLCN(skeleton, **TEMPORAL_LCN)).eval()
        windows = torch.randn(1, 5, skeleton.n_joints, 3, generator=generator())
        jacobian = torch.autograd.functional.jacobian(model.correction, windows)  # (1, J, 3, 1, W, J, 3)
        depends = jacobian.ne(0).any(dim=6).any(dim=2)[0, :, 0]  # (J, W, J)
        near = torch.tensor(graph_distances(skeleton) <= 4)  # four layers, each with the reach 1
        assert not near.all(), "the example shows nothing"
        assert torch.equal(depends, near.unsqueeze(1).expand_as(depends))

    def test_sees_how_a_joint_moves_and_not_only_where_it_is_after_smoothing(self):
        model = seeded(lambda: TemporalLCN(HANDS17, **{**TEMPORAL_LCN, "zero_init": True})).eval()
        torch.nn.init.normal_(model.last.weight)  # the first filter stays zero
        poses = normalized_hands(HANDS17, 5)[0]
        still = poses[2].expand(1, 5, -1, -1)
        assert not torch.allclose(model(poses.unsqueeze(0)), model(still))

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"size": 4}, "size must be odd, so that the corrected frame is in the middle, not 4"),
            ({"n_filters": 0}, "n_filters must be a whole number of at least 1, not 0"),
            ({"hidden_dims": 6}, "hidden_dims must be a list of widths of at least 1, not 6"),
            ({"reach": 0}, "reach must be a whole number of at least 1, not 0"),
            ({"dropout": 1}, "dropout must be a probability of at least 0 and below 1, not 1"),
        ],
    )
    def test_refuses_settings_that_do_not_make_a_network_and_says_why(self, wrong, says):
        with pytest.raises(ValueError, match=says):
            TemporalLCN(HANDS17, **{**TEMPORAL_LCN, **wrong})

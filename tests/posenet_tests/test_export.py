import warnings

import pytest
import torch

from data_pipeline.batch import Batch
from data_pipeline.normalizers import GlobalNormalizer, IndividualNormalizer, Shifter, ViewpointNormalizer
from data_pipeline.skeleton import HANDS17, NYU
from data_pipeline.user_error import UserError
from posenet import errors
from posenet.export import export_corrector
from posenet.models import (
    AgreementFusion,
    ClosedFormCorrector,
    CorrectorFingerMLP,
    CorrectorGNN,
    CorrectorLCN,
    CorrectorMLP,
    CorrectorTransformer,
    GlobalShiftMLP,
    KernelCorrector,
    TemporalLCN,
)
from posenet.pose_corrector import Ensemble, PoseCorrector
from tests.support import hands

GNN = {
    **{"n_iter": 2, "latent_dim": 4, "message_dims": [4]},
    **{"encoder": "per_joint", "encoder_dims": [4], "decoder": "whole_pose", "decoder_dims": [4]},
}

KERNEL = {"bandwidth": 100.0, "ridge": 0.1, "n_centres": 8}

CASES = [
    (HANDS17, CorrectorMLP, {"hidden_dims": [8], "batchnorm": True, "dropout": 0.1}, None),
    (HANDS17, GlobalShiftMLP, {"hidden_dims": [8]}, Shifter),
    (NYU, CorrectorFingerMLP, {"hidden_dims": [8]}, Shifter),
    (HANDS17, CorrectorGNN, GNN, ViewpointNormalizer),
    (NYU, CorrectorLCN, {"dim": 4, "n_blocks": 1, "reach": 2}, IndividualNormalizer),
    (NYU, TemporalLCN, {"size": 5, "dim": 4, "zero_init": False}, ViewpointNormalizer),
    (NYU, KernelCorrector, KERNEL, Shifter),
    (NYU, KernelCorrector, {**KERNEL, "sigma": 0.7, "hand_bandwidth": 30.0}, None),
    (NYU, CorrectorTransformer, {"dim": 8, "n_layers": 1, "n_heads": 2, "feedforward_dim": 8}, GlobalNormalizer),
]


def corrector_of(skeleton, model, arguments, normalizer):
    normalizer = None if normalizer is None else normalizer(skeleton)
    if normalizer is not None:
        normalizer.fit([hands(skeleton, 50, seed=9)[0]])
    model = model(skeleton, **arguments)
    if isinstance(model, ClosedFormCorrector):
        batch = Batch.of(*hands(skeleton, 50, seed=9), normalizer)
        model.add(batch.poses if model.window is None else model.window.of_run(batch.poses), batch.labels)
        model.fit()
    return PoseCorrector(model, normalizer).eval().requires_grad_(False)


class Branching(torch.nn.Module):
    """Branches on its input numbers."""

    def forward(self, poses):
        return poses * 2 if poses.sum() > 0 else poses


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[1].__name__)
def test_an_exported_corrector_of_each_kind_corrects_any_number_of_poses_as_before(case, tmp_path):
    corrector = corrector_of(*case)
    errors._bone_ends.cache_clear()  # as in a process that has only read the corrector
    export_corrector(corrector, case[0], tmp_path / "corrector.pt2")
    exported = torch.export.load(tmp_path / "corrector.pt2").module()
    for n in (1, 2, 9):
        poses, _ = hands(case[0], n)
        torch.testing.assert_close(exported(poses), corrector(poses), rtol=0, atol=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["corrector.pt2"]


@pytest.mark.slow
def test_an_exported_round_of_messages_has_fewer_operations_than_messages(tmp_path):
    n_operations = []
    for n_iter in (1, 2):
        corrector = corrector_of(HANDS17, CorrectorGNN, {**GNN, "n_iter": n_iter}, None)
        export_corrector(corrector, HANDS17, tmp_path / "corrector.pt2")
        n_operations.append(len(torch.export.load(tmp_path / "corrector.pt2").graph.nodes))
    assert n_operations[1] - n_operations[0] < sum(map(len, HANDS17.neighbours))


@pytest.mark.slow
def test_an_exported_corrector_that_fuses_subsets_takes_all_of_them(tmp_path):
    model = AgreementFusion(HANDS17, n_subsets=3, sigma=1.0, zero_init=False)
    corrector = PoseCorrector(model, ViewpointNormalizer(HANDS17)).eval().requires_grad_(False)
    export_corrector(corrector, HANDS17, tmp_path / "corrector.pt2", n_subsets=3)
    exported = torch.export.load(tmp_path / "corrector.pt2").module()
    for n in (1, 9):
        poses = torch.stack([hands(HANDS17, n, seed)[0] for seed in range(3)], dim=1)  # (n, 3, J, 3)
        torch.testing.assert_close(exported(poses), corrector(poses), rtol=0, atol=1e-3)


@pytest.mark.slow
def test_what_looks_at_its_numbers_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(UserError, match=r"cannot be exported by torch\.export: "):
        export_corrector(Branching(), HANDS17, tmp_path / "corrector.pt2")
    assert not list(tmp_path.iterdir())


def test_an_ensemble_returns_the_mean_and_none_of_its_members_sees_what_another_did():
    class Adds(torch.nn.Module):
        def __init__(self, shift):
            super().__init__()
            self.shift = shift

        def forward(self, poses):
            return poses.add_(self.shift)

    poses, _ = hands(HANDS17, 3)
    before = poses.clone()
    ensemble = Ensemble([PoseCorrector(Adds(shift), None) for shift in (1.0, 2.0, 6.0)])
    torch.testing.assert_close(ensemble(poses), before + 3)
    assert torch.equal(poses, before)


def test_another_ending_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(UserError, match=r"must end in one of \.pt2, \.onnx"):
        export_corrector(corrector_of(*CASES[0]), HANDS17, tmp_path / "corrector.pth")


def test_exporting_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_corrector(corrector_of(*CASES[1]), HANDS17, tmp_path / "corrector.pt2")

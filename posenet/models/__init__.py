"""Correctors: networks that take poses (N, J, 3) and return corrected poses of the same shape."""

from posenet.models.corrector import ClosedFormCorrector, Corrector, FusingCorrector, TemporalCorrector
from posenet.models.corrector_finger_mlp import CorrectorFingerMLP
from posenet.models.corrector_gnn import CorrectorGNN
from posenet.models.corrector_lcn import CorrectorLCN
from posenet.models.corrector_mlp import CorrectorMLP
from posenet.models.corrector_transformer import CorrectorTransformer
from posenet.models.fusion import AgreementFusion, MeanFusion, SteadinessFusion, WeightedFusion
from posenet.models.gaussian_smoother import GaussianSmoother
from posenet.models.global_shift_mlp import GlobalShiftMLP
from posenet.models.kernel_corrector import KernelCorrector
from posenet.models.temporal_filter import TemporalFilter
from posenet.models.temporal_lcn import TemporalLCN

__all__ = [
    "AgreementFusion",
    "ClosedFormCorrector",
    "Corrector",
    "CorrectorFingerMLP",
    "CorrectorGNN",
    "CorrectorLCN",
    "CorrectorMLP",
    "CorrectorTransformer",
    "FusingCorrector",
    "GaussianSmoother",
    "GlobalShiftMLP",
    "KernelCorrector",
    "MeanFusion",
    "SteadinessFusion",
    "TemporalCorrector",
    "TemporalFilter",
    "TemporalLCN",
    "WeightedFusion",
]

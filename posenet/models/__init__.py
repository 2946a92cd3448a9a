"""Correctors: networks that take poses (N, J, 3) and return poses of the same shape, a little less wrong."""

from posenet.models.corrector import Corrector
from posenet.models.corrector_mlp import CorrectorMLP

__all__ = ["Corrector", "CorrectorMLP"]

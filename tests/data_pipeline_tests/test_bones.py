import numpy as np
import pytest

from data_pipeline.bones import bone_lengths, bone_names, guess_unit
from tests.support import hands


def test_bones_are_as_long_as_by_hand(skeleton):
    poses, _ = hands(skeleton, 4)
    lengths = bone_lengths(poses.numpy(), skeleton)
    for b, (first, second) in enumerate(skeleton.bones):
        difference = poses[:, first] - poses[:, second]
        np.testing.assert_allclose(lengths[:, b], difference.norm(dim=1), rtol=1e-5)
    assert len(set(bone_names(skeleton))) == len(skeleton.bones)


@pytest.mark.parametrize(
    ("length", "unit"),
    [(0.03, "metres"), (3.0, "centimetres"), (3e4, "micrometres"), (30.0, None), (300.0, None), (0.0, None)],
)
def test_the_unit_is_guessed_from_a_length_that_only_it_makes_usual(length, unit):
    """30 mm needs no guess."""
    assert guess_unit(length, 20.0, 50.0) == unit

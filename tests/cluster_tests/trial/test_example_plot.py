import io

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from cluster.trial.example_plot import plot_examples
from data_pipeline.skeleton import HANDS17, ICVL, NYU


def hands(n, skeleton, seed):
    return np.random.default_rng(seed).normal(scale=40, size=(n, skeleton.n_joints, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def no_screen():
    before = mpl.get_backend()
    mpl.use("agg")
    yield
    mpl.use(before)


@pytest.mark.parametrize(
    ("skeleton", "n"), [(HANDS17, 1), (ICVL, 2), (NYU, 9)], ids=lambda value: getattr(value, "name", value)
)
def test_a_picture_of_up_to_six_examples_opens(skeleton, n):
    poses, labels = hands(n, skeleton, 0), hands(n, skeleton, 1)
    before = poses.copy(), labels.copy()
    picture = plot_examples(poses, poses + 1, labels, skeleton, title="trial [x], epoch 1")
    with Image.open(io.BytesIO(picture)) as image:
        image.load()
        assert image.format == "PNG"
        assert image.width == 600 * min(n, 6)
        assert len(image.convert("RGB").getcolors(2**20)) > 3  # three skeletons on white
    np.testing.assert_array_equal(poses, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_a_picture_leaves_no_figure_behind():
    import matplotlib.pyplot as plt

    poses = hands(1, NYU, 0)
    plot_examples(poses, poses, poses, NYU, title="")
    assert plt.get_fignums() == []

from itertools import pairwise

import numpy as np
import pytest

from data_pipeline.formats.joint_orders import MSRA15, OPENPOSE
from data_pipeline.skeleton import HANDS17

ORDERS = {"MSRA15": MSRA15, "OPENPOSE": OPENPOSE}

# Chains from the wrist outwards, with joint numbers from the datasets' papers and examples.
CHAINS = {
    "MSRA15": {
        "index": (0, 1, 2, 3, 4),
        "middle": (0, 5, 6, 7, 8),
        "ring": (0, 9, 10, 11, 12),
        "pinky": (0, 13, 14, 15, 16),
        "thumb": (0, 17, 18, 19, 20),
    },
    "OPENPOSE": {
        "thumb": (0, 1, 2, 3, 4),
        "index": (0, 5, 6, 7, 8),
        "middle": (0, 9, 10, 11, 12),
        "ring": (0, 13, 14, 15, 16),
        "pinky": (0, 17, 18, 19, 20),
    },
}


@pytest.fixture(params=ORDERS)
def name(request):
    return request.param


@pytest.fixture
def order(name):
    return ORDERS[name]


class TestEveryOrder:
    def test_is_a_permutation_of_the_joints(self, order):
        assert sorted(order.joint_names) == sorted(HANDS17.joint_names)
        assert sorted(order.in_hands17) == sorted(order.of_hands17) == list(range(21))

    def test_there_and_back_is_where_one_was(self, order):
        poses = np.random.default_rng(0).normal(size=(4, 21, 3))
        np.testing.assert_array_equal(order.from_hands17(order.to_hands17(poses)), poses)
        np.testing.assert_array_equal(order.to_hands17(order.from_hands17(poses)), poses)

    def test_puts_each_joint_under_its_name(self, order):
        numbered = np.broadcast_to(np.arange(21.0)[:, None], (1, 21, 3))
        for place, joint in enumerate(order.to_hands17(numbered)[0, :, 0]):
            assert order.joint_names[int(joint)] == HANDS17.joint_names[place]

    def test_brings_bones_to_bones_and_fingers_to_fingers(self, name, order):
        places = {joint: int(place) for joint, place in enumerate(order.in_hands17)}
        bones, fingers = set(), {}
        for finger, chain in CHAINS[name].items():
            moved = [places[joint] for joint in chain]
            bones |= set(pairwise(moved))
            fingers[finger] = tuple(moved[1:])
        assert bones == set(HANDS17.bones)
        assert fingers == dict(HANDS17.fingers)


def test_msra15_in_hands17s_order_is_as_published():
    published = [0, 17, 1, 5, 9, 13, 18, 19, 20, 2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16]
    assert MSRA15.of_hands17.tolist() == published


def test_hands17_in_the_order_of_openpose_is_as_published():
    published = [0, 1, 6, 7, 8, 2, 9, 10, 11, 3, 12, 13, 14, 4, 15, 16, 17, 5, 18, 19, 20]
    assert OPENPOSE.in_hands17.tolist() == published

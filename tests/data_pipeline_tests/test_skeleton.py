import itertools
import re

import pytest

from data_pipeline.skeleton import HANDS17, ICVL, NYU, Palm, Skeleton, register_skeleton, skeleton_for
from data_pipeline.user_error import UserError

ALL = [HANDS17, ICVL, NYU]


@pytest.mark.parametrize("skeleton", ALL, ids=lambda s: s.name)
class TestEverySkeleton:
    def test_is_chosen_by_its_number_of_joints(self, skeleton):
        assert skeleton_for(skeleton.n_joints) is skeleton

    def test_has_bones_that_form_a_tree_over_all_joints(self, skeleton):
        reached = {skeleton.bones[0][0]}
        for _ in skeleton.bones:
            reached |= {j for bone in skeleton.bones if reached & set(bone) for j in bone}
        assert reached == set(range(skeleton.n_joints))
        assert len(skeleton.bones) == skeleton.n_joints - 1

    def test_names_each_joint_once(self, skeleton):
        assert len(set(skeleton.joint_names)) == skeleton.n_joints

    def test_has_five_fingers_that_run_along_bones_and_share_no_joint(self, skeleton):
        assert [name for name, _ in skeleton.fingers] == ["thumb", "index", "middle", "ring", "pinky"]
        bones = {frozenset(bone) for bone in skeleton.bones}
        for _, joints in skeleton.fingers:
            assert all(frozenset(pair) in bones for pair in itertools.pairwise(joints))
        joints = [joint for _, finger in skeleton.fingers for joint in finger]
        assert len(joints) == len(set(joints))

    def test_has_a_palm_between_the_arm_and_the_fingers(self, skeleton):
        """It contains no joint of a finger except the first."""
        inner = {joint for _, joints in skeleton.fingers for joint in joints[1:]}
        assert len(set(skeleton.palm.outline)) == len(skeleton.palm.outline) >= 3
        assert not inner & set(skeleton.palm.outline)

    def test_cannot_be_changed(self, skeleton):
        with pytest.raises(AttributeError):
            skeleton.name = "other"


def test_hands17_messages_pass_between_neighbouring_knuckles_too():
    assert set(HANDS17.message_edges) - set(HANDS17.bones) == {(1, 2), (2, 3), (3, 4), (4, 5)}


def test_an_unknown_number_of_joints_is_an_error_that_says_how_to_register_one():
    with pytest.raises(UserError, match=r"17 joints.*14 \(NYU\).*register_skeleton"):
        skeleton_for(17)


def test_a_registered_skeleton_is_found(monkeypatch):
    monkeypatch.setattr("data_pipeline.skeleton._SKELETONS", {})
    finger = Skeleton("finger", ("root", "middle", "tip"), bones=((0, 1), (1, 2)))
    register_skeleton(finger)
    assert skeleton_for(3) is finger


def test_a_bone_to_a_joint_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"\(0, 3\)"):
        Skeleton("broken", ("root", "middle", "tip"), bones=((0, 1), (0, 3)))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"joint_names": ("a", "b", "a")}, "'a' is the name of two joints or fingers"),
        ({"fingers": (("b", (1, 2)),)}, "'b' is the name of two joints or fingers"),
        ({"fingers": (("thumb", (1,)), ("thumb", (2,)))}, "'thumb' is the name of two joints or fingers"),
        ({"fingers": (("thumb", (1, 3)),)}, "the finger 'thumb' needs joints of its 3"),
        ({"fingers": (("thumb", ()),)}, "the finger 'thumb' needs joints of its 3"),
        ({"bones": ((0, 1),)}, "at least 2 bones, not 1"),
    ],
)
def test_what_metrics_could_not_name_or_measure_is_refused(changed, says):
    usual = {"joint_names": ("a", "b", "c"), "bones": ((0, 1), (1, 2))}
    Skeleton("fine", **usual)
    with pytest.raises(ValueError, match=re.escape(says)):
        Skeleton("broken", **usual | changed)


@pytest.mark.parametrize(
    ("base", "knuckles", "says"),
    [
        ((0,), (1,), "at least 3 different joints of 4"),
        ((0,), (1, 1), "at least 3 different"),
        ((0,), (1, 4), "at least 3 different"),
        ((0,), (-1, 2), "at least 3 different"),
        ((), (1, 2, 3), "needs joints in both base and knuckles"),
        ((1, 2, 3), (), "needs joints in both base and knuckles"),
    ],
)
def test_a_palm_without_an_outline_is_refused(base, knuckles, says):
    with pytest.raises(ValueError, match=rf"skeleton small: .*{says}"):
        Skeleton("small", ("a", "b", "c", "d"), bones=((0, 1), (0, 2)), palm=Palm(base, knuckles))

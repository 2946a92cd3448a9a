"""Skeletons: the joints of a pose, the bones between them, and the edges for message passing.

Joint orders and bones are those of the datasets' publications: HANDS17 (Yuan et al., 2017), ICVL (Tang et
al., 2014) and NYU (Tompson et al., 2014; the 14 evaluated joints of 36).
"""

from dataclasses import dataclass, field

from data_pipeline.user_error import UserError


@dataclass(frozen=True)
class Palm:
    """Joints of the palm's outline: `base` followed by `knuckles` goes once around the palm.

    For a right hand in a right-handed frame (x right, y down, z forward) the outline's normal points out of the palm.
    For a left hand, or in a left-handed frame such as NYU's with y up, it points out of the back of the hand. This only
    matters for comparisons between hands of both kinds: no rotation turns one into the other.

    Attributes:
        base: Joints towards the arm, from the pinky side to the thumb side.
        knuckles: Joints towards the fingers, from the index finger to the pinky.
    """

    base: tuple[int, ...]
    knuckles: tuple[int, ...]

    @property
    def outline(self) -> tuple[int, ...]:
        """All joints, in the order of the outline."""
        return self.base + self.knuckles


@dataclass(frozen=True)
class Skeleton:
    """The joints of a hand and their connections.

    Metrics have the names of joints and fingers, so these must differ.

    Attributes:
        name: The dataset that introduced it.
        joint_names: One name for each of the J joints, in array order.
        bones: Pairs of joints (a, b), the B bones; at least two, whose lengths can be compared.
        extra_edges: Pairs of joints that exchange messages without a bone between them.
        fingers: Name and joints of each finger, from the palm outwards.
        palm: The joints that determine the orientation of the palm; None if the pose has no palm.
    """

    name: str
    joint_names: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    extra_edges: tuple[tuple[int, int], ...] = ()
    fingers: tuple[tuple[str, tuple[int, ...]], ...] = field(default=())
    palm: Palm | None = None

    def __post_init__(self) -> None:
        names = [*self.joint_names, *(name for name, _ in self.fingers)]
        if twice := [name for place, name in enumerate(names) if name in names[:place]]:
            raise ValueError(f"skeleton {self.name}: {twice[0]!r} is the name of two joints or fingers")
        if len(self.bones) < 2:
            raise ValueError(f"skeleton {self.name} needs at least 2 bones, not {len(self.bones)}")
        for finger, joints in self.fingers:
            if not joints or not set(joints) <= set(range(self.n_joints)):
                raise ValueError(f"skeleton {self.name}: the finger {finger!r} needs joints of its {self.n_joints}")
        for edge in self.message_edges:
            if edge[0] == edge[1] or not all(0 <= joint < self.n_joints for joint in edge):
                raise ValueError(f"skeleton {self.name}: {edge} does not join two of its {self.n_joints} joints")
        if self.palm is not None:
            outline = self.palm.outline
            if len(set(outline)) < max(3, len(outline)) or not set(outline) <= set(range(self.n_joints)):
                raise ValueError(
                    f"skeleton {self.name}: the outline of the palm must be at least 3 different joints of "
                    f"{self.n_joints}, not {outline}"
                )
            if not self.palm.base or not self.palm.knuckles:
                raise ValueError(f"skeleton {self.name}: the palm needs joints in both base and knuckles: {self.palm}")

    @property
    def n_joints(self) -> int:
        """J, the number of joints."""
        return len(self.joint_names)

    @property
    def message_edges(self) -> tuple[tuple[int, int], ...]:
        """The edges of the message-passing graph: all bones and the extra edges."""
        return self.bones + self.extra_edges

    @property
    def neighbours(self) -> tuple[tuple[int, ...], ...]:
        """The joints that exchange messages with each joint, ascending."""
        found: list[set[int]] = [set() for _ in self.joint_names]
        for a, b in self.message_edges:
            found[a].add(b)
            found[b].add(a)
        return tuple(tuple(sorted(joints)) for joints in found)


HANDS17 = Skeleton(
    name="HANDS17",
    joint_names=(
        *("W", "TMCP", "IMCP", "MMCP", "RMCP", "PMCP"),
        *("TPIP", "TDIP", "TTIP", "IPIP", "IDIP", "ITIP", "MPIP", "MDIP", "MTIP"),
        *("RPIP", "RDIP", "RTIP", "PPIP", "PDIP", "PTIP"),
    ),
    bones=(
        *((0, 1), (0, 2), (0, 3), (0, 4), (0, 5)),
        *((1, 6), (6, 7), (7, 8)),
        *((2, 9), (9, 10), (10, 11)),
        *((3, 12), (12, 13), (13, 14)),
        *((4, 15), (15, 16), (16, 17)),
        *((5, 18), (18, 19), (19, 20)),
    ),
    extra_edges=((1, 2), (2, 3), (3, 4), (4, 5)),
    fingers=(
        ("thumb", (1, 6, 7, 8)),
        ("index", (2, 9, 10, 11)),
        ("middle", (3, 12, 13, 14)),
        ("ring", (4, 15, 16, 17)),
        ("pinky", (5, 18, 19, 20)),
    ),
    palm=Palm(base=(0,), knuckles=(2, 3, 4, 5)),
)

ICVL = Skeleton(
    name="ICVL",
    joint_names=(
        "palm",
        *("thumb_root", "thumb_mid", "thumb_tip", "index_root", "index_mid", "index_tip"),
        *("middle_root", "middle_mid", "middle_tip", "ring_root", "ring_mid", "ring_tip"),
        *("pinky_root", "pinky_mid", "pinky_tip"),
    ),
    bones=(
        *((0, 1), (1, 2), (2, 3)),
        *((0, 4), (4, 5), (5, 6)),
        *((0, 7), (7, 8), (8, 9)),
        *((0, 10), (10, 11), (11, 12)),
        *((0, 13), (13, 14), (14, 15)),
    ),
    fingers=(
        ("thumb", (1, 2, 3)),
        ("index", (4, 5, 6)),
        ("middle", (7, 8, 9)),
        ("ring", (10, 11, 12)),
        ("pinky", (13, 14, 15)),
    ),
    palm=Palm(base=(0,), knuckles=(4, 7, 10, 13)),
)

NYU = Skeleton(
    name="NYU",
    joint_names=(
        *("pinky_tip", "pinky_mid", "ring_tip", "ring_mid", "middle_tip", "middle_mid"),
        *("index_tip", "index_mid", "thumb_tip", "thumb_mid", "thumb_root"),
        *("wrist_1", "wrist_2", "palm"),
    ),
    bones=(
        *((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (9, 10)),
        *((1, 13), (3, 13), (5, 13), (7, 13), (10, 13), (11, 13), (12, 13)),
    ),
    fingers=(
        ("thumb", (10, 9, 8)),
        ("index", (7, 6)),
        ("middle", (5, 4)),
        ("ring", (3, 2)),
        ("pinky", (1, 0)),
    ),
    # Wrist 1 is on the pinky side. The triangle is the same in all frames of a subject, with sides of 30 mm and 67 mm.
    palm=Palm(base=(11, 12), knuckles=(13,)),
)

BUILT_IN = (HANDS17, ICVL, NYU)
"""The skeletons that are registered from the start."""

_SKELETONS = {skeleton.n_joints: skeleton for skeleton in BUILT_IN}


def register_skeleton(skeleton: Skeleton) -> None:
    """Registers `skeleton` for poses with `skeleton.n_joints` joints in this process.

    A run script calls it before it creates its `Experiment`; the workers receive the skeleton with the data.
    """
    _SKELETONS[skeleton.n_joints] = skeleton


def skeleton_for(n_joints: int) -> Skeleton:
    """Returns the skeleton of poses with `n_joints` joints.

    Raises:
        UserError: If there is none; the message says how to register one.
    """
    if n_joints not in _SKELETONS:
        known = ", ".join(f"{n} ({skeleton.name})" for n, skeleton in sorted(_SKELETONS.items()))
        raise UserError(
            f"there is no skeleton with {n_joints} joints; known: {known}. To add another one, call "
            "data_pipeline.skeleton.register_skeleton(Skeleton(name=..., joint_names=..., bones=...)) at the "
            "top of the script."
        )
    return _SKELETONS[n_joints]

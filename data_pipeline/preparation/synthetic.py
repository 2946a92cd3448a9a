"""Synthetic data: hands that move realistically, and simulated backbones that predict them with errors.

It replaces recorded data in tests, examples and benchmarks: any number of frames and backbones, from a seed. Each hand
is a right hand with the 21 joints of HANDS17, made by forward kinematics. The *hand frame* has its origin at the wrist,
x towards the thumb's side, y towards the fingers and z out of the palm. Fingers may pass through each other: there is
no collision check.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.pose_dataset import Array
from data_pipeline.skeleton import HANDS17

SEQUENCE_LENGTH = 200
"""Frames of a sequence. Each sequence shows another subject; the hand jumps between sequences."""

CONFUSION_RATE = 0.03
"""Fraction of frames in which a backbone places the end of a finger on an adjacent finger."""

CONFUSION_LENGTH = 10
"""Duration of such a confusion in frames."""

_Numbers = npt.NDArray[np.floating[Any]]

_KEY_DISTANCE = 25  # frames from one random pose to the next: 0.8 s at 30 frames per second
_SEQUENCES_PER_BLOCK = 20  # computed together; small arrays stay in the CPU cache
_BLOCK_LENGTH = _SEQUENCES_PER_BLOCK * SEQUENCE_LENGTH

_FINGERS = np.array([joints for _, joints in HANDS17.fingers])  # (5, 4), thumb to pinky, from the palm outwards
_WRIST, _INDEX_KNUCKLE, _MIDDLE_KNUCKLE, _PINKY_KNUCKLE = map(HANDS17.joint_names.index, ("W", "IMCP", "MMCP", "PMCP"))

# Millimetres, one row for each finger, from the wrist outwards. Metacarpals and phalanges are the means of 66
# adults in Buryanov and Kotiuk, "Proportions of Hand Segments", Int. J. Morphol. 28(3), 2010; the last phalanx
# includes the soft tissue beyond it. The thumb's first number is the distance from the wrist to the saddle joint, those
# of the other fingers are the metacarpal plus 25 mm of carpus; the distance and the 25 mm are typical adult values.
_BONE_LENGTHS = np.array(
    [
        [30.0, 46.2, 31.6, 27.3],
        [93.1, 39.8, 22.4, 19.7],
        [89.6, 44.6, 26.3, 21.4],
        [83.0, 41.4, 25.7, 21.3],
        [78.7, 32.7, 18.1, 19.7],
    ],
    dtype=np.float32,
)

# Degrees. The direction of the first bone of each finger: from y towards x, then from there out of the palm.
# Typical values; the palm is rigid and a little hollow.
_PALM = np.array([[48, 15], [14, 0], [1, -3], [-11, -2], [-24, 3]], dtype=np.float32)

# Degrees, for each finger the limits of five angles, from straight and close together to bent and spread: the direction
# of the straight finger, from y towards x and from there out of the palm, then the bends of its three joints. The bends
# of the fingers, at most 30° of abduction and DIP = 2/3 PIP follow Lin, Wu and Huang, "Modeling the Constraints of
# Human Hand Motion", Workshop on Human Motion, 2000. The thumb's first two angles belong to its saddle joint, so its
# first bend is zero; its limits are typical values.
_ANGLES_FROM = np.array(
    [[20, 5, 0, 0, 0], [-3, 0, 0, 0, 0], [-1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [3, 0, 0, 0, 0]],
    dtype=np.float32,
)
_ANGLES_TO = np.array(
    [
        [60, 50, 0, 55, 80],
        [16, 0, 90, 110, 220 / 3],
        [3, 0, 90, 110, 220 / 3],
        [-12, 0, 90, 110, 220 / 3],
        [-26, 0, 90, 110, 220 / 3],
    ],
    dtype=np.float32,
)

# The bending direction of each finger, hand frame. The thumb bends across the palm, the others out of it.
_BENDS_TO = np.array([[-1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]], dtype=np.float32)

# For each gesture its probability, and its range within these limits (0 to 1) for: bend of the thumb, of the index
# finger, ... of the pinky, spread of the fingers, thumb from y towards x, thumb out of the palm.
_GESTURES = {
    "any": (0.4, (0, 0, 0, 0, 0, 0, 0, 0), (1, 1, 1, 1, 1, 1, 1, 1)),
    "flat": (0.2, (0, 0, 0, 0, 0, 0, 0.3, 0), (0.2, 0.1, 0.1, 0.1, 0.1, 1, 1, 0.3)),
    "fist": (0.2, (0.6, 0.85, 0.85, 0.85, 0.85, 0, 0, 0.6), (1, 1, 1, 1, 1, 0.3, 0.3, 1)),
    "pointing": (0.2, (0.6, 0, 0.85, 0.85, 0.85, 0, 0, 0.6), (1, 0.1, 1, 1, 1, 0.3, 0.3, 1)),
}


def synthetic_hands(n: int, seed: int) -> Array:
    """Returns the true joints of hands that move smoothly, a new subject every `SEQUENCE_LENGTH` frames.

    With the same seed, a longer set starts with the frames of a shorter one.

    Args:
        n: Number of frames.
        seed: Sets with different seeds share no subjects or motions.

    Returns:
        Labels, (n, 21, 3), mm, camera frame (z forward), 300 to 900 mm from the camera, in the order of HANDS17.
    """
    labels = np.empty((n, HANDS17.n_joints, 3), np.float32)
    for index, block in enumerate(_blocks(n)):
        # Always draw whole blocks, so that the length of a set does not change its frames.
        labels[block] = _moving_hands(_generator("hands", seed, index))[: len(labels[block])]
    return labels


@dataclass(frozen=True)
class Backbone:
    """A simulated hand-pose estimator with its own systematic errors.

    One component of its error follows from the pose, so a corrector can learn it: each joint is off by a vector in the
    hand frame that depends on the bend of the fingers and the viewpoint, bent fingers are too short, and the size of
    the hand is wrong. The other component is noise: it accumulates along a finger, is larger for a fist than for a flat
    hand, and partly persists for some frames; occasionally the end of a finger is placed on an adjacent finger. All
    magnitudes are chosen so that mean errors resemble those of published backbones, 10 to 20 mm, and somewhat more than
    half of the squared error can be learned.

    Attributes:
        subset: The backbone's name. Different names have different errors.
        seed: Different seeds have different errors too. Keep it for the same backbone on training and test data.
    """

    subset: str
    seed: int = 0

    def predict(self, labels: Array, seed: int) -> Array:
        """Returns the backbone's predictions, with independent errors in each sequence of `SEQUENCE_LENGTH` frames.

        Args:
            labels: True joints, (N, 21, 3), mm, camera frame, in the order of HANDS17.
            seed: The seed of the noise. Each set of labels should have its own.

        Returns:
            Predicted joints, (N, 21, 3), mm, camera frame.
        """
        errors = _ErrorModel.random(_generator("character", self.subset, self.seed))
        poses = np.empty_like(labels, dtype=np.float32)
        for index, block in enumerate(_blocks(len(labels))):
            rng = _generator("noise", self.subset, self.seed, seed, index)
            # Whole blocks here too; a short one is padded with its last frame.
            frames = np.minimum(np.arange(block.start, block.start + _BLOCK_LENGTH), len(labels) - 1)
            truth = np.asarray(labels[frames], dtype=np.float32)  # (N, 21, 3) -> (block, 21, 3)
            pose = truth + errors.bias(truth) + errors.noise(truth, rng)
            _confuse(pose, rng)
            poses[block] = pose[: len(poses[block])]  # (block, 21, 3) -> (N, 21, 3)
        return poses


@dataclass(frozen=True)
class _ErrorModel:
    """The parameters of a backbone's error.

    Attributes:
        waves: The weights that mix the six features of `bias` into twelve waves, (6, 12).
        weights: The offset of each joint of a finger for each wave, (5, 4, 12, 3), mm, hand frame.
        shortening: The fraction of its length that a fully bent finger loses, (5,).
        scale: The predicted size of the hand, 1 for the true size.
        noise_mm: Standard deviation of a step of the noise along a finger, per coordinate, for a flat hand.
    """

    waves: Array
    weights: Array
    shortening: Array
    scale: float
    noise_mm: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> "_ErrorModel":
        size = rng.uniform(0.9, 1.3)
        # Sines of random mixtures make a random function: smooth, and too complex for a linear corrector.
        steps = rng.normal(0, 1.6 * size, (5, 4, 12, 3))
        return cls(
            waves=rng.normal(0, 4, (6, 12)).astype(np.float32),
            weights=np.cumsum(steps, axis=1).astype(np.float32),
            shortening=rng.uniform(0.0, 0.3, size=5).astype(np.float32),
            scale=rng.uniform(0.95, 1.05),
            noise_mm=size * rng.uniform(2.0, 2.6),
        )

    def bias(self, truth: Array) -> Array:
        """Returns the error (N, 21, 3) in mm that follows from the pose."""
        axes = _hand_axes(truth)
        fingers = truth[:, _FINGERS]  # (N, 21, 3) -> (N, 5, 4, 3)
        bend = _bend(fingers)
        centre = truth.mean(axis=1, keepdims=True)  # (N, 1, 3)
        view = centre / np.linalg.norm(centre, axis=2, keepdims=True) @ axes  # (N, 1, 3), hand frame

        features = np.empty((*bend.shape, 6), np.float32)  # (N, 5, 6)
        features[..., 0] = 1
        features[..., 1] = bend
        features[..., 2] = bend.mean(axis=1, keepdims=True)
        features[..., 3:] = view
        waves = np.sin(features @ self.waves)  # (N, 5, 6) -> (N, 5, 12)
        offsets = np.einsum("nfw,fjwc->nfjc", waves, self.weights, optimize=True)  # (N, 5, 4, 3)
        offsets = offsets.reshape(-1, 20, 3) @ axes.swapaxes(1, 2)  # (N, 20, 3), camera frame

        shortened = (self.shortening * bend)[:, :, None, None] * (fingers[:, :, :1] - fingers)  # (N, 5, 4, 3)
        whole = _whole_hand(offsets.reshape(fingers.shape) + shortened)  # (N, 21, 3)
        bias: Array = whole + np.float32(self.scale - 1) * (truth - centre)
        return bias

    def noise(self, truth: Array, rng: np.random.Generator) -> Array:
        """Returns the unpredictable error (block, 21, 3) in mm."""
        fleeting = rng.standard_normal((_BLOCK_LENGTH, 5, 4, 3), np.float32)
        lasting = _interpolate_keys(rng.standard_normal((*_keys_shape(), 5, 4, 3), np.float32))  # (block, 5, 4, 3)
        shift = _interpolate_keys(rng.standard_normal((*_keys_shape(), 1, 3), np.float32))  # (block, 1, 3)
        bend = _bend(truth[:, _FINGERS]).mean(axis=1)  # (block,)
        size = np.float32(self.noise_mm) * (np.float32(0.7) + bend)[:, None, None]  # (block, 1, 1)
        steps = np.float32(0.6) * fleeting + lasting
        noise: Array = size * (_whole_hand(np.cumsum(steps, axis=2)) + shift)  # (block, 21, 3)
        return noise


def _confuse(poses: Array, rng: np.random.Generator) -> None:
    """Moves the last two joints of a finger to those of an adjacent finger in a few `poses`, (block, 21, 3)."""
    windows = poses.reshape(-1, CONFUSION_LENGTH, HANDS17.n_joints, 3)  # a view, (windows, frames, 21, 3)
    confused = np.flatnonzero(rng.random(len(windows)) < CONFUSION_RATE)[:, None]  # (C, 1)
    finger = rng.integers(0, 4, len(confused))
    swap = rng.integers(0, 2, len(confused))
    lost, taken = _FINGERS[finger + swap, 2:], _FINGERS[finger + 1 - swap, 2:]  # (C, 2)
    windows[confused, :, lost] = windows[confused, :, taken]  # (C, 2, frames, 3)


def _moving_hands(rng: np.random.Generator) -> Array:
    """Returns a block of sequences, (block, 21, 3), mm, camera frame."""
    sequences = (_SEQUENCES_PER_BLOCK, 1)
    size = rng.uniform(0.85, 1.15, (*sequences, 1))
    subjects = size * rng.uniform(0.94, 1.06, (_SEQUENCES_PER_BLOCK, 5, 4)) * _BONE_LENGTHS
    lengths = np.repeat(subjects.astype(np.float32), SEQUENCE_LENGTH, axis=0)  # (block, 5, 4)
    hands = _hand(lengths, np.radians(_interpolate_keys(_random_angles(rng))))

    # The hand is roughly upright in front of the camera, fingers up and palm to the front (half a turn about x): half
    # of the sequences are within 50° of that, nearly all within 100°, and their keys are within 45° of the sequence.
    turn = np.array([0, 1, 0, 0]) + rng.uniform(-0.5, 0.5, (*sequences, 4))
    turn /= np.linalg.norm(turn, axis=2, keepdims=True)
    # The mean of such neighbouring quaternions is a quaternion of another length.
    rotation = _rotation(_interpolate_keys(turn + rng.uniform(-0.2, 0.2, (*_keys_shape(), 4))))

    # Where the middle knuckle is; no joint is farther than 150 mm from it.
    depth = rng.uniform(490, 710, (*sequences, 1))
    sideways = rng.uniform(-0.25, 0.25, (*sequences, 2)) * depth
    place = np.concatenate([sideways, depth], axis=2)  # (sequences, 1, 3)
    position = _interpolate_keys(place + rng.uniform(-40, 40, (*_keys_shape(), 3)))  # (block, 3)

    centred = hands - hands[:, [_MIDDLE_KNUCKLE]]
    turned: Array = np.matmul(centred, rotation.swapaxes(1, 2))
    return turned + position[:, None]


def _hand(lengths: Array, angles: Array) -> Array:
    """Forward kinematics.

    Args:
        lengths: Lengths of the bones of each finger from the wrist outwards, (N, 5, 4), mm.
        angles: Angles as in `_ANGLES_FROM`, (N, 5, 5), radians.

    Returns:
        Joints, (N, 21, 3), mm, hand frame.
    """
    straight = _direction(angles[..., 0], angles[..., 1])  # (N, 5, 3)
    bent: _Numbers = _BENDS_TO - (straight * _BENDS_TO).sum(axis=2, keepdims=True) * straight
    bent /= np.linalg.norm(bent, axis=2, keepdims=True)  # (N, 5, 3), at right angles to `straight`
    bend = np.cumsum(angles[..., 2:], axis=2)[..., None]  # (N, 5, 3, 1)

    bones = np.empty((*lengths.shape, 3), np.float32)  # (N, 5, 4, 3)
    bones[:, :, 0] = _direction(*np.radians(_PALM.T))
    bones[:, :, 1:] = np.cos(bend) * straight[:, :, None] + np.sin(bend) * bent[:, :, None]
    bones *= lengths[..., None]
    hand = np.zeros((len(lengths), HANDS17.n_joints, 3), np.float32)
    hand[:, _FINGERS] = np.cumsum(bones, axis=2)  # (N, 5, 4, 3) -> (N, 21, 3)
    return hand


def _random_angles(rng: np.random.Generator) -> Array:
    """Returns joint angles of random gestures, as in `_ANGLES_FROM`, (sequences, keys, 5, 5), degrees."""
    shape = _keys_shape()
    probabilities, low, high = zip(*_GESTURES.values(), strict=True)
    gesture = rng.choice(len(_GESTURES), shape, p=probabilities)
    lowest, highest = np.array(low)[gesture], np.array(high)[gesture]  # (sequences, keys, 8)

    # The bend of a finger is correlated with that of the others, and that of its first joint with the next two.
    hand = rng.random((*shape, 1))
    finger = hand + rng.uniform(-0.5, 0.5, (*shape, 5))
    joints = finger[..., None] + rng.uniform(-0.25, 0.25, (*shape, 5, 2))
    bend = _interpolate(np.clip(joints, 0, 1), lowest[..., :5, None], highest[..., :5, None])
    spread = _interpolate(rng.random((*shape, 3)), lowest[..., 5:], highest[..., 5:])

    share = np.empty((*shape, 5, 5))
    share[..., :, 0] = spread[..., :1] * (1 - bend[..., 0])  # a finger bent at the knuckle cannot spread
    share[..., 0, :2] = spread[..., 1:]
    share[..., 1:, 1] = 0
    share[..., :, 2:4] = bend
    share[..., :, 4] = bend[..., 1]
    return _interpolate(share, _ANGLES_FROM, _ANGLES_TO).astype(np.float32)


def _bend(fingers: Array) -> Array:
    """Returns the bend of each finger, from 0 (straight) to 1 (its last bone points back), (N, 5)."""
    bones = np.diff(fingers, axis=2)  # (N, 5, 3, 3)
    first, last = bones[:, :, 0], bones[:, :, 2]  # (N, 5, 3)
    norms = np.linalg.norm(first, axis=2) * np.linalg.norm(last, axis=2)
    bend: Array = np.float32(0.5) * (1 - (first * last).sum(axis=2) / norms)
    return bend


def _whole_hand(fingers: Array) -> Array:
    """Returns errors (N, 21, 3) from those of the fingers (N, 5, 4, 3); the wrist moves with the knuckles."""
    whole = np.empty((len(fingers), HANDS17.n_joints, 3), np.float32)
    whole[:, _WRIST] = fingers[:, :, 0].mean(axis=1)
    whole[:, _FINGERS] = fingers
    return whole


def _hand_axes(poses: Array) -> Array:
    """Returns the axes of the hand frame as the columns of proper rotations, (N, 3, 3)."""
    y = poses[:, _MIDDLE_KNUCKLE] - poses[:, _WRIST]  # (N, 3)
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    x = poses[:, _INDEX_KNUCKLE] - poses[:, _PINKY_KNUCKLE]  # (N, 3)
    x -= (x * y).sum(axis=1, keepdims=True) * y
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], axis=2)


def _rotation(quaternions: Array) -> Array:
    """Returns the rotations (N, 3, 3) of quaternions (N, 4) of any non-zero length, real part first."""
    a, b, c, d = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T  # each (N,)
    rows = [
        [1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), 1 - 2 * (b * b + d * d), 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), 1 - 2 * (b * b + c * c)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)  # (3, 3, N) -> (N, 3, 3)


def _direction(towards_x: Array, out_of_palm: Array) -> Array:
    """Returns the unit vectors (..., 3) in the hand frame of two angles (...) in radians."""
    in_palm = np.cos(out_of_palm)
    return np.stack([np.sin(towards_x) * in_palm, np.cos(towards_x) * in_palm, np.sin(out_of_palm)], axis=-1)


def _interpolate_keys(keys: _Numbers) -> Array:
    """Interpolates from values at keys to each frame of a block, without a jump in value or velocity.

    Args:
        keys: Values of each sequence every `_KEY_DISTANCE` frames, (sequences, keys, ...).

    Returns:
        (block, ...) float32, between the values of two keys; limits that hold for keys therefore hold for all frames.
    """
    time = np.arange(SEQUENCE_LENGTH) / _KEY_DISTANCE
    key = time.astype(int)
    step = time - key
    step = (step * step * (3 - 2 * step)).astype(np.float32).reshape(-1, *[1] * (keys.ndim - 2))
    keys = keys.astype(np.float32)
    frames: Array = keys[:, key] + step * (keys[:, key + 1] - keys[:, key])  # (sequences, frames, ...)
    return frames.reshape(_BLOCK_LENGTH, *keys.shape[2:])


def _keys_shape() -> tuple[int, int]:
    """The number of sequences in a block and of keys in each; the last key is just after the last frame."""
    return _SEQUENCES_PER_BLOCK, SEQUENCE_LENGTH // _KEY_DISTANCE + 1


def _interpolate(share: _Numbers, lowest: _Numbers, highest: _Numbers) -> _Numbers:
    between: _Numbers = lowest + share * (highest - lowest)
    return between


def _blocks(n: int) -> Iterator[slice]:
    """Returns the blocks of `n` frames; the last may be short."""
    return (slice(start, min(start + _BLOCK_LENGTH, n)) for start in range(0, n, _BLOCK_LENGTH))


def _generator(*key: str | int) -> np.random.Generator:
    """Returns a generator that is independent of those of other keys."""
    digest = hashlib.sha256("/".join(str(part) for part in key).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))

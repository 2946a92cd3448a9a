"""What the formats say about recordings: sequences and subjects of NYU, ICVL and MSRA15.

NYU's test set is video of two people: the person of frames 0 to 2439 and another one. ICVL's test set has two
sequences; bone lengths differ by 1 to 3 % between them, so it may show one person or two. Both sets are recognised by
their numbers of frames.
"""

from data_pipeline.formats.frames import Frames
from data_pipeline.frame_table import UNKNOWN_FRAMES, FrameTable, video_frames

_NYU_TEST_FRAMES, _NYU_SECOND_PERSON = 8252, 2440
_ICVL_TEST_FRAMES, _ICVL_SECOND_SEQUENCE = 1596, 702


def named_frames(frames: Frames) -> FrameTable:
    """Returns the names of frames, which is all that most formats know."""
    return UNKNOWN_FRAMES if frames.names is None else FrameTable.of(name=frames.names)


def nyu_frames(frames: Frames) -> FrameTable:
    """Returns the sequences of NYU's frames between cuts, and of its test set also the two people, "1" and "2"."""
    if len(frames) != _NYU_TEST_FRAMES:
        return video_frames(frames.poses)
    people = {"1": slice(_NYU_SECOND_PERSON), "2": slice(_NYU_SECOND_PERSON, None)}
    return video_frames(frames.poses, [_NYU_SECOND_PERSON], people)


def icvl_frames(frames: Frames) -> FrameTable:
    """Returns the sequences of ICVL's frames: those of its test set, and those between cuts."""
    return video_frames(frames.poses, [_ICVL_SECOND_SEQUENCE] if len(frames) == _ICVL_TEST_FRAMES else [])


def msra15_frames(frames: Frames) -> FrameTable:
    """Returns the frames of a folder of MSRA15; a name like "P0/1/000000" has the subject P0 and the sequence P0/1."""
    names = frames.names or ()
    sequences = [name.rpartition("/")[0] for name in names]
    return FrameTable.of(
        sequence=sequences,
        index=[int(name.rpartition("/")[2]) for name in names],
        subject=[sequence.partition("/")[0] for sequence in sequences],
        name=names,
    )

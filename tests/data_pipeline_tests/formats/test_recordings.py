"""What the formats say about recordings, shown with published ground truth where it is there."""

import numpy as np

from data_pipeline.formats.catalogue import FORMATS
from data_pipeline.formats.frames import Frames
from data_pipeline.formats.leaderboard import LEADERBOARD_DATASETS, read_leaderboard
from tests.data_pipeline_tests.formats.test_leaderboard import published_file

# Frames before which the labels of NYU jump by more than 50 mm, counted by hand.
NYU_CUTS = [2440, 3136, 4690, 4860, 4883, 5405, 5722, 6051, 6196, 6557, 6562, 6731, 6734, 7054, 7171, 7222, 7375]


def leaderboard_table(dataset, file):
    labels = read_leaderboard(published_file(dataset, file), dataset)
    return LEADERBOARD_DATASETS[dataset].frame_table(Frames(labels))


def test_nyu_has_two_people_and_seventeen_cuts():
    frames = leaderboard_table("nyu", "nyu_test_groundtruth_label")
    assert frames.subject.tolist() == ["1"] * 2440 + ["2"] * (8252 - 2440)
    assert (np.flatnonzero(frames.index == 0)).tolist() == [0, *NYU_CUTS]
    assert frames.sequence[[0, 2439, 2440, 8251]].tolist() == ["1", "1", "2", "18"]


def test_icvl_has_two_sequences_and_no_other_cut():
    frames = leaderboard_table("icvl", "icvl_test_groundtruth_label")
    assert frames.sequence.tolist() == ["1"] * 702 + ["2"] * (1596 - 702)
    assert frames.index.tolist() == [*range(702), *range(1596 - 702)]
    assert frames.subject is None


def test_msra15_names_the_subject_and_the_gesture():
    frames = FORMATS["msra15"].frame_table(Frames(np.zeros((2, 21, 3)), ("P0/1/000007", "P10/IP/000000")))
    assert {name: column.tolist() for name, column in frames.columns.items()} == {
        "sequence": ["P0/1", "P10/IP"],
        "index": [7, 0],
        "subject": ["P0", "P10"],
        "name": ["P0/1/000007", "P10/IP/000000"],
    }


def test_hands17_names_its_frames_and_nothing_else():
    """Its frames may be shuffled, so the number in an image's name is no place in a sequence."""
    frames = FORMATS["hands17"].frame_table(Frames(np.zeros((1, 21, 3)), ("image_D00000001.png",)))
    assert {name: column.tolist() for name, column in frames.columns.items()} == {"name": ["image_D00000001.png"]}

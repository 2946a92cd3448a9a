"""A sweep over folds: how they are found, checked and planned."""

import pytest

from cluster.planning.config import ConfigError
from data_pipeline.pose_dataset import Samples, dataset_path, write_datasets
from data_pipeline.preparation.parts import split_samples
from data_pipeline.preparation.splits.syntax import parse_split
from data_pipeline.preparation.synthetic import Backbone, synthetic_hands
from tests.cluster_tests.small_experiment import LR, SmallExperiment

SETS = ("train_set", "val_set", "test_set")


def write_folds(folder, name, split, n_frames=60):
    labels = synthetic_hands(n_frames, 0)
    samples = Samples(labels, {"DEFAULT": Backbone("A").predict(labels, 0)})
    parts = split_samples(name, samples, parse_split(split), source="hands", folds=True)
    write_datasets(folder, {part.name: part.samples for part in parts})


def remove(folder, name):
    for kind in ("labels", "poses", "frames"):
        dataset_path(folder, name, kind).unlink()


@pytest.fixture
def experiment(tmp_path):
    """A small experiment with three folds of `hands`."""
    write_folds(tmp_path / "data", "hands", "blocks:10:3")
    return SmallExperiment(tmp_path / "data", tmp_path / "results")


def problems_of(small_experiment, names):
    def plan():
        made = small_experiment.experiment()
        made.add_folds(names)
        made.plan()

    with pytest.raises(ConfigError) as caught:
        plan()
    return "\n".join(map(str, caught.value.problems))


class TestFoldsInAPlan:
    def test_are_trained_as_if_their_sets_were_given(self, experiment):
        swept = experiment.experiment()
        swept.add_folds("hands")
        by_hand = [
            experiment.key({f"experiment_config.{one}": f"hands_fold{fold}_{one[:-4]}" for one in SETS})
            for fold in (1, 2, 3)
        ]
        assert [combination.key for combination in swept.plan().combinations] == by_hand

    def test_are_counted_apart_from_combinations(self, experiment):
        swept = experiment.experiment({"experiment_config.n_repetitions": 2}, {LR: [1e-3, 1e-2]})
        swept.add_folds("hands")
        assert str(swept.plan()).startswith("2 combinations × 3 folds × 2 repetitions = 12 trials: 12 to train")

    def test_of_several_datasets_may_differ_in_number(self, experiment):
        write_folds(experiment.data_dir, "others", "blocks:10:4")
        swept = experiment.experiment()
        swept.add_folds(["hands", "others"])
        assert str(swept.plan()).startswith("2 combinations × 3 or 4 folds × 1 repetition = 7 trials: 7 to train")


class TestAnErrorOfFolds:
    def test_names_the_datasets_that_have_folds(self, experiment):
        text = problems_of(experiment, "hand")
        assert (
            "has no folds of 'hand', such as hand_fold1_train; these have folds: hands. `posetune prepare-data" in text
        )

    def test_says_that_no_dataset_has_folds(self, small_experiment):
        assert "no dataset there has folds" in problems_of(small_experiment, "small")

    def test_names_the_sets_that_are_missing(self, experiment):
        remove(experiment.data_dir, "hands_fold2_val")
        assert "the folds of hands go up to 3, but" in problems_of(experiment, "hands")
        assert "has no hands_fold2_val. Make all folds again" in problems_of(experiment, "hands")

    def test_says_that_folds_need_a_split_with_a_validation_set(self, experiment):
        write_folds(experiment.data_dir, "tested", "last:0:50:5")
        text = problems_of(experiment, "tested")
        assert "has no tested_fold1_val, tested_fold2_val" in text
        assert "a split with a validation set" in text

    def test_is_raised_for_all_names_together(self, experiment):
        text = problems_of(experiment, ["one", "hands", "two"])
        assert "'one'" in text
        assert "'two'" in text

    @pytest.mark.parametrize("names", [[], "", None, ["hands", 3], ["hands", "hands"]])
    def test_is_raised_for_anything_but_different_names(self, experiment, names):
        assert "add_folds" in problems_of(experiment, names)

    def test_is_raised_for_sets_that_already_vary(self, experiment):
        made = experiment.experiment(options={"experiment_config.val_set": ["hands_fold1_val", "hands_fold2_val"]})
        with pytest.raises(ConfigError, match="val_set already varies"):
            made.add_folds("hands")

    def test_is_raised_for_folds_of_another_split(self, experiment):
        """Folds of an earlier split with more folds are still there."""
        write_folds(experiment.data_dir, "hands", "blocks:10:4")
        write_folds(experiment.data_dir, "hands", "blocks:10:3")
        text = problems_of(experiment, "hands")
        assert "hands_fold4_test have 10 frames in common" in text
        assert "are not of the same split" in text


def test_frames_that_no_fold_tests_are_a_warning(experiment):
    for part in ("train", "val", "test"):
        remove(experiment.data_dir, f"hands_fold3_{part}")
    swept = experiment.experiment()
    swept.add_folds("hands")
    [warning] = [text for text in swept.plan().warnings if "tested in no fold" in text]
    assert warning == (
        "hands: 20 frames of its training and validation sets are tested in no fold, so results are not about all "
        "frames."
    )


def test_folds_of_frames_without_sequences_are_not_checked(experiment):
    for path in experiment.data_dir.glob("*_frames.parquet"):
        path.unlink()
    swept = experiment.experiment()
    swept.add_folds("hands")
    assert len(swept.plan().combinations) == 3

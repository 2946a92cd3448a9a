"""What a combination with folds logged."""

from cluster.results.combination_logs import read_combination_logs
from cluster.results.results import Results
from cluster.storage.records import to_parquet
from posenet.record import Record
from tests.cluster_tests.results_files import write_fold_results


def logged(errors_mm):
    """Yields records of a trial with these validation errors by epoch and batch; training errors are half of them."""
    for (epoch, batch), error_mm in errors_mm.items():
        yield Record(epoch, batch, "train", "mean", "default", "loss", error_mm / 2)
        yield Record(epoch, batch, "train", "mean", "original", "distance", error_mm / 2)
        yield Record(epoch, batch, "val", "mean", "original", "distance", error_mm)


class TestALearningCurveOverFolds:
    def test_is_the_mean_at_the_log_points_that_all_folds_have(self, tmp_path):
        folder = write_fold_results(tmp_path, {0.1: [[10.0], [10.0]]}, [(300, 1), (100, 1)])
        # Epochs of four and of two batches: both log half-way, but only the first after a quarter.
        of_folds = [{(1, 1): 90, (1, 2): 80, (1, 4): 60, (2, 4): 40}, {(1, 1): 40, (1, 2): 20, (2, 1): 15, (2, 2): 8}]
        for number, errors_mm in enumerate(of_folds, 1):
            trial_id = f"0.1-{number}/0"
            folder.trial(trial_id).write("records.parquet", to_parquet(trial_id, list(logged(errors_mm))))
        results = Results.read(folder)
        found = read_combination_logs(folder, results, results.summary, split="val", is_metric=lambda name: False)
        [curve] = found.curves.values()
        assert curve.epochs.tolist() == [0.5, 1.0, 2.0]
        assert curve.val_mm.tolist() == [70.0, 50.0, 32.0]  # 300 and 100 frames
        assert curve.loss.tolist() == curve.train_mm.tolist() == [30.0, 20.0, 12.0]

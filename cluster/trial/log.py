"""The log of a trial: its records, and the predictions of its examples at every log point."""

from dataclasses import dataclass, field

import numpy as np

from cluster.storage.examples import FollowedExamples
from cluster.storage.file_names import FileNames
from cluster.storage.folders import TrialFolder
from cluster.storage.records import from_parquet, to_parquet
from data_pipeline.pose_dataset import Array, PoseDataset
from posenet.record import Record
from posenet.solver import EpochReport


@dataclass(frozen=True)
class ExamplePoses:
    """The samples of the validation set whose predictions a trial logs.

    Attributes:
        indices: Their indices, (E,).
        inputs: Their uncorrected poses, (E, J, 3), mm.
        labels: Their true poses, (E, J, 3), mm.
    """

    indices: tuple[int, ...]
    inputs: Array
    labels: Array

    @classmethod
    def of(cls, val_set: PoseDataset, subset: str | None, indices: tuple[int, ...]) -> "ExamplePoses":
        """Takes the samples with these indices from a subset; None takes the mean poses over all subsets."""
        rows = np.array(indices, dtype=np.intp)  # (E,)
        subsets = list(val_set.poses) if subset is None else [subset]
        inputs = np.mean([val_set.poses[name][rows] for name in subsets], axis=0)  # (S, E, J, 3) -> (E, J, 3)
        return cls(indices, inputs, val_set.labels[rows])


@dataclass
class TrialLog:
    """Everything logged so far.

    Attributes:
        records: All numbers.
        predictions: Epoch, batch and the examples' predictions, (E, J, 3), mm, of every log point.
    """

    records: list[Record] = field(default_factory=list)
    predictions: list[tuple[int, int, Array]] = field(default_factory=list)

    def add(self, report: EpochReport) -> None:
        """Adds the log points of an epoch."""
        for point in report.log_points:
            self.records += point.records
            if point.examples is not None:
                self.predictions.append((report.epoch, point.batch, point.examples.numpy()))

    def parquet(self, trial_id: str) -> bytes:
        """Returns the records of a trial as the content of its records.parquet."""
        return to_parquet(trial_id, self.records)

    def files(self, trial_id: str, examples: ExamplePoses | None) -> dict[str, bytes]:
        """Returns the content of records.parquet and, if there are examples, of examples.npz."""
        files = {FileNames.RECORDS: self.parquet(trial_id)}
        if examples is not None and self.predictions:
            epochs, batches, predictions = zip(*self.predictions, strict=True)
            followed = FollowedExamples(
                epochs=np.array(epochs),  # (L,)
                batches=np.array(batches),  # (L,)
                predictions_mm=np.stack(predictions),  # (L, E, J, 3)
                inputs_mm=examples.inputs,
                labels_mm=examples.labels,
                indices=np.array(examples.indices),
            )
            files[FileNames.EXAMPLES] = followed.to_npz()
        return files

    @classmethod
    def read(
        cls, folder: TrialFolder, *, until_epoch: int, with_examples: bool, content: bytes | None = None
    ) -> "TrialLog":
        """Reads the log up to the end of an epoch.

        Args:
            folder: The trial's files.
            until_epoch: The epoch.
            with_examples: Also read the examples' predictions.
            content: That of its file of records, which may be in the archive by now; None reads the file.

        Raises:
            ValueError: If a file is missing, broken, or ends before that epoch.
        """
        content = folder.read(FileNames.RECORDS) if content is None else content
        if content is None:
            raise ValueError(f"{FileNames.RECORDS} is missing")
        # Without the final evaluation, batch 0: a trial that was stopped while it wrote its last files repeats it.
        records = [record for record in from_parquet(content) if record.batch > 0 and record.epoch <= until_epoch]
        if not records or records[-1].epoch < until_epoch:
            raise ValueError(f"{FileNames.RECORDS} ends before epoch {until_epoch}")
        return cls(records, _read_predictions(folder, until_epoch) if with_examples else [])


def _read_predictions(folder: TrialFolder, until_epoch: int) -> list[tuple[int, int, Array]]:
    examples = FollowedExamples.read(folder)
    if examples is None:
        raise ValueError(f"{FileNames.EXAMPLES} is missing")
    logged = zip(examples.epochs, examples.batches, examples.predictions_mm, strict=True)
    predictions = [(int(epoch), int(batch), poses) for epoch, batch, poses in logged if epoch <= until_epoch]
    if not predictions or predictions[-1][0] < until_epoch:
        raise ValueError(f"{FileNames.EXAMPLES} ends before epoch {until_epoch}")
    return predictions

"""The error of every frame before and after the correction, from a trial's final evaluation.

Means hide where a corrector helps. Frame errors are kept for the trials whose weights are kept (`keep_weights`).

`frames.parquet` has a row for each subset and frame: `subset`, `before_mm`, `after_mm`, and what the frame tables of
the datasets say about the frame, so that the file can be read without them: `sequence`, `index`, `subject`, and
`training_distance`, the distance in frames from the nearest training frame of the same sequence. These are null where
they are not known; `training_distance` is also null in sequences without training frames. Files of older versions lack
these four columns.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage.bounded import open_parquet
from cluster.storage.file_names import FileNames
from cluster.storage.folders import ExperimentFolder, TrialFolder
from data_pipeline.frame_table import UNKNOWN_FRAMES, FrameTable, Indices, Names, Runs, is_group_name

Errors = npt.NDArray[np.floating[Any]]

_NAME = pa.dictionary(pa.int32(), pa.string())
_ERRORS = {"subset": _NAME, "before_mm": pa.float32(), "after_mm": pa.float32()}
_FRAMES = {"sequence": _NAME, "index": pa.int64(), "subject": _NAME, "training_distance": pa.int64()}

_FAR = 100
"""Frames that are further apart than this count as independent: on NYU their errors correlate at 0.07."""


@dataclass(frozen=True)
class FrameErrors:
    """Mean distances over the joints of each frame, in the order of the dataset.

    Attributes:
        by_subset: For each subset the errors before and after, (N,) each, mm. The subsets are predictions of several
            backbones for the same N frames.
        frames: The sequence, index and subject of each frame, as far as they are known.
        training_distance: The distance of each frame from the nearest training frame of its sequence, (N,), in frames;
            NaN in sequences without training frames. None if it is not known.
    """

    by_subset: Mapping[str, tuple[Errors, Errors]]
    frames: FrameTable = UNKNOWN_FRAMES
    training_distance: Errors | None = None

    @classmethod
    def of_folds(cls, folds: Sequence["FrameErrors"]) -> "FrameErrors":
        """Returns the errors of the frames of all folds, fold after fold; a subset that a fold lacks is left out."""
        subsets = [subset for subset in folds[0].by_subset if all(subset in fold.by_subset for fold in folds)]
        joined = {
            subset: tuple(np.concatenate([fold.by_subset[subset][place] for fold in folds]) for place in (0, 1))
            for subset in subsets  # (N_fold,) each -> (N,)
        }
        known = set.intersection(*(set(fold.frames.columns) for fold in folds))
        columns = {name: np.concatenate([fold.frames.columns[name] for fold in folds]) for name in known}
        distances = [fold.training_distance for fold in folds if fold.training_distance is not None]
        return cls(
            {subset: (before, after) for subset, (before, after) in joined.items()},
            FrameTable(**columns),
            np.concatenate(distances) if len(distances) == len(folds) else None,
        )

    @classmethod
    def mean(cls, repetitions: Sequence["FrameErrors"]) -> "FrameErrors | None":
        """Returns the errors of each frame as means over repetitions, at least one; None if their frames differ."""
        first, *others = repetitions
        if not all(first._is_of_the_frames_of(other) for other in others):
            return None
        by_subset = {}
        for subset in first.by_subset:
            of_all = np.stack([found.by_subset[subset] for found in repetitions])  # (R, 2, N)
            means = of_all.mean(axis=0, dtype=np.float64)
            by_subset[subset] = means[0], means[1]  # (N,) each
        return replace(first, by_subset=by_subset)

    def take(self, rows: Any) -> "FrameErrors":
        """Returns the errors of the frames that `rows`, an index of numpy's arrays, selects."""
        distance = self.training_distance
        return FrameErrors(
            {subset: (before[rows], after[rows]) for subset, (before, after) in self.by_subset.items()},
            self.frames.take(rows),
            None if distance is None else distance[rows],
        )

    @property
    def joined(self) -> tuple[Errors, Errors]:
        """The errors of all poses before and after, subset after subset, (S N,) each, mm."""
        before, after = (np.concatenate(errors) for errors in zip(*self.by_subset.values(), strict=True))
        return before, after

    @cached_property
    def means(self) -> tuple[Errors, Errors]:
        """The errors of each frame before and after, averaged over the subsets, (N,) each, mm.

        Statements about frames use these means: S predictions of one frame are not S independent frames, since a hand
        that is difficult for one backbone is difficult for the others.
        """
        before, after = (np.stack(errors) for errors in zip(*self.by_subset.values(), strict=True))  # (S, N) each
        return before.mean(axis=0, dtype=np.float64), after.mean(axis=0, dtype=np.float64)

    @property
    def runs(self) -> Runs:
        """The frames as recorded, in runs of neighbours: frames of different runs say nothing about each other.

        If sequences are not known, all frames are one run.
        """
        return self.frames.runs(len(self.means[0]), max_step=_FAR)

    def to_parquet(self) -> bytes:
        """Returns the content of their file."""
        known = {**self.frames.columns, "training_distance": self.training_distance}
        schema = pa.schema({**_ERRORS, **_FRAMES})
        tables = []
        for subset, (before, after) in self.by_subset.items():
            n = len(before)
            frames = [_array(known.get(name), n, kind) for name, kind in _FRAMES.items()]
            tables.append(pa.table([[subset] * n, before, after, *frames], schema=schema))
        buffer = io.BytesIO()
        table = pa.concat_tables(tables).unify_dictionaries()
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        return buffer.getvalue()

    def _is_of_the_frames_of(self, other: "FrameErrors") -> bool:
        mine, theirs = self.frames.columns, other.frames.columns
        return (
            self.by_subset.keys() == other.by_subset.keys()
            and len(self.means[0]) == len(other.means[0])
            and mine.keys() == theirs.keys()
            and all(np.array_equal(column, theirs[name]) for name, column in mine.items())
        )

    @classmethod
    def read_folds(cls, folder: ExperimentFolder, trial_ids: Sequence[str]) -> "FrameErrors | None":
        """Reads the errors of a repetition's frames, of all its folds; None if a file is missing or broken.

        Args:
            folder: The experiment's folder.
            trial_ids: The trial of each fold, or the only one without folds.

        Raises:
            StorageError: If a file cannot be read.
        """
        folds = []
        for trial_id in trial_ids:
            try:
                found = cls.read(folder.trial(trial_id))
            except ValueError:
                return None
            if found is None:
                return None
            folds.append(found)
        joined = cls.of_folds(folds)
        return joined if joined.by_subset else None

    @classmethod
    def read(cls, folder: TrialFolder) -> "FrameErrors | None":
        """Reads the errors of a trial; None if it has none.

        Raises:
            ValueError: If the file is broken.
            StorageError: If it cannot be read.
        """
        content = folder.read(FileNames.FRAMES)
        if content is None:
            return None
        try:
            kinds = {**_ERRORS, **_FRAMES}
            file = open_parquet(content, texts=[name for name, kind in kinds.items() if kind == _NAME])
            schema = pa.schema({**_ERRORS, **{k: v for k, v in _FRAMES.items() if k in file.schema_arrow.names}})
            rows = file.read(columns=schema.names, use_threads=False).select(schema.names).cast(schema).combine_chunks()
            rows.validate(full=True)
            subset, before, after = (rows.column(name).combine_chunks() for name in _ERRORS)
            codes = subset.indices.to_numpy()
            places = {name: codes == code for code, name in enumerate(subset.dictionary.to_pylist())}
            names = subset.unique().to_pylist()
            numbers = before.to_numpy(), after.to_numpy()
            if not np.isfinite(numbers).all():
                raise ValueError("some errors are not finite")
            if len({places[name].sum() for name in names}) > 1:
                raise ValueError("its subsets are not of the same frames: their numbers of frames differ")
            known = rows.filter(pa.array(places[names[0]])) if names else rows
            frames = FrameTable.of(
                sequence=_names(known, "sequence"), index=_index(known), subject=_names(known, "subject")
            )
            distance = _numbers(known, "training_distance")
        except Exception as error:
            # What pyarrow raises depends on the damage.
            raise ValueError(f"{FileNames.FRAMES} is broken: {error}") from error
        return cls({name: (numbers[0][places[name]], numbers[1][places[name]]) for name in names}, frames, distance)


def _array(values: Any, n: int, kind: pa.DataType) -> pa.Array:
    """Returns N values as a column: nulls for NaN, and if there are no values."""
    plain = pa.string() if kind == _NAME else pa.float64()
    return (pa.nulls(n, plain) if values is None else pa.array(values, plain, from_pandas=True)).cast(kind)


def _names(rows: pa.Table, column: str) -> Names | None:
    """Returns a column of names; None if it is not known."""
    if column not in rows.column_names or rows.column(column).null_count == len(rows):
        return None
    found = rows.column(column).combine_chunks()
    names: Names = np.array(found.dictionary.to_pylist(), np.object_)
    codes = found.indices.to_numpy(zero_copy_only=False)
    if found.null_count or not all(isinstance(name, str) and is_group_name(name) for name in names[np.unique(codes)]):
        raise ValueError(f"some frames have no {column}, or one with an impossible name")
    of_frames: Names = names[codes]
    return of_frames


def _numbers(rows: pa.Table, column: str) -> Errors | None:
    """Returns a column of numbers, NaN for nulls; None if it is not known."""
    if column not in rows.column_names or rows.column(column).null_count == len(rows):
        return None
    return np.asarray(rows.column(column).cast(pa.float64()).to_numpy(), np.float64)


def _index(rows: pa.Table) -> Indices | None:
    numbers = _numbers(rows, "index")
    if numbers is None:
        return None
    if not np.isfinite(numbers).all():
        raise ValueError("some frames have no index")
    return numbers.astype(np.int64)

"""The error of every frame before and after the correction, from a trial's final evaluation.

Means hide where a corrector helps. Frame errors are kept for the trials whose weights are kept (`keep_weights`).
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage.file_names import FileNames
from cluster.storage.folders import TrialFolder

Errors = npt.NDArray[np.floating[Any]]

_SCHEMA = pa.schema(
    {"subset": pa.dictionary(pa.int32(), pa.string()), "before_mm": pa.float32(), "after_mm": pa.float32()}
)


@dataclass(frozen=True)
class FrameErrors:
    """Mean distances over the joints of each frame, in the order of the dataset.

    Attributes:
        by_subset: For each subset the errors before and after, (N,) each, mm. The subsets are predictions of several
            backbones for the same N frames.
    """

    by_subset: Mapping[str, tuple[Errors, Errors]]

    @classmethod
    def of_folds(cls, folds: Sequence["FrameErrors"]) -> "FrameErrors":
        """Returns the errors of the frames of all folds, fold after fold; a subset that a fold lacks is left out."""
        subsets = [subset for subset in folds[0].by_subset if all(subset in fold.by_subset for fold in folds)]
        joined = {
            subset: tuple(np.concatenate([fold.by_subset[subset][place] for fold in folds]) for place in (0, 1))
            for subset in subsets  # (N_fold,) each -> (N,)
        }
        return cls({subset: (before, after) for subset, (before, after) in joined.items()})

    @property
    def joined(self) -> tuple[Errors, Errors]:
        """The errors of all poses before and after, subset after subset, (S N,) each, mm."""
        before, after = (np.concatenate(errors) for errors in zip(*self.by_subset.values(), strict=True))
        return before, after

    @property
    def means(self) -> tuple[Errors, Errors]:
        """The errors of each frame before and after, averaged over the subsets, (N,) each, mm.

        Statements about frames use these means: S predictions of one frame are not S independent frames, since a hand
        that is difficult for one backbone is difficult for the others.
        """
        before, after = (np.stack(errors) for errors in zip(*self.by_subset.values(), strict=True))  # (S, N) each
        return before.mean(axis=0, dtype=np.float64), after.mean(axis=0, dtype=np.float64)

    def write(self, folder: TrialFolder) -> None:
        """Writes them to a trial's folder, as rows `subset, before_mm, after_mm`."""
        tables = [
            pa.table([[subset] * len(before), before, after], schema=_SCHEMA)
            for subset, (before, after) in self.by_subset.items()
        ]
        buffer = io.BytesIO()
        table = pa.concat_tables(tables).unify_dictionaries()
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        folder.write(FileNames.FRAMES, buffer.getvalue())

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
            file = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True)
            rows = file.read(use_threads=False).select(_SCHEMA.names).cast(_SCHEMA).combine_chunks()
            subset, before, after = rows.columns
            names = subset.unique().to_pylist()
            codes = subset.combine_chunks().indices.to_numpy()
            places = {name: codes == code for code, name in enumerate(subset.combine_chunks().dictionary.to_pylist())}
            numbers = before.to_numpy(), after.to_numpy()
            if not np.isfinite(numbers).all():
                raise ValueError("some errors are not finite")
            if len({places[name].sum() for name in names}) > 1:
                raise ValueError("its subsets are not of the same frames: their numbers of frames differ")
        except Exception as error:
            # What pyarrow raises depends on the damage.
            raise ValueError(f"{FileNames.FRAMES} is broken: {error}") from error
        return cls({name: (numbers[0][places[name]], numbers[1][places[name]]) for name in names})

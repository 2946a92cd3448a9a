"""Learning curves and the metrics of the final evaluation, read from the trials' records.

The records of ten thousand trials have about fifty million rows, and a report shows two percent of them. So they are
read in batches and selected by the codes of their dictionaries, without a Python object per row.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage.archive import map_files
from cluster.storage.file_names import FileNames
from cluster.storage.folders import ExperimentFolder, TrialFolder
from cluster.storage.records import open_records
from data_pipeline.subsets import MEAN_SUBSET

Numbers = npt.NDArray[np.float64]

_ROWS_AT_ONCE = 2**18


class Curve(NamedTuple):
    """What a trial logged during training, at L log points.

    Attributes:
        epochs: Completed epochs, (L,); 3.5 is half-way through the fourth.
        loss: The training loss since the previous log point, (L,).
        train_mm: The mean distance of the training batches since then, (L,), mm; NaN if it was measured in another
            space.
        val_mm: The mean distance on the validation set, mean over its subsets, (L,), mm.
    """

    epochs: Numbers
    loss: Numbers
    train_mm: Numbers
    val_mm: Numbers

    @property
    def val_after_epochs_mm(self) -> Numbers:
        """The mean distance on the validation set at the end of each epoch, (E,), mm."""
        ends: Numbers = self.val_mm[self.epochs == np.floor(self.epochs)]
        return ends


@dataclass(frozen=True)
class Logged:
    """What some trials logged.

    Attributes:
        curves: The learning curve of each trial, by its id.
        metrics: The names of M metrics, in the order in which they were logged.
        final: Their values in each trial's final evaluation, (M,), by its id; NaN for missing values. A trial that did
            not finish has no final evaluation.
    """

    curves: dict[str, Curve]
    metrics: list[str]
    final: dict[str, Numbers]


def read_logged(
    folder: ExperimentFolder, *, split: str, wanted: Callable[[str], bool], is_metric: Callable[[str], bool]
) -> Logged:
    """Reads learning curves and final metrics; leaves out trials without readable records.

    Args:
        folder: The experiment's folder.
        split: The split of the final evaluation: 'val' or 'test'. Its metrics are means over the subsets, in mm.
        wanted: Decides by the id which trials are read.
        is_metric: Decides by the name which metrics of the final evaluation are read, such as `distance[TTIP]`,
            `distance[TTIP]_before` or `success_worst@20`.

    Raises:
        StorageError: If a file cannot be read.
    """
    is_metric = cache(is_metric)  # the files of all trials have the same names

    def is_shown(rows: "_Rows") -> npt.NDArray[np.bool_]:
        in_training = _is_in_training(rows)
        at_the_end = rows.numbers("batch") == 0
        if at_the_end.any():
            at_the_end &= rows.has("split", split) & rows.has("subset", MEAN_SUBSET)
            at_the_end &= rows.has("space", "original") & rows.where("metric", is_metric)
        shown: npt.NDArray[np.bool_] = in_training | at_the_end
        return shown

    curves: dict[str, Curve] = {}
    final: dict[str, dict[str, float]] = {}
    places: dict[str, int] = {}
    for table in _tables(folder, wanted, is_shown):
        for trial_id, rows in _by_trial(table):
            curves[trial_id] = _curve(rows)
            last = rows.numbers("batch") == 0
            if last.any():
                names = rows.texts("metric", last)
                for name in names:
                    places.setdefault(name, len(places))
                final[trial_id] = dict(zip(names, rows.numbers("value")[last].tolist(), strict=True))
    metrics = list(places)
    return Logged(
        curves,
        metrics,
        {trial_id: np.array([values.get(name, np.nan) for name in metrics]) for trial_id, values in final.items()},
    )


def read_curve(folder: TrialFolder) -> Curve | None:
    """Reads the learning curve of one trial; None if it has no readable records of its own, as in the archive.

    Raises:
        StorageError: If a file cannot be read.
    """
    content = folder.read(FileNames.RECORDS)
    table = None if content is None else _chosen_rows(content, folder.trial_id.__eq__, _is_in_training)
    return next((_curve(rows) for _, rows in _by_trial(table)), None) if table is not None and len(table) else None


def _is_in_training(rows: "_Rows") -> npt.NDArray[np.bool_]:
    """Returns a mask of the rows that curves show, (n,)."""
    shown: npt.NDArray[np.bool_] = (rows.numbers("batch") > 0) & (
        (rows.has("split", "train") & rows.has("metric", "loss"))
        | (rows.has("metric", "distance") & rows.has("space", "original") & rows.has("subset", MEAN_SUBSET))
    )
    return shown


def record_tables(folder: ExperimentFolder, wanted: Callable[[str], bool]) -> Iterator[pa.Table]:
    """Yields the long records of some trials, one file at a time, with the columns of `cluster/storage/records.py`.

    Args:
        folder: The experiment's folder.
        wanted: Decides by the id which trials are read. Trials without readable records are left out.

    Raises:
        StorageError: If a file cannot be read.
    """
    yield from _tables(folder, wanted, lambda rows: np.ones(len(rows), dtype=bool))


class _Rows:
    """Rows of records, by their columns."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def numbers(self, column: str) -> npt.NDArray[Any]:
        """Returns a column of numbers, (n,)."""
        values: npt.NDArray[Any] = self.batch.column(column).to_numpy(zero_copy_only=False)
        return values

    def where(self, column: str, accepts: Callable[[str], bool]) -> npt.NDArray[np.bool_]:
        """Returns a mask of the rows whose text is accepted, (n,); asks once for each distinct text."""
        texts = self.batch.column(column)
        accepted = np.array([accepts(text) for text in texts.dictionary.to_pylist()], dtype=bool)
        found: npt.NDArray[np.bool_] = accepted[self._codes(column)]
        return found

    def has(self, column: str, text: str) -> npt.NDArray[np.bool_]:
        """Returns a mask of the rows with that text, (n,)."""
        code = self.batch.column(column).dictionary.index(text).as_py()  # -1 if no row has it
        found: npt.NDArray[np.bool_] = self._codes(column) == code
        return found

    def texts(self, column: str, rows: npt.NDArray[np.bool_]) -> list[str]:
        """Returns the texts of some rows."""
        distinct = self.batch.column(column).dictionary.to_pylist()
        return [distinct[code] for code in self._codes(column)[rows]]

    def _codes(self, column: str) -> npt.NDArray[np.int32]:
        codes: npt.NDArray[np.int32] = self.batch.column(column).indices.to_numpy(zero_copy_only=False)
        return codes


def _tables(
    folder: ExperimentFolder, wanted: Callable[[str], bool], chosen: Callable[[_Rows], npt.NDArray[np.bool_]]
) -> Iterator[pa.Table]:
    """Yields the chosen rows of wanted trials, one file at a time."""
    archived: set[str] = set()

    def is_new(trial_id: str) -> bool:
        return trial_id not in archived and wanted(trial_id)

    for bundle in folder.archive.bundles():
        content = folder.storage.read(FileNames.in_archive(bundle, "records"))
        table = None if content is None else _chosen_rows(content, is_new, chosen)
        if table is not None and len(table):
            yield table
            archived.update(table.column("trial_id").unique().to_pylist())
    paths = (path.rpartition("/") for path in folder.storage.files(FileNames.TRIALS_FOLDER))
    ids = [trial_id for trial_id, _, name in paths if name == FileNames.RECORDS and trial_id.count("/") == 1]
    ids = [trial_id for trial_id in ids if is_new(trial_id)]

    def read(trial_id: str) -> pa.Table | None:
        content = folder.trial(trial_id).read(FileNames.RECORDS)
        return None if content is None else _chosen_rows(content, trial_id.__eq__, chosen)

    for start in range(0, len(ids), _FILES_AT_ONCE):
        for table in map_files(folder.storage, read, ids[start : start + _FILES_AT_ONCE]):
            if table is not None and len(table):
                yield table


_FILES_AT_ONCE = 256


def _chosen_rows(
    content: bytes, wanted: Callable[[str], bool], chosen: Callable[[_Rows], npt.NDArray[np.bool_]]
) -> pa.Table | None:
    """Returns the chosen rows of wanted trials in a file; None if it is broken."""
    found = []
    try:
        file = open_records(content)
        for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=_groups_with(file, wanted), use_threads=False):
            if any(column.null_count for column in batch.columns):
                return None
            rows = _Rows(batch)
            found.append(batch.filter(pa.array(chosen(rows) & rows.where("trial_id", wanted))))
    except Exception:
        # What pyarrow raises depends on the damage. A report shows the other trials.
        return None
    return pa.Table.from_batches(found).unify_dictionaries().combine_chunks() if found else None


def _groups_with(file: pq.ParquetFile, wanted: Callable[[str], bool]) -> list[int]:
    """Returns the row groups that hold a wanted trial: in a bundle of the archive, a few trials are in few groups."""
    groups = range(file.num_row_groups)
    if len(groups) == 1:
        return [0]
    ids = (file.read_row_group(group, columns=["trial_id"], use_threads=False).column(0) for group in groups)
    return [
        group for group, of_group in zip(groups, ids, strict=True) if any(map(wanted, of_group.unique().to_pylist()))
    ]


def _by_trial(table: pa.Table) -> Iterator[tuple[str, _Rows]]:
    """Yields each trial's rows, which are contiguous."""
    (batch,) = table.to_batches()
    codes = batch.column("trial_id").indices.to_numpy()
    ids = batch.column("trial_id").dictionary.to_pylist()
    starts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist()]
    for start, end in zip(starts, [*starts[1:], len(codes)], strict=True):
        yield ids[codes[start]], _Rows(batch.slice(start, end - start))


def _curve(rows: _Rows) -> Curve:
    epochs, batches, values = (rows.numbers(name) for name in ("epoch", "batch", "value"))
    is_train, is_loss, in_training = rows.has("split", "train"), rows.has("metric", "loss"), batches > 0
    points = in_training & ~is_train  # every log point has the validation's distance
    logged = zip(epochs[points].tolist(), batches[points].tolist(), strict=True)
    at = {key: place for place, key in enumerate(dict.fromkeys(logged))}  # a damaged file may have a point twice

    def series(of: npt.NDArray[np.bool_]) -> Numbers:
        found = np.full(len(at), np.nan)
        for epoch, batch, value in zip(epochs[of].tolist(), batches[of].tolist(), values[of].tolist(), strict=True):
            if (epoch, batch) in at:  # a killed training may have logged only the loss of its last point
                found[at[epoch, batch]] = value
        return found

    n_batches = max((batch for _, batch in at), default=1)  # an epoch's last batch is a log point
    done = np.array([epoch - 1 + batch / n_batches for epoch, batch in at], dtype=np.float64)
    return Curve(
        epochs=done,
        loss=series(in_training & is_train & is_loss),
        train_mm=series(in_training & is_train & ~is_loss),
        val_mm=series(points),
    )

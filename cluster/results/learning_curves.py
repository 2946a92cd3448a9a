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
from cluster.storage.records import SCHEMA, open_records
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
    places: dict[str, int] = {}
    finals: list[tuple[list[str], Numbers]] = []
    for table in _tables(folder, wanted, is_shown):
        trials = _Trials(table)
        curves |= trials.curves()
        finals.append(trials.final(places))
    final: dict[str, Numbers] = {}
    for ids, values in finals:
        later = np.full((len(ids), len(places) - values.shape[1]), np.nan)  # metrics that only later files have
        final |= zip(ids, np.concatenate([values, later], axis=1), strict=True)
    return Logged(curves, list(places), final)


def read_curve(folder: TrialFolder) -> Curve | None:
    """Reads the learning curve of one trial; None if it has no readable records of its own, as in the archive.

    Raises:
        StorageError: If a file cannot be read.
    """
    content = folder.read(FileNames.RECORDS)
    table = None if content is None else _chosen_rows(content, folder.trial_id.__eq__, _is_in_training)
    return next(iter(_Trials(table).curves().values()), None) if table is not None and len(table) else None


def _is_in_training(rows: "_Rows") -> npt.NDArray[np.bool_]:
    """Returns a mask of the rows that curves show, (n,)."""
    shown: npt.NDArray[np.bool_] = (rows.numbers("batch") > 0) & (
        (rows.has("split", "train") & rows.has("metric", "loss"))
        | (rows.has("metric", "distance") & rows.has("space", "original") & rows.has("subset", MEAN_SUBSET))
    )
    return shown


def record_tables(folder: ExperimentFolder, wanted: Callable[[str], bool]) -> Iterator[pa.Table]:
    """Yields the long records of some trials, a few at a time, with the columns of `cluster/storage/records.py`.

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
        accepted = np.array([accepts(text) for text in self.distinct(column)], dtype=bool)
        found: npt.NDArray[np.bool_] = accepted[self.codes(column)]
        return found

    def has(self, column: str, text: str) -> npt.NDArray[np.bool_]:
        """Returns a mask of the rows with that text, (n,)."""
        code = self.batch.column(column).dictionary.index(text).as_py()  # -1 if no row has it
        found: npt.NDArray[np.bool_] = self.codes(column) == code
        return found

    def distinct(self, column: str) -> list[str]:
        """Returns the distinct texts of a column by their codes."""
        texts: list[str] = self.batch.column(column).dictionary.to_pylist()
        return texts

    def codes(self, column: str) -> npt.NDArray[np.int32]:
        """Returns the codes of a column's texts, (n,)."""
        codes: npt.NDArray[np.int32] = self.batch.column(column).indices.to_numpy(zero_copy_only=False)
        return codes


def _tables(
    folder: ExperimentFolder, wanted: Callable[[str], bool], chosen: Callable[[_Rows], npt.NDArray[np.bool_]]
) -> Iterator[pa.Table]:
    """Yields the chosen rows of wanted trials, one file of the archive or a few small ones at a time."""
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
        tables = map_files(folder.storage, read, ids[start : start + _FILES_AT_ONCE])
        found = [table for table in tables if table is not None and len(table)]
        if found:
            # Promoted, since a file of another writer may say that its columns have no nulls.
            yield pa.concat_tables(found, promote_options="default").unify_dictionaries().combine_chunks()


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
            found.append(batch.select(SCHEMA.names).filter(pa.array(chosen(rows) & rows.where("trial_id", wanted))))
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
        group
        for group, chunks in zip(groups, ids, strict=True)
        if any(wanted(trial_id) for chunk in chunks.chunks for trial_id in chunk.dictionary.to_pylist())
    ]


class _Trials:
    """The rows of one or more trials, those of each next to each other; computed for all at once."""

    def __init__(self, table: pa.Table) -> None:
        (batch,) = table.to_batches()
        self.rows = _Rows(batch)
        self.batches = self.rows.numbers("batch")
        codes = self.rows.codes("trial_id")
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        self.ids = [self.rows.distinct("trial_id")[code] for code in codes[starts]]  # T trials
        self.trial = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(codes)))  # (n,)

    def curves(self) -> dict[str, Curve]:
        """Returns their learning curves by their ids."""
        epochs, batches = self.rows.numbers("epoch").astype(np.int64), self.batches
        is_train, is_loss, in_training = self.rows.has("split", "train"), self.rows.has("metric", "loss"), batches > 0
        times = np.unique(epochs << 32 | batches, return_inverse=True)[1]  # (n,)
        at = self.trial * len(times) + times  # (n,); the log point of each row
        points = np.flatnonzero(in_training & ~is_train)  # every log point has the validation's distance
        known, first = np.unique(at[points], return_index=True)  # (P,) each; a damaged file may have a point twice
        in_order = np.argsort(first)
        points = points[first[in_order]]  # (P,)

        def series(of: npt.NDArray[np.bool_]) -> Numbers:
            rows = np.flatnonzero(of)
            rows = rows[np.isin(at[rows], known)]  # a killed training may have logged only the loss of its last point
            found = np.full(len(known), np.nan)
            found[np.searchsorted(known, at[rows])] = self.rows.numbers("value")[rows]
            return found[in_order]

        trial = self.trial[points]
        n_batches = np.ones(len(self.ids))  # an epoch's last batch is a log point
        np.maximum.at(n_batches, trial, batches[points])
        done = epochs[points] - 1 + batches[points] / n_batches[trial]
        columns = Curve(
            epochs=done,
            loss=series(in_training & is_train & is_loss),
            train_mm=series(in_training & is_train & ~is_loss),
            val_mm=series(in_training & ~is_train),
        )  # (P,) each
        ends = np.searchsorted(trial, np.arange(len(self.ids) - 1), side="right")
        return dict(zip(self.ids, map(Curve, *(np.split(column, ends) for column in columns)), strict=True))

    def final(self, places: dict[str, int]) -> tuple[list[str], Numbers]:
        """Returns the ids of F trials that finished, and their values in the final evaluation, (F, M).

        Args:
            places: The places of the metrics; new ones are added.
        """
        rows = np.flatnonzero(self.batches == 0)
        codes, first = np.unique(self.rows.codes("metric")[rows], return_index=True)
        texts = self.rows.distinct("metric")
        for code in codes[np.argsort(first)]:
            places.setdefault(texts[code], len(places))
        place_of = np.array([places.get(text, -1) for text in texts], dtype=np.int64)
        finished, of = np.unique(self.trial[rows], return_inverse=True)
        values = np.full((len(finished), len(places)), np.nan)
        values[of, place_of[self.rows.codes("metric")[rows]]] = self.rows.numbers("value")[rows]
        return [self.ids[place] for place in finished], values

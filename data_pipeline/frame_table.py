"""The frame table of a dataset: the sequence, index, subject and name of each frame, as far as they are known.

`NAME_frames.parquet` has one row for each sample, in the order of the samples, and any of these columns:

`sequence`
    The name of the recording without cuts that the frame belongs to.
`index`
    The number of the frame in its sequence, from 0; numbers may be missing where frames were left out.
`subject`
    The name of the person whose hand it is.
`name`
    The name of the frame, such as that of its image file.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.user_error import UserError, did_you_mean

Array = npt.NDArray[np.float32]
Names = npt.NDArray[np.object_]
Indices = npt.NDArray[np.int64]

CUT_MM = 50.0
"""A step from one frame to the next by more than this distance, averaged over the joints, is a cut.

In NYU's test set, the largest step without a cut is 38 mm, and the smallest cut is 64 mm.
"""

_SHARED = ("sequence", "subject")  # columns in which many frames have the same text

_CHUNK = 16_384  # frames

_MAX_INDEX = 2**31  # two years of video; larger numbers indicate damaged data


class Runs(NamedTuple):
    """Frames in the order in which they were recorded, as runs of successive frames.

    Attributes:
        rows: The rows of the frames in their table, run after run, (N,).
        lengths: The number of frames of each run, N in total.
    """

    rows: Indices
    lengths: list[int]


@dataclass(frozen=True, eq=False)
class FrameTable:
    """What is known about the N frames of a dataset; a column that is not known is None.

    Attributes:
        sequence: The name of each frame's sequence, a recording without cuts, (N,).
        index: The number of each frame in its sequence, (N,).
        subject: The name of the person, (N,).
        name: The name of the frame, (N,).
    """

    sequence: Names | None = None
    index: Indices | None = None
    subject: Names | None = None
    name: Names | None = None

    @classmethod
    def of(
        cls,
        *,
        sequence: Sequence[str] | Names | None = None,
        index: Sequence[int] | Indices | None = None,
        subject: Sequence[str] | Names | None = None,
        name: Sequence[str] | Names | None = None,
    ) -> "FrameTable":
        """Returns the table with these columns."""
        return cls(
            None if sequence is None else _as_names(sequence),
            None if index is None else np.asarray(index, np.int64),
            None if subject is None else _as_names(subject),
            None if name is None else _as_names(name),
        )

    @property
    def columns(self) -> dict[str, Any]:
        """The known columns by name, (N,) each."""
        return {field.name: column for field in fields(self) if (column := getattr(self, field.name)) is not None}

    def take(self, rows: Any) -> "FrameTable":
        """Returns the table of the frames that `rows`, an index of numpy's arrays, selects."""
        return replace(self, **{name: column[rows] for name, column in self.columns.items()})

    @classmethod
    def joined(cls, tables: Sequence["FrameTable"]) -> "FrameTable":
        """Returns the table of the frames of several tables, at least one, that have the same columns."""
        return replace(
            tables[0], **{name: np.concatenate([getattr(t, name) for t in tables]) for name in tables[0].columns}
        )

    def completed(self, n_frames: int, dataset: str) -> "FrameTable":
        """Returns the table with sequences and indices.

        Frames of unknown sequences are one sequence with the name of the dataset. Unknown indices count the frames of
        a sequence in their order.

        Args:
            n_frames: N.
            dataset: The dataset that the frames come from.
        """
        sequence = self.sequence
        if sequence is None:
            sequence = np.full(n_frames, dataset, np.object_)
        index = self.index
        if index is None:
            codes = group_codes(sequence)
            order = np.argsort(codes, kind="stable")  # (N,), frames grouped by sequence
            starts = np.concatenate([[0], np.cumsum(np.bincount(codes))])[:-1]  # of each sequence in this order
            index = np.empty(n_frames, np.int64)
            index[order] = np.arange(n_frames) - starts[codes[order]]
        return replace(self, sequence=sequence, index=index)

    def run_starts(self, n_frames: int) -> npt.NDArray[np.bool_]:
        """Returns which frames begin a run of successive frames, in the order of the table, (N,).

        It is for readers that take frames as they come, as those of a file. `runs` puts frames into order first.
        """
        if self.sequence is None and self.index is None:  # without columns for a million frames
            starts = np.zeros(n_frames, np.bool_)
            starts[:1] = True
            return starts
        return _starts(*self._places(n_frames), max_step=1)

    def runs(self, n_frames: int, *, max_step: int = 1) -> Runs:
        """Returns the frames as runs within sequences, in which the index grows by 1 to `max_step` at a time.

        Frames of unknown sequences are one sequence, and unknown indices are counted, as `completed` does.
        """
        if self.sequence is None and self.index is None:
            return Runs(np.arange(n_frames), [n_frames])
        sequences, index = self._places(n_frames)
        rows = np.lexsort((index, sequences))  # (N,), by sequence, then by index
        starts = np.flatnonzero(_starts(sequences[rows], index[rows], max_step))
        return Runs(rows, np.diff([*starts, n_frames]).tolist())

    def n_triples(self, n_frames: int) -> int:
        """Returns how many times three frames are successive."""
        return sum(max(length - 2, 0) for length in self.runs(n_frames).lengths)

    def has_repeated_places(self, n_frames: int) -> bool:
        """Returns whether several frames have the same index in the same sequence."""
        sequences, index = self._places(n_frames)
        return len(np.unique(sequences * (_MAX_INDEX + 1) + index)) < n_frames

    def _places(self, n_frames: int) -> tuple[Indices, Indices]:
        """Returns the number of each frame's sequence and the frame's index in it, (N,) each."""
        frames = self.completed(n_frames, "")
        assert frames.sequence is not None
        assert frames.index is not None
        return group_codes(frames.sequence), frames.index

    def write(self, path: Path | IO[bytes]) -> None:
        """Writes the table to a file.

        Raises:
            ValueError: If a text cannot be written in UTF-8.
        """
        text = pa.dictionary(pa.int32(), pa.string())
        types = {"index": pa.int64(), "name": pa.string()} | dict.fromkeys(_SHARED, text)
        arrays = {
            name: pa.array(column, pa.string() if types[name] == text else types[name]).cast(types[name])
            for name, column in self.columns.items()
        }
        pq.write_table(pa.table(arrays), path, compression="zstd", write_page_checksum=True)

    @classmethod
    def read(cls, content: bytes, path: Path, n_frames: int, error: type[UserError]) -> "FrameTable":
        """Reads the content of a file.

        Args:
            content: The content.
            path: The file, for error messages.
            n_frames: The number of frames that it must have.
            error: The class of the errors to raise.

        Raises:
            UserError: An `error`, if it is not a table of N frames, has an unknown column or one of a wrong type, or
                lacks a value.
        """
        try:
            file = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True)
            found = file.schema_arrow.names
            n_rows = file.metadata.num_rows
        except Exception as problem:  # what pyarrow raises depends on the damage
            raise error(f"{path} is not a Parquet file that can be read: {problem}") from problem
        known = [field.name for field in fields(cls)]
        for name in found:
            if name not in known:
                raise error(f"{path} has a column {name!r}{did_you_mean(name, known)}")
        if n_rows != n_frames:
            raise error(
                f"{path} has {n_rows} rows, but there are {n_frames} labels; write one row for each sample, in the "
                "order of the samples, or delete the file"
            )
        try:
            table = file.read(use_threads=False)
        except Exception as problem:
            raise error(f"{path} is not a Parquet file that can be read: {problem}") from problem
        columns: dict[str, Any] = {name: _column(table.column(name), name, path, error) for name in found}
        return cls(**columns)


UNKNOWN_FRAMES = FrameTable()
"""The table of frames about which nothing is known."""


def mean_distances_mm(poses: Array, others: Array) -> npt.NDArray[np.float32]:
    """Returns the distance of each pose from another one, (N, J, 3) each, mm, averaged over the joints, (N,), mm."""
    distances: npt.NDArray[np.float32] = np.linalg.norm(poses - others, axis=2).mean(axis=1)  # (N, J, 3) -> (N,)
    return distances


def motion_mm(poses: Array) -> npt.NDArray[np.float32]:
    """Returns the step from each of N poses, (N, J, 3), mm, to the next, averaged over the joints, (N − 1,), mm."""
    steps = np.empty(len(poses) - 1, np.float32)
    for start in range(0, len(steps), _CHUNK):  # keeps copies of a large dataset small
        rows = slice(start, min(start + _CHUNK, len(steps)))
        steps[rows] = mean_distances_mm(poses[rows.start + 1 : rows.stop + 1], poses[rows])
    return steps


def video_frames(labels: Array, borders: Sequence[int] = (), subjects: Mapping[str, slice] | None = None) -> FrameTable:
    """Returns the table of a video's frames, with sequences numbered from 1.

    Args:
        labels: The frames in the order of the video, (N, J, 3), mm; a step beyond `CUT_MM` begins a new sequence.
        borders: Frames that begin a new sequence in any case.
        subjects: The frames of each subject; None if they are not known.
    """
    is_first = np.zeros(len(labels), np.bool_)
    is_first[[0, *borders]] = True
    is_first[1:] |= motion_mm(labels) > CUT_MM
    number = np.cumsum(is_first)  # (N,)
    index = np.arange(len(labels)) - np.flatnonzero(is_first)[number - 1]
    names = np.array([str(i + 1) for i in range(number[-1])], np.object_)[number - 1]
    if subjects is None:
        return FrameTable(names, index)
    subject = np.empty(len(labels), np.object_)
    for name, rows in subjects.items():
        subject[rows] = name
    return FrameTable(names, index, subject)


def is_group_name(text: str) -> bool:
    """Returns whether a text can be the name of a sequence or a subject: 1 to 200 printable characters."""
    return 0 < len(text) <= 200 and text.isprintable()


def group_codes(names: Names) -> Indices:
    """Returns the number of each name, (N,) -> (N,): equal names have equal numbers, from 0 in order of appearance."""
    codes: Indices = pa.array(names, pa.string()).dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def in_order(names: Names) -> list[str]:
    """Returns the different names, in order of appearance."""
    return list(dict.fromkeys(names.tolist()))


def _starts(sequences: Indices, index: Indices, max_step: int) -> npt.NDArray[np.bool_]:
    """Returns which frames, (N,), do not continue the sequence of the frame before them by 1 to `max_step`."""
    steps = np.diff(index)  # (N-1,)
    is_next = (np.diff(sequences) == 0) & (steps >= 1) & (steps <= max_step)
    return np.concatenate([[True], ~is_next])


def _as_names(texts: Sequence[str] | Names) -> Names:
    array = np.empty(len(texts), np.object_)  # np.array would make texts of a fixed width, without NULs at their ends
    array[:] = texts
    return array


def _column(column: Any, name: str, path: Path, error: type[UserError]) -> Names | Indices:
    """Returns a checked column of a table of pyarrow."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_right = (
        pa.types.is_integer(kind) if name == "index" else pa.types.is_string(kind) or pa.types.is_large_string(kind)
    )
    if not is_right:
        raise error(
            f"{path}: the column {name!r} has the type {kind}; expected {'integers' if name == 'index' else 'text'}"
        )
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise error(f"{path}: the column {name!r} has no value in row {row}; leave out columns that are not known")
    if name == "index":
        index = column.to_numpy()
        is_wrong = (index < 0) | (index > _MAX_INDEX)
        if is_wrong.any():
            row = int(np.argmax(is_wrong))
            raise error(f"{path}: the index in row {row} is {index[row]}; expected a number from 0 to {_MAX_INDEX}")
        return np.asarray(index, np.int64)
    try:
        column.validate(full=True)
        if name in _SHARED:
            codes = column.cast(pa.string()).combine_chunks().dictionary_encode()
            texts = codes.dictionary.to_pylist()
            for text in texts:
                if not is_group_name(text):
                    raise error(
                        f"{path}: {text[:50]!r} is not the name of a {name}; expected 1 to 200 printable characters"
                    )
            shared: Names = _as_names(texts)[codes.indices.to_numpy()]
            return shared
        return np.asarray(column.to_numpy(), np.object_)
    except (pa.ArrowException, UnicodeDecodeError) as problem:
        raise error(f"{path}: the column {name!r} is not valid UTF-8 text: {problem}") from problem

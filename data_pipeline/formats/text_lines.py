"""Text files with one frame per line: numbers, optionally after a name."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from data_pipeline.files.regular import open_file
from data_pipeline.files.tensors import LARGEST
from data_pipeline.formats.frames import FormatError

Numbers = npt.NDArray[np.float64]

_BLOCK = 1 << 21  # bytes per read: a few thousand lines

_LONGEST_END = 1 << 10  # bytes of white space after the last line


@dataclass(frozen=True)
class LineFormat:
    """The format of a line.

    Attributes:
        n_numbers: The number of numbers.
        meaning: What the numbers are, for error messages.
        named: Whether the line starts with a name. Then fields are separated by tabs and fields after the numbers are
            ignored; otherwise fields are separated by any white space and nothing may follow the numbers.
    """

    n_numbers: int
    meaning: str
    named: bool = False

    def fields(self, line: bytes) -> tuple[bytes, list[bytes]]:
        """Returns the name, empty if there is none, and the fields that must be numbers."""
        if not self.named:
            return b"", line.split()
        name, tab, rest = line.partition(b"\t")
        # An empty field is a missing number: if it were skipped, a later field would take its place.
        return name, rest.split(b"\t", self.n_numbers)[: self.n_numbers] if tab else []


def read_lines(path: Path, layout: LineFormat, *, skip: int = 0) -> Iterator[tuple[Numbers, tuple[str, ...] | None]]:
    """Yields the numbers, (n, n_numbers), and the names, None without names, of a few thousand lines at a time.

    Any line ending is accepted (ICVL's are space, CR, CR, LF), and so are blank lines at the end of the file.

    Args:
        path: The text file.
        layout: The format of each line.
        skip: The number of header lines to skip.

    Raises:
        FormatError: If the file cannot be read or has no frames; or if a line is blank, has another number of entries,
            or has an entry that is not a number of plausible size.
    """
    number, first_blank, is_empty = skip + 1, 0, True
    for lines in _blocks(path, skip):
        n_lines = len(lines)
        while lines and not lines[-1].strip():
            lines.pop()
        if lines:
            if first_blank:
                raise _blank_error(path, first_blank)
            yield _read(lines, path, number, layout)
            is_empty = False
        if len(lines) < n_lines and not first_blank:
            first_blank = number + len(lines)
        number += n_lines
    if is_empty:
        raise FormatError(f"{path} is empty: it has no frames")


def write_lines(
    file: IO[bytes], numbers: Numbers, separator: str, decimals: int, names: tuple[str, ...] | None = None
) -> None:
    """Writes a line for each row of `numbers`, (n, n_numbers).

    Args:
        file: The file to write to.
        numbers: The numbers.
        separator: The text between two numbers, and after the name.
        decimals: The number of decimals.
        names: The name at the start of each line; None for no names.
    """
    line = separator.join([f"%.{decimals}f"] * numbers.shape[1])
    lines = [line % tuple(row) for row in numbers.tolist()]
    if names is not None:
        lines = [f"{name}{separator}{line}" for name, line in zip(names, lines, strict=True)]
    file.write("".join(f"{line}\n" for line in lines).encode())


def lacks_line_end(path: Path) -> bool:
    """Returns whether a file ends within a line, as a truncated file does.

    Raises:
        FormatError: If it cannot be read.
    """
    try:
        with open_file(path) as file:
            file.seek(max(0, path.stat().st_size - _LONGEST_END))
            return bool(file.read().rpartition(b"\n")[2].strip())
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error


def is_name(text: str) -> bool:
    """Returns whether `text` is a valid frame name: printable characters, except the replacement character."""
    return bool(text) and text.isprintable() and "\ufffd" not in text


def _blocks(path: Path, skip: int) -> Iterator[list[bytes]]:
    """Yields the lines of a file, many at a time.

    They are bytes, because text mode would read the two CRs of ICVL as two line ends, and so that bytes outside ASCII
    are reported for their own line.
    """
    number, rest = skip + 1, b""
    try:
        with open_file(path) as file:
            for _ in range(skip):
                file.readline(_BLOCK)
            while block := file.read(_BLOCK):
                whole, newline, rest = (rest + block).rpartition(b"\n")
                if newline:
                    lines = whole.split(b"\n")
                    number += len(lines)
                    yield lines
                elif len(rest) >= _BLOCK:
                    raise FormatError(
                        f"{path}, line {number} is longer than {_BLOCK:,} bytes; this is not a text file of frames"
                    )
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error
    if rest:
        yield [rest]


def _read(lines: list[bytes], path: Path, first: int, layout: LineFormat) -> tuple[Numbers, tuple[str, ...] | None]:
    """Returns the numbers and names of `lines`, which start at line `first` of the file."""
    numbers = np.empty((len(lines), layout.n_numbers))
    names = []
    for row, line in enumerate(lines):
        name, fields = layout.fields(line)
        try:
            # Reject underscores: Python's float reads 1_0 as 10.
            if len(fields) != layout.n_numbers or b"_" in b" ".join(fields):
                raise ValueError
            numbers[row] = [*map(float, fields)]
        except ValueError:
            raise _line_error(line, path, first + row, layout) from None
        names.append(name)
    sound = np.abs(numbers) <= LARGEST  # (n, n_numbers); with NaN no comparison holds
    if not sound.all():
        row = int(np.argmin(sound.all(axis=1)))
        raise _line_error(lines[row], path, first + row, layout)
    return numbers, _decode(names, path, first) if layout.named else None


def _decode(names: list[bytes], path: Path, first: int) -> tuple[str, ...]:
    texts = []
    for row, name in enumerate(names):
        text = name.decode(errors="replace")
        if not is_name(text):
            raise FormatError(
                f"{path}, line {first + row}: the name is {_shorten(name)}; expected printable characters in UTF-8"
            )
        texts.append(text)
    return tuple(texts)


def _line_error(line: bytes, path: Path, number: int, layout: LineFormat) -> FormatError:
    """Returns the error for an invalid line."""
    if not line.strip():
        return _blank_error(path, number)
    where = f"{path}, line {number}"
    _, fields = layout.fields(line)
    if layout.named and b"\t" not in line and len(line.split()) > layout.n_numbers:
        return FormatError(f"{where} has spaces where tabs are needed, after the name and between the numbers")
    if len(fields) != layout.n_numbers:
        expected = f"expected {layout.n_numbers} numbers, {layout.meaning}"
        if layout.named:
            return FormatError(f"{where} has {len(fields)} entries after its name; {expected}, separated by tabs")
        return FormatError(f"{where} has {len(fields)} entries; {expected}")
    wrong = next(i for i, field in enumerate(fields) if not _is_plausible(field))
    entry = f"entry {wrong + 1} after its name" if layout.named else f"entry {wrong + 1}"
    return FormatError(
        f"{where}: {entry} is {_shorten(fields[wrong])}; expected a finite number of at most ±{LARGEST:.0f}"
    )


def _blank_error(path: Path, number: int) -> FormatError:
    return FormatError(f"{path}, line {number} is blank; only the end of the file may have blank lines")


def _is_plausible(field: bytes) -> bool:
    try:
        number = float(field)
    except ValueError:
        number = math.nan
    return abs(number) <= LARGEST and b"_" not in field


def _shorten(field: bytes) -> str:
    text = field.decode(errors="replace")
    return repr(text if len(text) <= 30 else f"{text[:27]}...")

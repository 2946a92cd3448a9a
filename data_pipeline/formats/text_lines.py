"""Text files that have a frame in each line: its numbers, with or without a name in front."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from data_pipeline.files.tensors import LARGEST
from data_pipeline.formats.frames import FormatError

Numbers = npt.NDArray[np.float64]

_BLOCK = 1 << 21  # bytes that are read at once: some thousand lines

_LONGEST_END = 1 << 10  # bytes; of white space after the last line


@dataclass(frozen=True)
class LineFormat:
    """What a line has to hold.

    Attributes:
        n_numbers: How many numbers.
        meaning: What they are, for the errors.
        named: Whether a name stands in front. Then everything is split by tabs, and what follows the numbers is
            ignored; without a name any white space splits, and nothing may follow.
    """

    n_numbers: int
    meaning: str
    named: bool = False

    def fields(self, line: bytes) -> tuple[bytes, list[bytes]]:
        """Returns the name, empty without one, and the fields that have to be numbers."""
        if not self.named:
            return b"", line.split()
        name, tab, rest = line.partition(b"\t")
        # An empty field is a missing number: were it skipped, a number of what follows would take its place.
        return name, rest.split(b"\t", self.n_numbers)[: self.n_numbers] if tab else []


def read_lines(path: Path, layout: LineFormat, *, skip: int = 0) -> Iterator[tuple[Numbers, tuple[str, ...] | None]]:
    """Yields the numbers, (n, n_numbers), and the names, None without them, of some thousand lines at a time.

    Any line ending is read (ICVL's are space, CR, CR, LF), and so are blank lines at the end of the file.

    Args:
        path: The text file.
        layout: What each line has to hold.
        skip: How many lines at the beginning are something else.

    Raises:
        FormatError: If the file cannot be read or has no frames; or if a line is blank, has another number of
            numbers, or holds something that is not a number of a sensible size.
    """
    number, first_blank, is_empty = skip + 1, 0, True
    for lines in _blocks(path, skip):
        n_lines = len(lines)
        while lines and not lines[-1].strip():
            lines.pop()
        if lines:
            if first_blank:
                raise _blank(path, first_blank)
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
        file: What is written to.
        numbers: What the lines hold.
        separator: What stands between two of them, and after the name.
        decimals: How many decimals a number has.
        names: What stands in front of each line; None for nothing.
    """
    line = separator.join([f"%.{decimals}f"] * numbers.shape[1])
    lines = [line % tuple(row) for row in numbers.tolist()]
    if names is not None:
        lines = [f"{name}{separator}{line}" for name, line in zip(names, lines, strict=True)]
    file.write("".join(f"{line}\n" for line in lines).encode())


def lacks_line_end(path: Path) -> bool:
    """Tells whether a file ends within a line, as where it was cut.

    Raises:
        FormatError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LONGEST_END))
            return bool(file.read().rpartition(b"\n")[2].strip())
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error


def is_name(text: str) -> bool:
    """Tells whether a frame may be called so: printable characters, the replacement character not among them."""
    return bool(text) and text.isprintable() and "\ufffd" not in text


def _blocks(path: Path, skip: int) -> Iterator[list[bytes]]:
    """Yields the lines of a file, many at a time.

    They are bytes, since text mode would take the two CRs of ICVL for two lines; and any byte outside ASCII
    fails as a number in its own line.
    """
    number, rest = skip + 1, b""
    try:
        with path.open("rb") as file:
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
                        f"{path}, line {number} is longer than {_BLOCK:,} bytes; this is no text of frames"
                    )
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error
    if rest:
        yield [rest]


def _read(lines: list[bytes], path: Path, first: int, layout: LineFormat) -> tuple[Numbers, tuple[str, ...] | None]:
    """Returns the numbers and names of `lines`, of which the file's line `first` is the first."""
    numbers = np.empty((len(lines), layout.n_numbers))
    names = []
    for row, line in enumerate(lines):
        name, fields = layout.fields(line)
        try:
            # The underscore is Python's own: float reads 1_0 as 10.
            if len(fields) != layout.n_numbers or b"_" in b" ".join(fields):
                raise ValueError
            numbers[row] = [*map(float, fields)]
        except ValueError:
            raise _flaw(line, path, first + row, layout) from None
        names.append(name)
    sound = np.abs(numbers) <= LARGEST  # (n, n_numbers); with NaN no comparison holds
    if not sound.all():
        row = int(np.argmin(sound.all(axis=1)))
        raise _flaw(lines[row], path, first + row, layout)
    return numbers, _decoded(names, path, first) if layout.named else None


def _decoded(names: list[bytes], path: Path, first: int) -> tuple[str, ...]:
    texts = []
    for row, name in enumerate(names):
        text = name.decode(errors="replace")
        if not is_name(text):
            raise FormatError(
                f"{path}, line {first + row}: the name is {_shown(name)}; expected printable characters in UTF-8"
            )
        texts.append(text)
    return tuple(texts)


def _flaw(line: bytes, path: Path, number: int, layout: LineFormat) -> FormatError:
    """Returns what is wrong with a line in which something is."""
    if not line.strip():
        return _blank(path, number)
    where = f"{path}, line {number}"
    _, fields = layout.fields(line)
    if layout.named and b"\t" not in line and len(line.split()) > layout.n_numbers:
        return FormatError(f"{where} has spaces where tabs are needed, after the name and between the numbers")
    if len(fields) != layout.n_numbers:
        expected = f"expected {layout.n_numbers} numbers, {layout.meaning}"
        if layout.named:
            return FormatError(f"{where} has {len(fields)} entries after its name; {expected}, split by tabs")
        return FormatError(f"{where} has {len(fields)} entries; {expected}")
    wrong = next(i for i, field in enumerate(fields) if not _is_sensible(field))
    entry = f"entry {wrong + 1} after its name" if layout.named else f"entry {wrong + 1}"
    return FormatError(
        f"{where}: {entry} is {_shown(fields[wrong])}; expected a finite number, at most {LARGEST:.0f} in size"
    )


def _blank(path: Path, number: int) -> FormatError:
    return FormatError(f"{path}, line {number} is blank; only the end of the file may have blank lines")


def _is_sensible(field: bytes) -> bool:
    try:
        number = float(field)
    except ValueError:
        number = math.nan
    return abs(number) <= LARGEST and b"_" not in field


def _shown(field: bytes) -> str:
    text = field.decode(errors="replace")
    return repr(text if len(text) <= 30 else f"{text[:27]}...")

"""What a command writes to: a name that can be told apart, and places that are free."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.dataset_name import NAME_RULE, is_dataset_name
from data_pipeline.files.replacement import finish_replacing, replaced_together
from data_pipeline.pose_dataset import dataset_path
from data_pipeline.preparation.chunks import progress
from data_pipeline.preparation.parts import Part, part_name
from data_pipeline.preparation.splits import ALL_PART, PARTS
from data_pipeline.subsets import SUBSET_RULE, is_subset_name
from data_pipeline.user_error import UserError

_LONGEST_NAME = 100  # leaves room for what files have behind it


class TargetError(UserError):
    """A name is none, or what it names is there already."""


@dataclass(frozen=True)
class Target:
    """Where a command writes.

    Attributes:
        data_dir: The data folder.
        name: What the datasets, without the part, or the tables are called.
        force: Whether what is there already may be replaced.

    Raises:
        TargetError: If `name` cannot be the name of a dataset.
    """

    data_dir: Path
    name: str
    force: bool

    def __post_init__(self) -> None:
        if not is_dataset_name(self.name) or len(self.name) > _LONGEST_NAME:
            raise TargetError(f"--name: {self.name!r} is not a name: {NAME_RULE}, {_LONGEST_NAME} characters at most")

    def check(self, *, datasets: Iterable[str] = (), files: Iterable[str] = ()) -> None:
        """Checks that datasets and files can be written.

        Raises:
            TargetError: If the data folder is none or, without `force`, if it has one of them already.
        """
        if self.data_dir.exists() and not self.data_dir.is_dir():
            raise TargetError(f"--data-dir {self.data_dir} is not a folder")
        finish_replacing(self.data_dir, TargetError)
        existing = [name for name in datasets if _exists(self.data_dir, name)]
        existing += [file for file in files if (self.data_dir / file).exists()]
        if existing and not self.force:
            raise TargetError(
                f"{self.data_dir} already has {', '.join(existing)}; choose another --name, or overwrite with --force"
            )

    @contextmanager
    def replaced(self, *, datasets: Sequence[str] = (), files: Sequence[str] = ()) -> Iterator[Path]:
        """Yields the folder to write datasets and files to, which take their places at the block's end.

        Raises:
            TargetError: As `check`: another process may have written them since.
            ReplacementError: If the data folder cannot be written to.
        """
        with replaced_together(self.data_dir) as folder:
            self.check(datasets=datasets, files=files)
            with progress(f"writing to {self.data_dir}", None):
                yield folder

    def left_over(self, parts: Sequence[Part], source: str | None) -> list[str]:
        """Returns what is there of the same datasets, but another part: it may have frames that now train.

        Args:
            parts: What is written.
            source: The dataset that they are made of, which is not meant; None for none.
        """
        family = {part_name(part.base, other) for part in parts for other in (*PARTS, ALL_PART)}
        others = family - {part.name for part in parts} - {source}
        return sorted(name for name in others if _exists(self.data_dir, name))


def check_subsets(names: Sequence[str], option: str) -> None:
    """Raises a `TargetError` if `names`, given with `option`, cannot be the subsets of one dataset."""
    for i, name in enumerate(names):
        if not is_subset_name(name):
            raise TargetError(f"{option}: a subset cannot be called {name!r}: {SUBSET_RULE}")
        if name in names[:i]:
            raise TargetError(f"{option}: the name {name!r} is given twice")


def _exists(data_dir: Path, name: str) -> bool:
    return any(dataset_path(data_dir, name, part).exists() for part in ("labels", "poses", "names"))

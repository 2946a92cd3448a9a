"""The datasets and files that a command writes: valid names, and no accidental overwriting."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.dataset_name import NAME_RULE, is_dataset_name
from data_pipeline.files.replacement import finish_replacing, replace_together
from data_pipeline.pose_dataset import dataset_exists
from data_pipeline.preparation.chunks import progress
from data_pipeline.preparation.parts import DatasetPart, dataset_name
from data_pipeline.preparation.splits.split import ALL_PART, PARTS
from data_pipeline.subsets import SUBSET_RULE, is_subset_name
from data_pipeline.user_error import UserError

_LONGEST_NAME = 100  # leaves room for the suffixes of file names


@dataclass(frozen=True)
class Target:
    """Where a command writes.

    Attributes:
        data_dir: The data folder.
        name: The name of the datasets, without the part, or of the tables.
        force: Whether to overwrite existing files.

    Raises:
        UserError: If `name` cannot be the name of a dataset.
    """

    data_dir: Path
    name: str
    force: bool

    def __post_init__(self) -> None:
        if not is_dataset_name(self.name) or len(self.name) > _LONGEST_NAME:
            raise UserError(
                f"--name: {self.name!r} is not a valid name: {NAME_RULE}, {_LONGEST_NAME} characters at most"
            )

    def check(self, *, datasets: Iterable[str] = (), files: Iterable[str] = ()) -> None:
        """Checks that datasets and files can be written.

        Raises:
            UserError: If the data folder is not a folder or, without `force`, if one of them exists.
        """
        if self.data_dir.exists() and not self.data_dir.is_dir():
            raise UserError(f"--data-dir {self.data_dir} is not a folder")
        finish_replacing(self.data_dir, UserError)
        existing = [name for name in datasets if dataset_exists(self.data_dir, name)]
        existing += [file for file in files if (self.data_dir / file).exists()]
        if existing and not self.force:
            raise UserError(
                f"{self.data_dir} already has {', '.join(existing)}; choose another --name, or overwrite with --force"
            )

    @contextmanager
    def writing(self, *, datasets: Sequence[str] = (), files: Sequence[str] = ()) -> Iterator[Path]:
        """Yields a folder to write datasets and files to; they are moved to the data folder at the end of the block.

        Raises:
            UserError: As `check`, because another process may have written them since; or if the data folder cannot be
                written to.
        """
        with replace_together(self.data_dir) as folder:
            self.check(datasets=datasets, files=files)
            with progress(f"writing to {self.data_dir}", None):
                yield folder

    def other_parts(self, parts: Sequence[DatasetPart], source: str | None) -> list[str]:
        """Returns existing datasets for other parts of the same base names: they may share frames with the new ones.

        Args:
            parts: The datasets that are written.
            source: The dataset that they were made from, which is not reported; None for none.
        """
        family = {dataset_name(part.base, other) for part in parts for other in (*PARTS, ALL_PART)}
        others = family - {part.name for part in parts} - {source}
        return sorted(name for name in others if dataset_exists(self.data_dir, name))


def check_subsets(names: Sequence[str], option: str) -> None:
    """Raises a `UserError` if `names`, the value of `option`, cannot be the subsets of one dataset."""
    for i, name in enumerate(names):
        if not is_subset_name(name):
            raise UserError(f"{option}: {name!r} is not a valid subset name: {SUBSET_RULE}")
        if name in names[:i]:
            raise UserError(f"{option}: the name {name!r} is given twice")

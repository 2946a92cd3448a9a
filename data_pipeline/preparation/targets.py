"""What a command writes to: a name that can be told apart, and places that are free."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.dataset_name import DATASET_NAME
from data_pipeline.pose_dataset import dataset_path
from data_pipeline.preparation.parts import Part, part_name
from data_pipeline.splits import ALL_PART, PARTS
from data_pipeline.subsets import MEAN_SUBSET
from data_pipeline.user_error import UserError


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
        _check_name(self.name, "--name")
        if not DATASET_NAME.fullmatch(self.name):
            raise TargetError(f"--name: {self.name!r} is not a name of datasets; it begins with a letter or digit")

    def check_datasets(self, parts: Sequence[str], bases: Iterable[str] | None = None) -> None:
        """Checks that datasets can be written.

        Args:
            parts: The parts that are written.
            bases: What the datasets are called, without the part; None for `name` alone.

        Raises:
            TargetError: If the data folder is none or, without `force`, if it has one of them already.
        """
        names = [part_name(base, part) for base in bases or [self.name] for part in parts]
        self._check([name for name in names if _exists(self.data_dir, name)])

    def check_files(self, files: Iterable[str]) -> None:
        """Checks that files can be written; raises a `TargetError` as for datasets."""
        self._check([file for file in files if (self.data_dir / file).exists()])

    def left_over(self, parts: Iterable[Part]) -> list[str]:
        """Returns what is there of the same datasets, but another part: it may have frames that now train."""
        family = {part_name(part.base, other) for part in parts for other in (*PARTS, ALL_PART)}
        return sorted(name for name in family - {part.name for part in parts} if _exists(self.data_dir, name))

    def _check(self, existing: Sequence[str]) -> None:
        if self.data_dir.exists() and not self.data_dir.is_dir():
            raise TargetError(f"--data-dir {self.data_dir} is not a folder")
        if existing and not self.force:
            raise TargetError(
                f"{self.data_dir} already has {', '.join(existing)}; choose another --name, or overwrite with --force"
            )


def check_subsets(names: Sequence[str], option: str) -> None:
    """Raises a `TargetError` if `names`, given with `option`, cannot be the subsets of one dataset."""
    for i, name in enumerate(names):
        _check_name(name, option)
        if name == MEAN_SUBSET:
            raise TargetError(f"{option}: the name {name!r} is taken, for the mean over subsets; choose another")
        if name in names[:i]:
            raise TargetError(f"{option}: the name {name!r} is given twice")


def _check_name(name: str, option: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._+-]{1,100}", name):
        raise TargetError(f"{option}: {name!r} is not a name; a name has 1 to 100 letters, digits, '.', '_', '+', '-'")


def _exists(data_dir: Path, name: str) -> bool:
    return any(dataset_path(data_dir, name, part).exists() for part in ("labels", "poses", "names"))

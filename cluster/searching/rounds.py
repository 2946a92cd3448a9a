"""The file of a search's round, `search/0000.json`: what the round proposed, and from which results."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cluster.searching.dimensions import Choice, Choices
from cluster.searching.samplers import Proposing
from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import Storage
from cluster.storage.json_object import json_object, read_as
from data_pipeline.user_error import UserError

MAX_ROUND_BYTES = 2**26

NEW_SEARCH = (
    "Undo the change, give the experiment another name, or remove the folder search/; the search then starts over, but "
    "does not train finished trials again"
)


class SearchError(UserError):
    """The rounds on disk belong to another search or are broken, or a search finds no further combination."""

    @classmethod
    def broken(cls, folder: Storage, number: int, why: str) -> "SearchError":
        """Returns the error for a broken round, with the reason."""
        return cls(
            f"{folder.location}/{FileNames.search_round(number)} is broken: {why}. Remove this file and those with "
            "higher numbers; the search then proposes these rounds again"
        )


@dataclass(frozen=True)
class Round:
    """A round of a search, as its file records it. Choices are indices of rows in `space`, or values in its ranges.

    Attributes:
        sampler: The sampler.
        seed: The experiment's seed.
        round_size: How many combinations a round proposes.
        space: The options and ranges.
        points: The combinations that the search tries first.
        results_mm: The mean error of each combination of earlier rounds, in order, mm; None if it diverged.
        versions: The versions of the packages that the proposals depend on, by name.
        proposals: The combinations that this round proposes.
        keys: The keys of the combinations that are trained for it; with folds, each proposal has several.
        passed_over: What the sampler chose first, but could not be trained.
    """

    sampler: str
    seed: int
    round_size: int
    space: Sequence[Mapping[str, Any]]
    points: Sequence[tuple[Choice, ...]]
    results_mm: Sequence[float | None]
    versions: Mapping[str, str]
    proposals: Sequence[tuple[Choice, ...]]
    keys: Sequence[str]
    passed_over: Sequence[tuple[Choice, ...]] = ()

    def more(self, proposing: Proposing, earlier: Sequence[Choices], n: int) -> list[Choices]:
        """Returns `n` proposals: those that the round has, and then new ones.

        Args:
            proposing: What all proposals have in common, except for the points, which the round has.
            earlier: The combinations of earlier rounds.
            n: How many proposals.

        Raises:
            UserError: If no new combination is found.
        """
        proposing = replace(proposing, points=self.points)
        results, found = dict(zip(earlier, self.results_mm, strict=True)), list(self.proposals)
        while len(found) < n:
            found.append(proposing.next(results, found))
        return found

    def first(self, n: int) -> "Round":
        """Returns the round with only its first proposals, at most `n`."""
        n_keys = len(self.keys) // max(1, len(self.proposals))  # of a proposal: with folds, one for each fold
        return replace(self, proposals=self.proposals[:n], keys=self.keys[: n * n_keys])


def read_round(folder: Storage, number: int) -> Round | None:
    """Returns round `number`, counted from 0; None if it has no file.

    Raises:
        SearchError: If the file is broken.
        StorageError: If it cannot be read.
    """
    content = folder.read(FileNames.search_round(number), at_most=MAX_ROUND_BYTES)
    if content is None:
        return None
    try:
        found: Round = read_as(Round, json_object(content), "it")
        return found
    except ValueError as error:
        raise SearchError.broken(folder, number, str(error)) from error


def write_round(folder: Storage, number: int, content: Round) -> None:
    """Writes the file of a round."""
    text = json.dumps(asdict(content), indent=1, ensure_ascii=False) + "\n"
    folder.write(FileNames.search_round(number), text.encode())


def require_same(found: Round, expected: Round, where: str) -> None:
    """Raises a SearchError unless two rounds belong to the same search."""
    for name in ("sampler", "seed", "round_size"):
        then, now = getattr(found, name), getattr(expected, name)
        if then != now:
            raise SearchError(f"{where} was started with the {name} {then!r}, which is now {now!r}. {NEW_SEARCH}")
    if found.space != expected.space:
        new = [" & ".join(axis["paths"]) for axis in expected.space if axis not in found.space]
        of = f"; new or changed: {', '.join(new)}" if new else " (fewer, or in another order)"
        raise SearchError(f"{where} was started with other options or ranges{of}. {NEW_SEARCH}")

"""The settings of a search: which sampler, and how many combinations."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from data_pipeline.words import count

Sampler = Literal["tpe", "random", "sobol"]


@dataclass(frozen=True)
class Search:
    """Proposes combinations of ranges and options instead of training the whole grid.

    It proposes them in rounds. A round depends only on the results of earlier rounds and on the experiment's seed. So
    the proposals are the same with any number of workers, and after an interruption.

    Args:
        sampler: "tpe" proposes combinations that resemble the best so far (Bergstra et al., "Algorithms for
            Hyper-Parameter Optimization", 2011; implemented by Optuna). "random" and "sobol" ignore results; "sobol"
            covers the space evenly.
        n_combinations: How many combinations are trained in total, over all runs. You can raise it later: 40 and then
            80 are the same combinations as 80 at once; in a raced search, only if the last round was complete.
        round_size: How many combinations a round proposes. More keep more devices busy; fewer let "tpe" learn sooner.
    """

    sampler: Sampler
    n_combinations: int
    round_size: int = 8

    @property
    def wrong(self) -> dict[str, str]:
        """What is allowed for each setting that is wrong."""
        counts = [name for name in ("n_combinations", "round_size") if not _is_count(getattr(self, name))]
        wrong = dict.fromkeys(counts, "an int of at least 1")
        names = get_args(Sampler)
        if self.sampler not in names:
            wrong["sampler"] = f"one of {', '.join(map(repr, names))}"
        return wrong

    @property
    def n_rounds(self) -> int:
        """The number of rounds; the last one may be smaller."""
        return -(-self.n_combinations // self.round_size)

    def size(self, number: int) -> int:
        """Returns how many combinations a round proposes, by its number from 0."""
        return max(0, min(self.round_size, self.n_combinations - number * self.round_size))

    def __str__(self) -> str:
        rounds = f"{count(self.n_rounds, 'round')} of {self.size(0)}"
        return f"{self.sampler}, {count(self.n_combinations, 'combination')} in {rounds}"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1

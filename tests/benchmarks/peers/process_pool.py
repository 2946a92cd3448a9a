"""The sweep with a pool of processes of Python's standard library.

The script writes the learning curve and the best weights of each training. It records nothing else, starts again from
the beginning if it is interrupted, and ends at the first exception.
"""

from functools import partial
from multiprocessing import Pool
from typing import Any

from tests.benchmarks.peers.training import N_CORES, Sweep, save, train


def run(sweep: Sweep, settings: dict[str, Any]) -> None:
    epochs = list(train(sweep.data, n_epochs=sweep.n_epochs, batch_size=sweep.batch_size, **settings))
    save(sweep.out / ",".join(f"{name}={value}" for name, value in settings.items()), settings, epochs)


if __name__ == "__main__":
    sweep = Sweep.from_command_line()
    with Pool(N_CORES) as pool:
        for _ in pool.imap_unordered(partial(run, sweep), sweep.settings()):
            pass

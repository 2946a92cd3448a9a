"""Measures reading and importing an annotation file as large as that of HANDS17, on one core: seconds and memory.

The file has 957,032 lines. Bound: 60 s and 2 GB. *Read* means that the format reads all frames and keeps them with
their names; *imported* means `prepare_data.py import` as a user runs it, from the file to the dataset on disk. Each
runs in a separate process; its memory is the peak of this process, including torch.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data_pipeline.formats.frames import Frames
from data_pipeline.formats.hands17 import write
from data_pipeline.preparation.synthetic import synthetic_hands
from tests.support import ROOT

N_LINES, N_HANDS = 957_032, 4_000

READ = """
import sys
from pathlib import Path
from data_pipeline.formats import hands17
frames = [*hands17.read(Path(sys.argv[1]))]
"""


def write_annotation(path: Path) -> None:
    """Writes `N_LINES` frames that repeat the same hands; each frame has its own name."""
    hands = synthetic_hands(N_HANDS, seed=0)

    def name(number: int) -> str:
        return f"image_D{number:08d}.png"

    write(
        path,
        (
            Frames(hands[: N_LINES - first], tuple(map(name, range(first, min(first + N_HANDS, N_LINES)))))
            for first in range(0, N_LINES, N_HANDS)
        ),
    )


def measure(what: str, *command: str | Path) -> None:
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        sys.exit(f"{what}: the process failed")
    print(f"{what:9}{seconds:6.1f} s, {usage.ru_maxrss / 2**20:.2f} GB; bound 60 s and 2 GB")


if __name__ == "__main__":
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "Training_Annotation.txt"
        write_annotation(file)
        print(f"{N_LINES:,} lines, {file.stat().st_size / 1e9:.2f} GB")
        measure("read", "-c", READ, file)
        measure(
            "imported",
            *("tune_runs/prepare_data.py", "import", "--format", "hands17", "--name", "hands17"),
            *("--labels", file, "--data-dir", Path(folder) / "data"),
        )

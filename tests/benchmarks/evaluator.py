"""Measures the evaluator on a million poses with one thread: seconds per metric, and whether memory grows with poses.

Bound: 3 s per metric, and the same peak memory for a million poses as for a tenth of them. An evaluation computes all
metrics together, so the time per metric is its share; it includes the forward pass of a small MLP.
"""

import multiprocessing
import resource
import time

import torch

from data_pipeline.batch import DeviceDataset
from data_pipeline.normalizers import Shifter
from data_pipeline.skeleton import HANDS17
from posenet.evaluator import Evaluator
from posenet.models import CorrectorMLP
from posenet.reproducible import reproducible_process


def measure(n_poses: int) -> tuple[dict[str, tuple[float, int]], float]:
    """Returns the seconds and the number of metrics of each evaluation, and the memory that they used, MB."""
    labels = torch.randn(n_poses, 21, 3, generator=torch.Generator().manual_seed(0)).mul_(50)
    data = DeviceDataset(labels, {"A": labels + 6}, HANDS17)
    evaluator = Evaluator(data, normalizer=Shifter(HANDS17), eval_space="original")
    model = CorrectorMLP(HANDS17, hidden_dims=[256, 256])
    times = {}
    with reproducible_process(threads=1, deterministic=True, matmul_precision="highest"):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for name, evaluate in {"intermediate": evaluator.intermediate, "final": evaluator.final}.items():
            start = time.perf_counter()
            n_metrics = len({m.metric for m in evaluate(model)})
            times[name] = (time.perf_counter() - start, n_metrics)
        peak_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return times, peak_mb


if __name__ == "__main__":
    memory = {}
    for n_poses in (100_000, 1_000_000):
        with multiprocessing.get_context("spawn").Pool(1) as process:
            times, memory[n_poses] = process.apply(measure, [n_poses])
        for name, (seconds, n_metrics) in times.items():
            each = f"{seconds / n_metrics:.3f} s each"
            print(f"{n_poses:9,} poses, {name:12} {seconds:6.2f} s for {n_metrics:3} metrics: {each}")
    few, many = memory.values()
    print(
        f"memory: {few:.0f} MB on 100,000 poses, {many:.0f} MB on 1,000,000; bound 3 s per metric and the same memory"
    )

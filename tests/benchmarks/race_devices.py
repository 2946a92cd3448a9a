"""Measures how much of the time of four devices a race uses if its trials differ in duration by a factor of four.

An epoch mostly sleeps, for 0.25 to 1 s depending on the combination, so that four trials at a time do not compete for
this machine's cores. A device is in use from the beginning to the end of an epoch; the time that Ray and files take
between two steps counts as idle. The measured time ends with the last epoch, so it includes devices that wait for the
last finalist. The shares of single devices show whether one of them had no worker for a while. Bound: 90 %.
"""

import os
import tempfile
import time
from pathlib import Path

import torch
from ray.cluster_utils import Cluster

from cluster.planning.placement import PRETEND_GPUS
from cluster.racing.successive_halving import SuccessiveHalving
from posenet.solver import EpochReport
from tests.benchmarks.sweeps import experiment, run_quietly, write_random_dataset

N_DEVICES = 4
LOG = "POSETUNE_RACE_DEVICES_LOG"


def sleep(trial_id: str, report: EpochReport, model: torch.nn.Module) -> None:
    """Makes the duration of an epoch proportional to the width of the model, and logs when it began and ended."""
    width = next(parameter.shape[0] for parameter in model.parameters())
    began = time.time()
    time.sleep(0.25 * width / 8)
    with Path(os.environ[LOG]).open("a") as log:
        log.write(f"{os.environ['CUDA_VISIBLE_DEVICES']} {began} {time.time()}\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {LOG: str(folder / "log"), PRETEND_GPUS: "1"}
        node = {"num_cpus": N_DEVICES, "num_gpus": N_DEVICES, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        os.environ["POSETUNE_ADDRESS"] = cluster.address
        for part in ("train", "val"):
            write_random_dataset(folder / "data", part, 64)
        race = experiment(
            folder,
            solver_config={"batch_size": 64, "num_epochs": 27, "callbacks": [sleep]},
            name="race",
            n_repetitions=3,
            target_device="cuda",
            race=SuccessiveHalving(),
            keep_weights="none",
        )
        race.add_options("model_args.hidden_dims", [[8], [16], [24], [32]])
        race.add_options("optimizer_args.lr", [1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3, 6.4e-3, 1.28e-2])
        said = run_quietly(race, "ray")
        epochs = [line.split() for line in (folder / "log").read_text().splitlines()]
        wall = max(float(end) for *_, end in epochs) - min(float(began) for _, began, _ in epochs)
        use = dict.fromkeys(map(str, range(N_DEVICES)), 0.0)
        for device, began, end in epochs:
            use[device] += 100 * (float(end) - float(began)) / wall
        total = sum(use.values()) / N_DEVICES
        each = ", ".join(f"{share:.1f}" for share in use.values())
        print(f"{len(epochs)} epochs in {wall:.1f} s on {N_DEVICES} devices: {total:.1f} % in use ({each} % of each)")
        print("\n".join(line for line in said.splitlines() if "in vain" in line) or "no epochs in vain")
        cluster.shutdown()

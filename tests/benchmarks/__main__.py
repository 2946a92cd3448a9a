"""Runs all benchmarks, or those named on the command line, each in a separate process."""

import subprocess
import sys

NAMES = (
    "epoch",
    "inputs",
    "evaluator",
    "gnn",
    "hands17",
    "ray_overhead",
    "start_and_end",
    "shared_data",
    "planning",
    "reports",
    "races",
    "race_devices",
    "peers",
)

for name in sys.argv[1:] or NAMES:
    print(f"\n== {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], check=True)

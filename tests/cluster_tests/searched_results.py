"""An experiment as a search leaves it on disk, with drawn proposals."""

import numpy as np

from tests.cluster_tests.experiment_files import write_experiment
from tests.cluster_tests.results_files import experiment_json

LR, DROPOUT, MODEL = "optimizer_args.lr", "model_args.dropout", "model"
AXES = [
    {"paths": [LR], "range": {"low": 1e-5, "high": 1e-1, "log": True}},
    {"paths": [DROPOUT], "range": {"low": 0.0, "high": 0.5}},
    {"paths": [MODEL], "rows": [["mlp"], ["gnn"]]},
]


def drawn_proposals(n=24):
    """Draws combinations; every fourth has the other model, to which dropout does not apply."""
    rng = np.random.default_rng(0)
    return [
        {
            LR: float(f"{10 ** rng.uniform(-5, -1):.4g}"),
            DROPOUT: "–" if place % 4 == 3 else float(f"{rng.uniform(0, 0.5):.4g}"),
            MODEL: ("mlp", "gnn")[place % 4 == 3],
        }
        for place in range(n)
    ]


def error_of(options):
    """The validation error of a combination, mm: it is lowest at a learning rate of 0.001."""
    return 9 + (np.log10(options[LR]) + 3) ** 2


def write_searched_results(path, found=None, errors=None, axes=AXES):
    """Writes an experiment; the errors are the outcomes of repetitions, see `write_experiment`."""
    found = found or drawn_proposals()
    errors = [[error_of(options)] for options in found] if errors is None else errors
    folder = write_experiment(path / "search", list(zip(found, errors, strict=True)), axes=axes)
    content = experiment_json(folder)
    content["configs"]["experiment_config"]["search"] = {"name": "Search", "args": {"sampler": "tpe"}}
    folder.write_experiment(content)
    return folder

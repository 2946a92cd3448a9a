r"""Corrects an unseen person: NYU's test set shows two people; one is tested, the other chooses the settings.

The authors of the papers published the predictions (github.com/xinghaochen/awesome-hand-pose-estimation, folder
evaluation/). With the files for NYU in $D, these commands make the datasets:

    python tune_runs/prepare_data.py leaderboard --dataset nyu --name people --separate --split subjects:20%:2:100 \
        --folds --ground-truth $D/nyu_test_groundtruth_label.txt \
        --predictions Pose-REN=$D/NEUCOM18_NYU_Pose_REN.txt DeepModel=$D/IJCAI16_NYU_DeepModel.txt \
                      DeepPrior=$D/CVWW15_NYU_Prior.txt "DeepPrior++=$D/ICCVW17_NYU_DeepPrior++.txt"
    python tune_runs/prepare_data.py leaderboard --dataset nyu --name people_two --split subjects:20%:2:100 \
        --folds --ground-truth $D/nyu_test_groundtruth_label.txt \
        --predictions Pose-REN=$D/NEUCOM18_NYU_Pose_REN.txt "DeepPrior++=$D/ICCVW17_NYU_DeepPrior++.txt"

Each backbone is smoothed over time; in addition, Pose-REN and DeepPrior++ are smoothed and fused, as their plain mean
and as a mean in which the steadier one counts more. Nothing is trained, so the whole other person chooses the width of
the smoothing.
"""

import argparse
from pathlib import Path
from typing import Any

from tabulate import tabulate

from cluster.experiment import Experiment
from cluster.reports.tables.summary import percent_and_interval
from cluster.results.change_intervals import change_intervals
from cluster.results.results import Results
from cluster.results.rows import SummaryColumns
from data_pipeline.normalizers import Shifter
from data_pipeline.pose_dataset import dataset_path
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import Corrector, GaussianSmoother, MeanFusion, SteadinessFusion

BACKBONES = ["people_Pose-REN", "people_DeepModel", "people_DeepPrior", "people_DeepPrior++"]

BOTH = "people_two"

FUSIONS: dict[str, type[Corrector]] = {
    "mean of Pose-REN and DeepPrior++": MeanFusion,
    "the same, the steadier counts more": SteadinessFusion,
}

FOLDS = {"1 → 2": ("fold2", "fold1"), "2 → 1": ("fold1", "fold2")}
"""The fold that tests the person who chooses, and the one that tests the other person."""

experiment_config: dict[str, Any] = {
    "name": "nyu_people",
    "train_set": "people_Pose-REN_fold1_train",  # the sets are varied below
    "val_set": "people_Pose-REN_fold1_val",
    "test_set": "people_Pose-REN_fold1_test",
    "normalizer": Shifter,
    "n_repetitions": 1,  # all repetitions are equal: there are no random numbers
}

solver_config = {
    "num_epochs": 1,
    "batch_size": 256,
}

base_hyperparams: dict[str, Any] = {
    "model": GaussianSmoother,
    "model_args": {"sigma": 1.0},
    "loss_function": MetricLoss(errors.coordinate_difference, "absolute"),
    "optimizer": None,  # nothing is trained
}

WIDTHS = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0]


def smooth(data_dir: Path, datasets: list[str], **changes: Any) -> Results:
    """Smooths datasets with every width, in both directions."""
    config = {**experiment_config, "data_dir": data_dir, **changes.pop("experiment", {})}
    experiment = Experiment(config, solver_config, {**base_hyperparams, **changes})
    experiment.add_joint_options(
        [f"experiment_config.{split}_set" for split in ("train", "val", "test")],
        [
            # What a fold tests is all frames of one person.
            [f"{name}_{tested}_train", f"{name}_{choosing}_test", f"{name}_{tested}_test"]
            for name in datasets
            for choosing, tested in FOLDS.values()
        ],
    )
    experiment.add_options("model_args.sigma", WIDTHS)
    return experiment.run("inline")


def people_table(single: Results, fused: dict[str, Results]) -> str:
    """Returns a row for each direction and backbone, or way to fuse: the error of the width best on the other person.

    Args:
        single: The results of the single backbones.
        fused: Those of each way to fuse the two, by its title.
    """
    titles = {name.removeprefix("people_"): (name, single) for name in BACKBONES}
    titles |= {title: (BOTH, table) for title, table in fused.items()}
    rows = []
    for title, (name, table) in titles.items():
        best = {row["experiment_config.test_set"]: row for row in table.best_for_each("experiment_config.test_set")}
        for direction, (_, tested) in FOLDS.items():
            row = best[f"{name}_{tested}_test"]
            before, after, _, _, percent = (row[column] for column in SummaryColumns.of("test"))
            change = percent_and_interval(percent, change_intervals(table, row, "test"))
            rows.append([title, direction, f"{before:.2f}", f"{after:.2f}", change, row["model_args.sigma"]])
    headers = ["backbone", "chosen on → tested on", "before (mm)", "after (mm)", "Δ", "width (frames)"]
    alignment = ["left", "left", "right", "right", "right", "right"]
    return tabulate(rows, headers, tablefmt="simple", colalign=alignment, disable_numparse=True)


def main() -> None:
    """Runs the experiments and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data", type=Path, help="the folder with the datasets (default: data)")
    data_dir = parser.parse_args().data_dir
    for name in (BACKBONES[0], BOTH):
        if not dataset_path(data_dir, f"{name}_fold1_train", "labels").is_file():
            parser.error(f"{data_dir} does not have {name}_fold1_train; see --help for the commands that make the data")
    single = smooth(data_dir, BACKBONES)
    fused = {
        title: smooth(data_dir, [BOTH], experiment={"name": f"nyu_people_{model.__name__}"}, model=model)
        for title, model in FUSIONS.items()
    }
    print(f"\n{people_table(single, fused)}")


if __name__ == "__main__":
    main()

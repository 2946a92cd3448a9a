r"""Corrects frames of a recording at a distance from its labelled frames: NYU's test set, each of its two people.

The authors of the papers published the predictions (github.com/xinghaochen/awesome-hand-pose-estimation, folder
evaluation/). With the files for NYU in $D, this command makes the datasets:

    python tune_runs/prepare_data.py leaderboard --dataset nyu --name recording --separate --split blocks:500:5:50 \
        --ground-truth $D/nyu_test_groundtruth_label.txt \
        --predictions Pose-REN=$D/NEUCOM18_NYU_Pose_REN.txt DeepModel=$D/IJCAI16_NYU_DeepModel.txt \
                      DeepPrior=$D/CVWW15_NYU_Prior.txt "DeepPrior++=$D/ICCVW17_NYU_DeepPrior++.txt"

Of every five blocks of 500 frames, three are for training, one chooses the setting, and one is tested; the 50 frames on
each side of the last two are left out. Each backbone has its own corrector: kernel ridge regression of the correction
on the pose, smoothed over time. It can distinguish the people by the size of their hands. First, every setting is
fitted once and compared on the validation frames. Then the best one is fitted six times, with other centres, and
tested. Training and test frames show the same two people, so the table does not say how well a new person is corrected.
"""

import argparse
from pathlib import Path
from typing import Any

from tabulate import tabulate

from cluster.experiment import Experiment
from cluster.reports.tables.by_group import GroupErrors
from cluster.reports.tables.summary import mean_and_std, percent_and_interval
from cluster.results.change_intervals import group_intervals
from cluster.results.groups import read_groups
from cluster.results.results import Results
from cluster.results.rows import Row
from data_pipeline.normalizers import Shifter
from data_pipeline.pose_dataset import dataset_path
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import KernelCorrector

BACKBONES = ["Pose-REN", "DeepModel", "DeepPrior", "DeepPrior++"]

experiment_config: dict[str, Any] = {
    "name": "nyu_recording_choice",
    "train_set": "recording_Pose-REN_train",  # varied below, together with the other sets
    "val_set": "recording_Pose-REN_val",
    "normalizer": Shifter,
    "n_repetitions": 1,
}

solver_config = {
    "num_epochs": 1,
    "batch_size": 256,
}

base_hyperparams: dict[str, Any] = {
    "model": KernelCorrector,
    "model_args": {
        **{"bandwidth": 16.0, "ridge": 1.0, "n_centres": 1024, "axes": ["input", "palm"]},
        **{"sigma": 1.0, "hand_bandwidth": None},
    },
    "loss_function": MetricLoss(errors.coordinate_difference, "absolute"),
    "optimizer": None,  # the model is fitted in closed form
}

OPTIONS: dict[str, list[Any]] = {
    "model_args.bandwidth": [10.0, 14.0, 20.0],
    "model_args.ridge": [1.0, 4.0],
    "model_args.sigma": [1.0, 2.0],
    "model_args.hand_bandwidth": [None, 3.0, 5.0, 8.0],
}


def chosen_settings(data_dir: Path, *, wait_for_nodes: bool) -> dict[str, Row]:
    """Fits every setting once, and returns the best one in validation for each backbone."""
    experiment = Experiment({**experiment_config, "data_dir": data_dir}, solver_config, base_hyperparams)
    paths = [f"experiment_config.{split}_set" for split in ("train", "val")]
    sets = {backbone: [f"recording_{backbone}_{split}" for split in ("train", "val")] for backbone in BACKBONES}
    experiment.add_joint_options(paths, list(sets.values()))
    experiment.add_options(OPTIONS)
    best = {row[paths[0]]: row for row in experiment.run(wait_for_nodes=wait_for_nodes).best_for_each(paths[0])}
    return {backbone: best[train_set] for backbone, (train_set, _) in sets.items()}


def test(data_dir: Path, chosen: dict[str, Row], *, wait_for_nodes: bool) -> Results:
    """Fits the chosen settings six times and tests them."""
    config = {
        **experiment_config,
        "data_dir": data_dir,
        "name": "nyu_recording",
        "test_set": "recording_Pose-REN_test",
        "n_repetitions": 6,
    }
    experiment = Experiment(config, solver_config, base_hyperparams)
    splits = ("train", "val", "test")
    experiment.add_joint_options(
        [*(f"experiment_config.{split}_set" for split in splits), *OPTIONS],
        [
            [*(f"recording_{backbone}_{split}" for split in splits), *(row[path] for path in OPTIONS)]
            for backbone, row in chosen.items()
        ],
    )
    return experiment.run(wait_for_nodes=wait_for_nodes)


def people_table(table: Results, chosen: dict[str, Row]) -> str:
    """Returns a row for each backbone, and for each person it shows."""
    assert table.folder is not None
    by_set = {row["experiment_config.test_set"]: row for row in table.summary}
    rows = []
    for backbone in BACKBONES:
        row = by_set[f"recording_{backbone}_test"]
        groups = read_groups(table.folder, table, row, "subject", split="test")
        for group, intervals in zip(groups, group_intervals(table, row, "subject", groups, "test"), strict=True):
            found = GroupErrors.of(group.before, group.after)
            assert found.change_percent is not None
            is_whole = group is groups[0]
            setting = ", ".join(f"{path.rpartition('.')[2]} {chosen[backbone][path]}" for path in OPTIONS)
            cells = [backbone, "both", group.n_frames] if is_whole else ["", f"person {group.name}", group.n_frames]
            cells += [f"{found.before.mean:.2f}", mean_and_std(found.after.mean, found.after.std)]
            cells += [percent_and_interval(found.change_percent, intervals), row["n"]]
            rows.append([*cells, setting if is_whole else ""])
    headers = ["backbone", "tested on", "frames", "before (mm)", "after (mm)", "Δ", "n", "best setting in validation"]
    alignment = ["left", "left", "right", "right", "right", "right", "right", "left"]
    return tabulate(rows, headers, tablefmt="simple", colalign=alignment, disable_numparse=True)


def main() -> None:
    """Runs both experiments and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data", type=Path, help="the folder with the datasets (default: data)")
    parser.add_argument("--wait-for-nodes", action="store_true", help="wait if the cluster has no node for a trial yet")
    arguments = parser.parse_args()
    data_dir, waits = arguments.data_dir, arguments.wait_for_nodes
    if not dataset_path(data_dir, "recording_Pose-REN_train", "labels").is_file():
        parser.error(f"{data_dir} does not have the NYU datasets; see --help for the command that makes them")
    chosen = chosen_settings(data_dir, wait_for_nodes=waits)
    print(f"\n{people_table(test(data_dir, chosen, wait_for_nodes=waits), chosen)}")


if __name__ == "__main__":
    main()

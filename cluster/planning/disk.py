"""How much disk the files of an experiment take, estimated before it is trained."""

from dataclasses import dataclass
from math import ceil

from cluster.planning.config import Settings
from cluster.planning.inputs import Inputs, set_keys
from data_pipeline.batch import fuses
from posenet.evaluator import CURVE_THRESHOLDS_MM

DISK_KEYS = (
    *("model", "model_args", "choose_strength", "eval_space"),
    *("experiment_config.train_set", "experiment_config.train_set_size", "experiment_config.use_preset"),
    *("experiment_config.val_set", "experiment_config.val_set_size", "experiment_config.normalizer"),
    *("experiment_config.test_set", "experiment_config.test_set_size"),
    *("solver_config.num_epochs", "solver_config.batch_size"),
)
"""The dotted paths of the settings that the estimate depends on."""

# Measured sizes, in bytes. Parquet compresses texts to almost nothing and numbers hardly, except for the many equal
# success rates of a final evaluation.
_TRIAL_JSON, _JSON_METRICS = 4_000, 900  # the latter of a subset of a split
_PARQUET_FILE, _NPZ_FILE = 4_500, 1_500
_RECORD, _FINAL_RECORD = 9, 4.5
_FRAME = 9
_TENSOR = 400
_PICTURE = 100_000
_REPORT = 700_000  # 1.05 MB with examples, for their viewer, and 0.35 MB without
_TABLE_ROW = 1_000  # in all tables together

_MM_METRICS, _SPACE_METRICS = 7, 4
"""The metrics of an intermediate evaluation in millimetres, and in normalised space; see `posenet.evaluator`."""


@dataclass(frozen=True)
class DiskUse:
    """The files of a trial, in bytes.

    Attributes:
        weights: The weights and the errors of frames, which `keep_weights` may remove.
        logs: All other files.
        state: The final state of the training, which `keep_state` keeps.
    """

    weights: int
    logs: int
    state: int


def report_bytes(n_trials: int) -> int:
    """Estimates the tables of an experiment and its report."""
    return _REPORT + n_trials * _TABLE_ROW


def disk_use(settings: Settings, inputs: Inputs) -> DiskUse:
    """Estimates the files of a trial; its model and sets were checked."""
    keys, solver, experiment = set_keys(settings), settings.solver, settings.experiment
    model, train_set = inputs.model(settings), inputs.read_set(keys["train"])
    measured = [inputs.read_set(key) for split, key in keys.items() if split != "train"]
    n_poses = [1 if fuses(model) else len(dataset.poses) for dataset in measured]  # of a frame

    state = model.state_dict().values()
    weights = sum(tensor.numel() * tensor.element_size() + _TENSOR for tensor in state)
    frames = n_poses[-1] * len(measured[-1]) * _FRAME + _PARQUET_FILE

    n_batches = ceil(len(train_set) / solver.batch_size)
    n_points = solver.num_epochs * min(solver.log_frequency, n_batches)
    is_normalised = experiment.normalizer is not None
    in_space = is_normalised and settings.hyperparams.eval_space == "default"
    n_metrics = _SPACE_METRICS + 1 if in_space else _MM_METRICS
    n_records = n_points * (2 + n_metrics * (1 + n_poses[0]))
    n_records += solver.num_epochs * n_batches * (solver.log_loss + solver.log_grad)
    skeleton = train_set.skeleton
    n_parts = skeleton.n_joints + len(skeleton.fingers)
    n_final = 2 * (3 * len(CURVE_THRESHOLDS_MM) + n_parts + _MM_METRICS + _SPACE_METRICS * is_normalised + 3)
    n_measured = sum(1 + n for n in n_poses)

    n_examples = len(solver.val_example_indices)
    logs = _TRIAL_JSON + n_measured * _JSON_METRICS
    logs += _PARQUET_FILE + n_records * _RECORD + round(n_measured * n_final * _FINAL_RECORD)
    if n_examples:
        logs += _NPZ_FILE + n_examples * (n_points + 2) * skeleton.n_joints * 3 * 4
        logs += _PICTURE * min(solver.num_epochs, 11) * solver.show_plots
    # The model, its best weights, and two more numbers for each parameter, as Adam has; and the records.
    final_state = 4 * weights + n_records * _RECORD
    return DiskUse(weights + frames, logs, final_state if experiment.keep_state == "all" else 0)

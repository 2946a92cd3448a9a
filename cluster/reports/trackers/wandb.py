"""An experiment as offline runs of Weights & Biases: a run for each trial, as if it had been logged without a network.

FOLDER/wandb/
    offline-run-TIME-KEY-REPETITION/run-KEY-REPETITION.wandb     a trial: settings, numbers over batches, final numbers

The project is the experiment, and the repetitions of a combination are a group. A run's tag says how the trial stands,
its notes why it failed, and its config holds the settings and, from `trial/` on, what else is known of the trial. Its
summary has the results as `final/...`. Names have slashes in place of dots and brackets: `val/distance_mm[A]` is
`val/distance_mm/A`. Trials that were not started are left out, since W&B knows no such run; nor does it tell those that
were interrupted from those that failed. It dates all runs at the export: the real times are `trial/started` and
`trial/ended`.

It is written with W&B's own library, without an account and without a network, at some 20 trials a second. See it with
`wandb leet FOLDER/wandb`, and upload it with `cd FOLDER; wandb sync`. Importing this module needs the library.
"""

import json
import logging
import math
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.reports.trackers.runs import TrialRun, missing_library, new_export
from cluster.storage.folders import ExperimentFolder
from data_pipeline.user_error import UserError, first_line

try:
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record
except ImportError as error:
    raise missing_library("wandb") from error

_EXIT_CODE = {"finished": 0, "failed": 1, "diverged": 1, "interrupted": 255}  # 255 is W&B's own after a Ctrl-C

_MAX_PROJECT_CHARACTERS = 128

# The format of a run's file.
_BLOCK_BYTES = 2**15
_FILE_HEADER_BYTES = 7
_CHUNK_HEADER_BYTES = 7
_LAST_CHUNK_TYPES = (1, 4)  # a record's only chunk, or the last of several


def export_wandb(folder: ExperimentFolder, to: Path) -> None:
    """Writes an experiment's trials as offline runs of Weights & Biases. See `new_export`."""
    with new_export(folder, to) as (experiment, partial):
        # What W&B logs of itself would fill the terminal where the disk is full.
        logging.getLogger("wandb").disabled = True
        try:
            wandb.setup(_settings())
            for run in experiment.runs():
                if run.status in _EXIT_CODE:
                    _write(partial, experiment.name[:_MAX_PROJECT_CHARACTERS], run)
        except wandb.Error as error:
            raise UserError(f"{to} cannot be written: {first_line(error)}") from error
        finally:
            wandb.teardown()
        for own in partial.glob("wandb/offline-run-*"):
            if not _is_whole(own / f"run-{own.name.split('-', 3)[-1]}.wandb"):
                raise UserError(f"{to} cannot be written: {own.name} is incomplete; is the disk full?")
            for name in ("files", "logs", "tmp"):  # empty, and what W&B logs of itself
                shutil.rmtree(own / name, ignore_errors=True)


def _settings() -> Any:
    """Returns settings with which W&B writes what it is given and nothing else, and neither connects nor prints."""
    return wandb.Settings(
        mode="offline",
        console="off",
        silent=True,
        symlink=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


def _write(folder: Path, project: str, run: TrialRun) -> None:
    written = wandb.init(
        project=project,
        group=run.key,
        id=run.trial_id.replace("/", "-"),
        name=run.trial_id,
        tags=[run.status],
        notes=run.facts.get("error"),
        config=_config(run),
        dir=folder,
        settings=_settings(),
    )
    for step, values in run.points:
        written.log({_allowed(name): value for name, value in values.items()} | {"_timestamp": run.time}, step=step)
    written.summary.update({_allowed(f"final/{name}"): _json_value(value) for name, value in run.final.values.items()})
    written.finish(exit_code=_EXIT_CODE[run.status])


def _config(run: TrialRun) -> dict[str, Any]:
    about = {**run.facts, "started": run.started, "ended": run.ended}
    about.pop("error", None)
    # W&B takes a dot for a step into a dict.
    settings = {path.replace(".", "/"): value for path, value in run.settings.items()}
    return settings | {f"trial/{name.replace('.', '/')}": value for name, value in about.items()}


def _allowed(name: str) -> str:
    # W&B's charts and filters do not find all names with brackets. No subset has a slash in its name.
    return name.replace("[", "/").replace("]", "")


def _json_value(value: float) -> float | str:
    # Of a history W&B writes these numbers as such words itself; in a summary it would drop them.
    return value if math.isfinite(value) else json.dumps(value)


def _is_whole(path: Path) -> bool:
    """Tells whether a run's file ends with the run's end: W&B itself says nothing of a disk that is full."""
    last = deque(_records(path.read_bytes()), maxlen=1)
    return bool(last) and Record.FromString(last[0]).WhichOneof("record_type") == "exit"


def _records(content: bytes) -> Iterator[bytes]:
    """Yields a file's records: a log of LevelDB (its doc/log_format.md) after a header of W&B's."""
    record, place = b"", _FILE_HEADER_BYTES
    while place < len(content):
        left = _BLOCK_BYTES - place % _BLOCK_BYTES
        if left < _CHUNK_HEADER_BYTES:
            place += left
            continue
        start = place + _CHUNK_HEADER_BYTES
        n_bytes, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6 : start]
        place = start + n_bytes
        record += content[start:place]
        if place <= len(content) and kind[0] in _LAST_CHUNK_TYPES:
            yield record
            record = b""

"""An experiment as offline runs of Weights & Biases: a run for each trial, as if it had been logged without a network.

FOLDER/wandb/
    offline-run-TIME-KEY-REPETITION/run-KEY-REPETITION.wandb     a trial: settings, numbers over batches, final numbers

The project is the experiment, and the repetitions of a combination are a group. The tag of a run is the status of the
trial, its notes say why it failed, and its config contains the settings and, below `trial/`, everything else that is
known about the trial. Its summary has the results as `final/...`. Names have slashes instead of dots and brackets:
`val/distance_mm[A]` is `val/distance_mm/A`. Trials that were not started are left out, since W&B has no such runs. W&B
does not distinguish interrupted trials from failed ones, or trials that a race dropped from finished ones; these have
the tag `dropped`. It dates all runs at the export: the real times are `trial/started` and `trial/ended`.

W&B's own library writes the files, without an account and without a network, at about 20 trials per second. This module
needs it. To view the runs, run `wandb leet FOLDER/wandb`; to upload them, run `cd FOLDER; wandb sync`.
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
from cluster.results.results import Results
from data_pipeline.user_error import UserError, first_line

try:
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record
except ImportError as error:
    raise missing_library("wandb") from error

# W&B itself uses 255 after Ctrl-C.
_EXIT_CODE = {"finished": 0, "dropped": 0, "failed": 1, "diverged": 1, "interrupted": 255}

_MAX_PROJECT_CHARACTERS = 128

# The format of a run's file.
_BLOCK_BYTES = 2**15
_FILE_HEADER_BYTES = 7
_CHUNK_HEADER_BYTES = 7
_LAST_CHUNK_TYPES = (1, 4)  # a record's only chunk, or the last of several


def export_wandb(results: Results, to: Path) -> None:
    """Writes an experiment's trials as offline runs of Weights & Biases. See `new_export`."""
    with new_export(results, to) as (experiment, partial):
        # If the disk is full, W&B's own log would fill the terminal.
        logging.getLogger("wandb").disabled = True
        try:
            wandb.setup(_settings())
            for run in experiment.runs():
                is_dropped_before_its_start = run.status == "dropped" and run.started is None
                if run.status in _EXIT_CODE and not is_dropped_before_its_start:
                    _write(partial, experiment.name[:_MAX_PROJECT_CHARACTERS], run)
        except wandb.Error as error:
            raise UserError(f"{to} cannot be written: {first_line(error)}") from error
        finally:
            wandb.teardown()
        for own in partial.glob("wandb/offline-run-*"):
            if not _is_whole(own / f"run-{own.name.split('-', 3)[-1]}.wandb"):
                raise UserError(f"{to} cannot be written: {own.name} is incomplete; is the disk full?")
            for name in ("files", "logs", "tmp"):  # an empty folder and W&B's own log
                shutil.rmtree(own / name, ignore_errors=True)


def _settings() -> Any:
    """Returns settings for W&B: it writes only what it receives, does not connect, and prints nothing."""
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
        group=run.group,
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
    # W&B interprets a dot as a level of a dict.
    settings = {path.replace(".", "/"): value for path, value in run.settings.items()}
    return settings | {f"trial/{name.replace('.', '/')}": value for name, value in about.items()}


def _allowed(name: str) -> str:
    # W&B's charts and filters do not find all names with brackets. No subset has a slash in its name.
    return name.replace("[", "/").replace("]", "")


def _json_value(value: float) -> float | str:
    # In a history W&B itself writes these numbers as such words; in a summary it would drop them.
    return value if math.isfinite(value) else json.dumps(value)


def _is_whole(path: Path) -> bool:
    """Returns whether a run's file is complete, since W&B does not report a full disk."""
    last = deque(_records(path.read_bytes()), maxlen=1)
    return bool(last) and Record.FromString(last[0]).WhichOneof("record_type") == "exit"


def _records(content: bytes) -> Iterator[bytes]:
    """Yields a file's records: W&B's header is followed by a LevelDB log (doc/log_format.md of LevelDB)."""
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

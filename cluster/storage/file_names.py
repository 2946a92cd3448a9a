"""The names of all files of an experiment and its trials.

results/NAME/
    experiment.json        configs as described, the plan, data fingerprints
    search/                0000.json for each round of a search: what it proposed, and from which results
    runs/                  RUN_ID.json for each run that trained something: versions, machine, command, git commits
    trials/KEY/REPETITION/
        trial.json         options, status, seed, times, device, error, final metrics, ids of the runs that trained it
        records.parquet    every number that was logged, see `cluster/storage/records.py`
        weights.pt         the weights of the best epoch: a state dict
        frames.parquet     the error of every frame before and after, if the weights are kept
        examples.npz       the examples' predictions at every log point
        plots/             pictures of the examples, with `show_plots`
        checkpoint.pt      only while the trial is unfinished
        state.pt           the state at the end, with `keep_state`: a longer training continues from it
        hang.txt           only while the trial is trained with `trial_timeout_s`: where it hangs
    training_frames/       for each training set, by its fingerprint: hashes of its poses and labels, for predict.py
    archive/               if more than 1,000 trials have ended: their trial.json and records.parquet, those of up to
                           1,000 trials in two files, see `cluster/storage/archive.py`
    race/                  DATA/BRACKET-RUNG.json for each decision of a race, see `cluster/racing/decision_file.py`
    tables/                trials.csv, trials.parquet, summary.csv, summary.md, summary.txt
    report.html            all results, for a browser
    .lock                  held while the experiment runs; on an object store, lease/ instead
"""

import re
from typing import Annotated, Literal

from msgspec import Meta

_KEY = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_TRIAL_ID = re.compile(rf"({_KEY})/(0|[1-9][0-9]{{0,8}})", re.ASCII)

Key = Annotated[str, Meta(pattern=rf"^{_KEY}\Z")]
"""The key of a combination: the name of a folder that leads nowhere else."""


def is_trial_id(text: str) -> bool:
    """Returns whether a text can be the id of a trial, `KEY/REPETITION`: the path of its folder in `trials/`."""
    return _TRIAL_ID.fullmatch(text) is not None


class FileNames:
    """Names of the files and folders of an experiment and of its trials, and their paths."""

    EXPERIMENT = "experiment.json"
    REPORT = "report.html"
    LOCK = ".lock"
    LEASE_FOLDER = "lease"
    TRIALS_FOLDER = "trials"
    RUNS_FOLDER = "runs"
    ARCHIVE_FOLDER = "archive"
    RACE_FOLDER = "race"
    TABLES_FOLDER = "tables"
    TRAINING_FRAMES_FOLDER = "training_frames"
    SEARCH_FOLDER = "search"

    TRIAL = "trial.json"
    RECORDS = "records.parquet"
    WEIGHTS = "weights.pt"
    FRAMES = "frames.parquet"
    EXAMPLES = "examples.npz"
    PLOTS_FOLDER = "plots"
    CHECKPOINT = "checkpoint.pt"
    STATE = "state.pt"
    HANG = "hang.txt"

    @classmethod
    def in_trial(cls, trial_id: str, name: str = "") -> str:
        """Returns the path of a trial's file, or of its folder, in the experiment's folder."""
        return f"{cls.TRIALS_FOLDER}/{trial_id}/{name}".rstrip("/")

    @classmethod
    def run(cls, run_id: str) -> str:
        """Returns the path of a run's file in the experiment's folder."""
        return f"{cls.RUNS_FOLDER}/{run_id}.json"

    @classmethod
    def search_round(cls, number: int) -> str:
        """Returns the path of the file of a search's round, in the experiment's folder."""
        return f"{cls.SEARCH_FOLDER}/{number:04}.json"

    @classmethod
    def training_frames(cls, fingerprint: str) -> str:
        """Returns the path of the hashes of a training set's frames in the experiment's folder."""
        return f"{cls.TRAINING_FRAMES_FOLDER}/{fingerprint}.npy"

    @classmethod
    def in_archive(cls, bundle: str, kind: Literal["trials", "records"]) -> str:
        """Returns the path of one of the two files of a bundle in the experiment's folder."""
        return f"{cls.ARCHIVE_FOLDER}/{bundle}.{kind}.parquet"

"""What workers need to train any trial of an experiment; it is sent to each node once."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from cluster.planning import builders
from cluster.planning.config import ExperimentConfig, Settings
from cluster.planning.inputs import Inputs, SetKey, set_keys
from cluster.planning.plan import TrialSpec
from cluster.planning.search_space import SearchSpace
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.trial.trainable import Trial, TrialData
from data_pipeline.pose_dataset import PoseDataset
from data_pipeline.separation.separation import Separation
from data_pipeline.tables import Table


@dataclass(frozen=True)
class Job:
    """The objects of an experiment.

    Attributes:
        config: The experiment's config.
        space: Base settings and options.
        sets: The sets of poses.
        tables: The tables that distorters read, by the names of their files.
        weights: The content of weights files by path.
        separations: How far validation and test frames are from training frames, see `Inputs`.
        sources: Hashes of the code of the user's own classes and functions, by name.
        run_id: Identifies this run of the experiment.
    """

    config: ExperimentConfig
    space: SearchSpace
    sets: Mapping[SetKey, PoseDataset]
    tables: Mapping[str, Table]
    weights: Mapping[str, bytes]
    separations: Mapping[tuple[SetKey, str, SetKey], Separation]
    sources: Mapping[str, str] = field(default_factory=dict)
    run_id: str = field(default_factory=lambda: secrets.token_hex(8))

    @classmethod
    def of(cls, config: ExperimentConfig, space: SearchSpace, inputs: Inputs) -> "Job":
        """Returns the job of a new run."""
        return cls(config, space, inputs.sets, inputs.tables, inputs.weights, inputs.separations)

    @property
    def folder(self) -> ExperimentFolder:
        """The experiment's folder."""
        return ExperimentFolder(Storage(self.config.storage_path) / self.config.name)

    def trial(self, spec: TrialSpec, device: torch.device) -> Trial:
        """Returns a planned trial that trains on `device`."""
        return Trial(spec, self.space.settings(spec.combination.row_indices), device, self.run_id, self.sources)

    def data(self, settings: Settings) -> TrialData:
        """Returns the data of a trial with these settings."""
        path = settings.experiment.init_weights_path
        return TrialData(
            sets={split: self.sets[key] for split, key in set_keys(settings).items()},
            tables={file: self.tables[file] for file in builders.build_distorter(settings.hyperparams).tables},
            init_weights=None if path is None else self.weights[str(path)],
        )

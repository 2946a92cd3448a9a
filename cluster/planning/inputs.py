"""What an experiment reads, once each: sets of poses, tables and weights; also the models that its checks build."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from cluster.planning import builders
from cluster.planning.config import Hyperparams, Settings, local_path
from cluster.planning.identity import canonical_json, encode
from data_pipeline.files.regular import read_file
from data_pipeline.pose_dataset import PoseDataset, read_dataset
from data_pipeline.separation.measuring import separation
from data_pipeline.separation.separation import Separation
from data_pipeline.tables import Table, read_table


@dataclass(frozen=True)
class SetKey:
    """Identifies a set of poses: combinations with the same key share the set."""

    name: str
    size: int | None
    use_preset: bool


@dataclass
class Inputs:
    """The files that an experiment reads, once each.

    Attributes:
        data_folder: The folder with the datasets.
        sets: The sets that were read.
        tables: The tables that were read, by the names of their files.
        separations: How far validation and test frames are from training frames, by training set, split and set.
        weights: The content of weights files by path.
        models: Models on the meta device, for checks; or the error that their constructor raised.
        tried: Keys of optimizers and schedulers that were run for some steps without an error.
        last_arguments: The last arguments of each key and their canonical JSON, see `arguments_text`.
    """

    data_folder: Path
    sets: dict[SetKey, PoseDataset] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    separations: dict[tuple[SetKey, str, SetKey], Separation] = field(default_factory=dict)
    weights: dict[str, bytes] = field(default_factory=dict)
    models: dict[tuple[object, ...], torch.nn.Module | Exception] = field(default_factory=dict)
    tried: set[tuple[object, ...]] = field(default_factory=set)
    last_arguments: dict[str, tuple[object, str]] = field(default_factory=dict)

    def read_set(self, key: SetKey) -> PoseDataset:
        """Returns a set.

        Raises:
            DatasetError: If it cannot be read.
        """
        if key not in self.sets:
            self.sets[key] = read_dataset(self.data_folder, key.name, key.size, use_preset=key.use_preset)
        return self.sets[key]

    def measure_separations(self, keys: Mapping[str, SetKey]) -> None:
        """Measures how far the validation and test frames of a combination are from its training frames.

        Args:
            keys: The keys of its sets by split, which were read.
        """
        for split in [split for split in keys if split != "train"]:  # in the same order in each process
            place = keys["train"], split, keys[split]
            if place not in self.separations:
                self.separations[place] = separation(self.sets[keys["train"]], self.sets[keys[split]])

    def read_table(self, file_name: str) -> Table:
        """Returns a table that distorters read.

        Raises:
            TableError: If it cannot be read.
        """
        if file_name not in self.tables:
            self.tables[file_name] = read_table(self.data_folder, file_name)
        return self.tables[file_name]

    def read_weights(self, path: str) -> bytes:
        """Returns the content of a weights file.

        Raises:
            OSError: If it cannot be read.
        """
        if path not in self.weights:
            self.weights[path] = read_file(local_path(path))
        return self.weights[path]

    def arguments_text(self, key: str, hyperparams: Hyperparams) -> str:
        """Returns the canonical JSON of a key such as `model_args`.

        Thousands of combinations share the arguments that no option varies, so those of the last one are remembered.

        Raises:
            NotEncodableError: If they cannot be encoded.
        """
        arguments = getattr(hyperparams, key)
        known, text = self.last_arguments.get(key, (None, ""))
        if known is not arguments or known is None:
            text = canonical_json(encode(arguments))
            self.last_arguments[key] = arguments, text
        return text

    def model(self, settings: Settings) -> torch.nn.Module:
        """Returns the model of a combination on the meta device; combinations with the same model share it.

        Raises:
            DatasetError: If the training set, which has the skeleton, cannot be read.
            NotEncodableError: If the model's arguments cannot be encoded.
            Exception: What the model's constructor raises.
        """
        hyperparams, set_key = settings.hyperparams, set_keys(settings)["train"]
        arguments = self.arguments_text("model_args", hyperparams)
        key = (hyperparams.model, arguments, hyperparams.choose_strength, set_key)
        if key not in self.models:
            skeleton = self.read_set(set_key).skeleton
            try:
                self.models[key] = _build_unallocated(lambda: builders.build_model(hyperparams, skeleton))
            except Exception as error:
                self.models[key] = error
        model = self.models[key]
        if isinstance(model, Exception):
            raise model
        return model


def set_keys(settings: Settings) -> dict[str, SetKey]:
    """Returns the keys of a combination's sets by split: 'train', 'val' and, if there is a test set, 'test'."""
    config = settings.experiment
    keys = {
        "train": SetKey(config.train_set, config.train_set_size, config.use_preset),
        "val": SetKey(config.val_set, config.val_set_size, use_preset=True),
    }
    if config.test_set is not None:
        keys["test"] = SetKey(config.test_set, config.test_set_size, use_preset=True)
    return keys


def _build_unallocated(build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        try:
            # The meta device takes no memory and draws no numbers, so thousands of models can be checked.
            with torch.device("meta"):
                return build()
        except Exception:
            # A model may need real tensors. If it fails with them too, that error counts.
            return build().to("meta")

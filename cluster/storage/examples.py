"""The samples of the validation set that a trial follows, and its predictions for them at every log point."""

import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.storage.bounded import read_arrays
from cluster.storage.file_names import FileNames
from cluster.storage.folders import TrialFolder

_FAR_MM = 1e9
"""A coordinate that is larger is none of a hand; sums and squares of smaller ones are numbers in single precision."""

Poses = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class FollowedExamples:
    """E examples at L log points. The file `examples.npz` has an array for each attribute.

    Attributes:
        epochs: The epoch of each log point, (L,).
        batches: Completed batches of that epoch, (L,).
        predictions_mm: Corrected poses, (L, E, J, 3), mm.
        inputs_mm: Uncorrected poses, (E, J, 3), mm.
        labels_mm: True poses, (E, J, 3), mm.
        indices: Their indices in the validation set, (E,).
    """

    epochs: Integers
    batches: Integers
    predictions_mm: Poses
    inputs_mm: Poses
    labels_mm: Poses
    indices: Integers

    def to_npz(self) -> bytes:
        """Returns the content of the file."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **vars(self))
        return buffer.getvalue()

    @classmethod
    def read(cls, folder: TrialFolder) -> "FollowedExamples | None":
        """Reads the examples of a trial; None if it has none. Coordinates that no hand has are NaN.

        Raises:
            ValueError: If the file is broken.
            StorageError: If it cannot be read.
        """
        content = folder.read(FileNames.EXAMPLES)
        if content is None:
            return None
        try:
            found = cls(**read_arrays(content, list(cls.__dataclass_fields__)))
            n_points, n_examples, n_joints, _ = found.predictions_mm.shape
            one = (n_examples, n_joints, 3)
            shapes = {
                "epochs": (n_points,),
                "batches": (n_points,),
                "predictions_mm": (n_points, *one),
                "inputs_mm": one,
                "labels_mm": one,
                "indices": (n_examples,),
            }
            for name, shape in shapes.items():
                array = getattr(found, name)
                if array.shape != shape:
                    raise ValueError(f"{name} has the shape {array.shape}, not {shape}")
                if array.dtype.kind not in ("f" if name.endswith("_mm") else "iu"):
                    raise ValueError(f"{name} has numbers of the type {array.dtype}")
                if name.endswith("_mm"):
                    array = array.astype(np.promote_types(array.dtype, np.float32), copy=False)
                    found = replace(found, **{name: np.where(np.abs(array) < _FAR_MM, array, np.nan)})
            if min(found.epochs.min(initial=0), found.batches.min(initial=0), found.indices.min(initial=0)) < 0:
                raise ValueError("epochs, batches and indices are not negative")
        except Exception as error:
            # What numpy raises depends on the damage.
            raise ValueError(f"{FileNames.EXAMPLES} is broken: {error}") from error
        return found

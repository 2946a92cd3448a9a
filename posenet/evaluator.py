"""All metrics of a corrector over a set of poses.

Each metric is the mean of a quantity over all its elements (joints, frames, bones, pairs of bones). Chunks of the set
are added to float64 sums and the division comes last, so a short last chunk has no effect and memory does not grow with
the set.

Metrics in either space:
    distance: mean 3D distance between joint and label, over frames and joints.
    max_distance: distance of a frame's worst joint, mean over frames.
    bone_length_error: absolute difference of bone lengths, mean over frames and bones.
    proportion_error: see `posenet.errors.proportion_error`, mean over frames and pairs of bones.
Metrics in millimetres only:
    frames_within_20mm: fraction of frames whose worst joint is at most 20 mm off.
    auc_0_50, auc_20_50: area under the success-rate curve of all joints between these thresholds in mm.
Only in the final evaluation:
    aligned_distance: distance after each pose was aligned with its label (PA-MPJPE, see `posenet.alignment`), mean over
        frames and joints, mm. It takes as long as all metrics of an intermediate evaluation together.
    acceleration_error: mm/frame². Norm of the second difference of pose minus label over three successive frames,
        ‖e[t−1] − 2 e[t] + e[t+1]‖, mean over joints and such triples ("Accel" of Kanazawa et al. 2019, VIBE and
        SmoothNet). It measures jitter. Frames are successive if their indices are, within a sequence; those of unknown
        sequences are one sequence in the order of the file. Sets without three successive frames have none.
    improved, worsened: fraction of frames whose mean distance the correction lowered or raised by more than rounding.
    distance[JOINT], distance[finger]: mean distance of a joint or of a finger's joints.
    success_worst@T, success_mean@T, success_joint@T: fraction of frames by worst joint, of frames by mean joint, and
        of all joints, that are at most T mm off, for T = 0, 1, … 80.
A name that ends in `_before` is the same metric for the uncorrected input. A model that fuses subsets has one result,
the subset `fused`; its uncorrected input is the mean pose over the subsets.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data_pipeline.batch import Batch, DeviceDataset, fuses, rows, window_of
from data_pipeline.layout import stored_samples_last
from data_pipeline.normalizers import Normalizer
from data_pipeline.skeleton import Skeleton
from data_pipeline.subsets import FUSED_SUBSET, MEAN_SUBSET
from posenet import errors, metrics
from posenet.alignment import aligned
from posenet.models import Corrector
from posenet.record import Space

CURVE_THRESHOLDS_MM = tuple(range(81))
"""The thresholds of success-rate curves: whole numbers from 0."""

ROUNDING_MM = 1e-3
"""A smaller change of a frame's mean distance is rounding: neither better nor worse."""

STRENGTHS = tuple(tenths / 10 for tenths in range(11))
"""The factors on a correction that `Evaluator.best_strength` compares."""

METRICS = (
    *("distance", "aligned_distance", "max_distance", "frames_within_20mm", "auc_0_50", "auc_20_50", "improved"),
    *("worsened", "bone_length_error", "proportion_error", "acceleration_error", "strength", "loss"),
    *("batch_loss", "batch_grad_norm"),
)
"""The names of all metrics, except for those of single joints and thresholds."""

# Samples per chunk, one number for each kind of device, since sums depend on it. On a CPU, sizes from 512 to 4096 take
# equally long. A GPU takes as long for a small chunk as for a large one: it waits for the next of some hundred
# launches. The largest tensors of its chunk have 12 MB.
_CHUNK_OF_A_CPU, _CHUNK_OF_A_GPU = 1024, 16_384


@dataclass(frozen=True, slots=True)
class Measurement:
    """One metric of one subset, or of the mean over subsets."""

    subset: str
    space: Space
    metric: str
    value: float


class Evaluator:
    """Evaluates correctors on one set.

    Args:
        data: The set, on the device of the models.
        normalizer: The normalizer of the corrector's inputs.
        eval_space: The space of intermediate evaluations.
        own_metrics: Further metrics: errors of poses in mm, called by the names of the functions.
    """

    def __init__(
        self,
        data: DeviceDataset,
        *,
        normalizer: Normalizer | None,
        eval_space: Space,
        own_metrics: Sequence[errors.ErrorFunction] = (),
    ) -> None:
        self.data = data
        self.normalizer = normalizer
        self.own_metrics = own_metrics
        # Without a normalizer both spaces are the same, in millimetres.
        self.eval_space: Space = "original" if normalizer is None else eval_space

    @property
    def _chunk(self) -> int:
        return _CHUNK_OF_A_CPU if self.data.labels.device.type == "cpu" else _CHUNK_OF_A_GPU

    def intermediate(self, model: torch.nn.Module) -> list[Measurement]:
        """Returns every metric in `eval_space`, and always the distance in millimetres."""
        return self._measure(model, self._intermediate_quantities)

    def final(self, model: torch.nn.Module) -> list[Measurement]:
        """Returns every metric in both spaces, before and after the correction."""
        return [*self._measure(model, self._final_quantities), *self._acceleration_errors(model)]

    def frame_errors(self, model: torch.nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns each frame's mean distance before and after the correction, (N,) each, mm, by subset; on the CPU."""
        found = {}
        with _evaluating(model):
            for subset in self._evaluated(model):
                chunks = []
                for batch in self._batches(model, subset):
                    before, after = batch.in_mm(batch.poses), batch.in_mm(model(batch.inputs.clone()))  # (n, J, 3) each
                    distances = [
                        errors.distance_error(poses, batch.labels_mm, self.data.skeleton) for poses in (before, after)
                    ]
                    chunks.append(torch.stack([metrics.mean_error(distance) for distance in distances]))  # (2, n)
                before, after = torch.cat(chunks, dim=1).cpu()  # (N,) each
                found[subset] = before, after
        return found

    def best_strength(self, model: Corrector) -> float:
        """Returns the factor on the correction with the lowest mean distance in mm; the smaller one if two are equal.

        With several subsets it is the lowest mean over subsets.
        """
        totals = torch.zeros(len(STRENGTHS), dtype=torch.float64, device=self.data.labels.device)
        with _evaluating(model):
            for subset in self._evaluated(model):
                for batch in self._batches(model, subset):
                    before = batch.in_mm(batch.poses)  # (n, J, 3)
                    change = batch.in_mm(batch.poses + model.correction(batch.inputs.clone())) - before  # (n, J, 3)
                    for index, strength in enumerate(STRENGTHS):
                        corrected = before + strength * change  # (n, J, 3)
                        distances = errors.distance_error(corrected, batch.labels_mm, self.data.skeleton)  # (n, J)
                        totals[index] += distances.sum(dtype=torch.float64)
        by_strength = dict(zip(STRENGTHS, totals.tolist(), strict=True))
        return min(by_strength, key=by_strength.__getitem__)

    def predict(self, model: torch.nn.Module, subset: str, indices: Tensor) -> Tensor:
        """Returns the corrected poses, (n, J, 3), mm, of the samples `indices`, (n,), of a subset.

        A model that fuses subsets sees all of them.
        """
        with _evaluating(model):
            batch = self._batch(model, subset, indices)
            return batch.in_mm(model(batch.inputs))

    def _evaluated(self, model: torch.nn.Module) -> tuple[str, ...]:
        """Returns the names of what a model is evaluated on one after another."""
        return (FUSED_SUBSET,) if fuses(model) else self.data.subsets

    def _batches(self, model: torch.nn.Module, subset: str) -> Iterator[Batch]:
        """Yields all samples of a subset, or of all subsets together, in order."""
        window = window_of(model)
        if window is None:
            for poses, labels in self.data.chunks(subset, self._chunk):
                yield Batch.of(poses, labels, self.normalizer)
            return
        everything = torch.arange(len(self.data), device=self.data.labels.device)  # (N,)
        for indices in torch.split(everything, max(1, self._chunk // window.size)):
            yield self._batch(model, subset, indices)

    def _batch(self, model: torch.nn.Module, subset: str, indices: Tensor) -> Batch:
        """Returns the samples `indices`, (n,), of a subset, or of all subsets for a model that fuses them."""
        window = window_of(model)
        if window is None:
            return Batch.of(*self.data.gather(subset, indices), self.normalizer)
        subsets = self.data.subsets if fuses(model) else (subset,)
        in_windows = self.data.window_rows(indices, window)  # (n, W)
        frames = [rows(self.data.poses[name], in_windows.flatten()) for name in subsets]  # (n·W, J, 3) each
        windows = torch.stack([each.view(*in_windows.shape, -1, 3) for each in frames], dim=1)  # (n, S, W, J, 3)
        labels = self.data.labels[indices]  # (n, J, 3)
        return Batch.of_windows(windows, labels, self.normalizer, window, fused=fuses(model))

    def _measure(self, model: torch.nn.Module, quantities: "_QuantitiesOf") -> list[Measurement]:
        by_subset: dict[str, dict[tuple[Space, str], float]] = {}
        with _evaluating(model):
            for subset in self._evaluated(model):
                means = _RunningMeans()
                for batch in self._batches(model, subset):
                    # A copy: a model that works in place must not change the input that its output is compared with.
                    means.add(quantities(batch, model(batch.inputs.clone())))
                by_subset[subset] = means.values()
        return _with_mean(by_subset)

    def _acceleration_errors(self, model: torch.nn.Module) -> list[Measurement]:
        """Returns the acceleration error before and after; nothing if no three frames are successive."""
        n, device, order = len(self.data), self.data.labels.device, None
        if self.data.runs is None:  # frames in the order of the file need no index of the whole set
            lengths = [n]
        else:
            in_order, lengths = self.data.frames.runs(n)
            order = torch.from_numpy(in_order).to(device)  # (N,)
        if max(lengths) < 3:
            return []
        ends = torch.tensor(lengths, device=device).cumsum(0)  # (R,), of the runs
        window = window_of(model)
        size = self._chunk if window is None else max(1, self._chunk // window.size)
        by_subset = {}
        with _evaluating(model):
            for subset in self._evaluated(model):
                means = _RunningMeans()
                for start in range(0, n - 2, size):
                    places = torch.arange(start, min(start + size + 2, n), device=device)  # (n + 2,)
                    batch = self._batch(model, subset, places if order is None else order[places])  # (n + 2, J, 3)
                    end = ends[torch.searchsorted(ends, places[:-2], right=True)]  # (n,), of each frame's run
                    is_first = end - places[:-2] >= 3  # (n,): whether a frame is the first of three successive ones
                    for suffix, poses in (("_before", batch.poses), ("", model(batch.inputs.clone()))):
                        differences = batch.in_mm(poses) - batch.labels_mm  # (n + 2, J, 3)
                        errors_mm = torch.linalg.vector_norm(differences.diff(n=2, dim=0), dim=2)  # (n, J)
                        means.add({("original", f"acceleration_error{suffix}"): errors_mm[is_first]})
                by_subset[subset] = means.values()
        return _with_mean(by_subset)

    def _intermediate_quantities(self, batch: Batch, corrected: Tensor) -> "_Quantities":
        skeleton, corrected_mm = self.data.skeleton, batch.in_mm(corrected)
        own = self._own_quantities(corrected_mm, batch.labels_mm)
        if self.eval_space == "original":
            return _mm_quantities(corrected_mm, batch.labels_mm, skeleton) | own
        quantities = _space_quantities("default", corrected, batch.labels, skeleton)
        distances = errors.distance_error(corrected_mm, batch.labels_mm, skeleton)
        return {**quantities, ("original", "distance"): distances, **own}

    def _final_quantities(self, batch: Batch, corrected: Tensor) -> "_Quantities":
        skeleton = self.data.skeleton
        before_mm, after_mm = batch.in_mm(batch.poses), batch.in_mm(corrected)
        quantities = _correction_quantities(before_mm, after_mm, batch.labels_mm, skeleton)
        for suffix, poses in (("_before", before_mm), ("", after_mm)):
            quantities |= self._own_quantities(poses, batch.labels_mm, suffix)
        if batch.transform is not None:
            for suffix, poses in (("_before", batch.poses), ("", corrected)):
                found = _space_quantities("default", poses, batch.labels, skeleton)
                quantities |= {(space, metric + suffix): values for (space, metric), values in found.items()}
        return quantities

    def _own_quantities(self, poses: Tensor, labels: Tensor, suffix: str = "") -> "_Quantities":
        return {
            ("original", f"{metric.__name__}{suffix}"): metric(poses, labels, self.data.skeleton)
            for metric in self.own_metrics
        }


class CorrectionMeans:
    """The metrics in millimetres before and after a correction, for samples that arrive in chunks.

    Args:
        skeleton: The skeleton of the poses.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self.skeleton = skeleton
        self._means = _RunningMeans()

    def add(self, poses: Tensor, corrected: Tensor, labels: Tensor) -> None:
        """Adds samples: poses, corrected poses and labels, (n, J, 3) each, mm."""
        self._means.add(_correction_quantities(poses, corrected, labels, self.skeleton))

    def metrics(self) -> dict[str, float]:
        """Returns the metrics of all samples; call it after at least one was added."""
        return {metric: value for (_, metric), value in self._means.values().items()}


_Quantities = dict[tuple[Space, str], Tensor]
"""The values whose mean is a metric; or the errors of a success-rate curve, whose name has `@` without a threshold."""

_QuantitiesOf = Callable[[Batch, Tensor], _Quantities]


class _evaluating:  # noqa: N801 - reads as a statement: with _evaluating(model)
    """Puts a model into evaluation mode without gradients, and restores its mode afterwards."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.inference_mode = torch.inference_mode()

    def __enter__(self) -> None:
        self.was_training = self.model.training
        self.model.eval()
        self.inference_mode.__enter__()

    def __exit__(self, *exception: object) -> None:
        self.inference_mode.__exit__(*exception)
        self.model.train(self.was_training)


class _RunningMeans:
    """The mean of each quantity over all chunks; of a success-rate curve, its value at each threshold."""

    def __init__(self) -> None:
        self._sums: dict[tuple[Space, str], Tensor] = {}
        self._counts: dict[tuple[Space, str], int] = {}

    def add(self, quantities: _Quantities) -> None:
        sums, counts = self._sums, self._counts
        for key, values in quantities.items():
            if "@" in key[1]:
                total = metrics.success_counts(values, len(CURVE_THRESHOLDS_MM)).double()  # (T,)
            else:
                total = _total(values).unsqueeze(0)  # (1,)
            sums[key] = sums[key] + total if key in sums else total
            counts[key] = counts.get(key, 0) + values.numel()

    def values(self) -> dict[tuple[Space, str], float]:
        # A single transfer from the device for all sums.
        totals: list[float] = torch.cat(list(self._sums.values())).tolist()
        names = [(key, name) for key in self._sums for name in _metric_names(key[1])]
        return {
            (space, name): total / self._counts[space, metric]
            for ((space, metric), name), total in zip(names, totals, strict=True)
        }


_FEWEST_HALVED = 32
"""Values of a sample, such as those of all pairs of bones, are first added in halves if they are as many as this.

Converting them all to float64 would take longer than computing them. Added like this, they do not depend on the
sample's place in its chunk, as they would in a sum over an axis.
"""


def _total(values: Tensor) -> Tensor:
    """Returns the sum of values, (N,) or (N, K), as a float64 scalar."""
    # The values of a metric of the user's own may be integers, whose sums could overflow, or truth values.
    if values.ndim == 1 or values.shape[1] < _FEWEST_HALVED or not values.is_floating_point():
        return values.sum(dtype=torch.float64)
    half = values.shape[1] // 2
    rest = values[:, 2 * half :].sum(dtype=torch.float64)  # of an odd number, the last one
    return rest + _total(values[:, :half] + values[:, half : 2 * half])


def _metric_names(quantity: str) -> Sequence[str]:
    """Returns the name of the metric that a quantity is; of a success-rate curve, one for each threshold."""
    if "@" not in quantity:
        return [quantity]
    return [quantity.replace("@", f"@{threshold}") for threshold in CURVE_THRESHOLDS_MM]


def _with_mean(by_subset: Mapping[str, Mapping[tuple[Space, str], float]]) -> list[Measurement]:
    """Returns the values of the mean over subsets and of each subset."""
    subsets = list(by_subset.values())
    over_subsets = {key: sum(subset[key] for subset in subsets) / len(subsets) for key in subsets[0]}
    return [
        Measurement(subset, space, metric, value)
        for subset, values in {MEAN_SUBSET: over_subsets, **by_subset}.items()
        for (space, metric), value in values.items()
    ]


def _correction_quantities(before: Tensor, after: Tensor, labels: Tensor, skeleton: Skeleton) -> _Quantities:
    quantities: _Quantities = {}
    distances = {}
    for suffix, poses in (("_before", before), ("", after)):
        found = _mm_quantities(poses, labels, skeleton)
        distances[suffix] = found["original", "distance"]  # (N, J)
        found |= _detail_quantities(distances[suffix], skeleton)
        found["original", "aligned_distance"] = errors.distance_error(aligned(poses, labels), labels, skeleton)
        quantities |= {(space, metric + suffix): values for (space, metric), values in found.items()}
    change = distances[""].mean(dim=1) - distances["_before"].mean(dim=1)  # (N,)
    quantities["original", "improved"] = change.lt(-ROUNDING_MM).float()
    quantities["original", "worsened"] = change.gt(ROUNDING_MM).float()
    return quantities


def _space_quantities(space: Space, poses: Tensor, labels: Tensor, skeleton: Skeleton) -> _Quantities:
    poses, labels = stored_samples_last(poses), stored_samples_last(labels)  # (N, J, 3) each
    distances = errors.distance_error(poses, labels, skeleton)  # (N, J)
    predicted, true = errors.bone_lengths(poses, skeleton), errors.bone_lengths(labels, skeleton)  # (N, B) each
    return {
        (space, "distance"): distances,
        (space, "max_distance"): distances.amax(dim=1),  # (N,)
        (space, "bone_length_error"): (predicted - true).abs(),  # (N, B)
        (space, "proportion_error"): errors.proportion_error_of_lengths(predicted, true),  # (N, pairs)
    }


def _mm_quantities(poses: Tensor, labels: Tensor, skeleton: Skeleton) -> _Quantities:
    quantities = _space_quantities("original", poses, labels, skeleton)
    distances = quantities["original", "distance"]  # (N, J)
    worst = quantities["original", "max_distance"]  # (N,)
    quantities["original", "frames_within_20mm"] = metrics.success(worst, 20)
    quantities["original", "auc_0_50"] = metrics.area_under_curve(distances, 0, 50)
    quantities["original", "auc_20_50"] = metrics.area_under_curve(distances, 20, 50)
    return quantities


def _detail_quantities(distances: Tensor, skeleton: Skeleton) -> _Quantities:
    single: list[tuple[str, Sequence[int]]] = [(name, (j,)) for j, name in enumerate(skeleton.joint_names)]
    quantities: _Quantities = {
        ("original", f"distance[{name}]"): distances[:, joints] for name, joints in [*single, *skeleton.fingers]
    }
    quantities["original", "success_worst@"] = metrics.max_error(distances)  # (N,)
    quantities["original", "success_mean@"] = metrics.mean_error(distances)  # (N,)
    quantities["original", "success_joint@"] = distances  # (N, J)
    return quantities

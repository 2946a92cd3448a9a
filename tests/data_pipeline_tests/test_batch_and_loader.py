import io
import weakref
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.augmenters import Augmenter, RandomRotator, RandomScaler
from data_pipeline.batch import Batch, DeviceCache, DeviceDataset, Window, dataset_identity, on_device
from data_pipeline.distorters import Distorter, GaussianDistorter, NoDistorter
from data_pipeline.frame_table import FrameTable
from data_pipeline.layout import stored_samples_last
from data_pipeline.loader import Generators, TrainingLoader
from data_pipeline.normalizers import GlobalNormalizer, IndividualNormalizer, Shifter, ViewpointNormalizer
from data_pipeline.pose_dataset import PoseDataset
from data_pipeline.skeleton import NYU
from data_pipeline.tables import Table
from tests.support import generator, hands, pose_dataset

CPU = torch.device("cpu")

N = 23
SUBSETS = ("A", "B", "C")


def numbered_dataset(n=N, subsets=SUBSETS):
    """Sample i has the label i everywhere; in subset k its pose is i + (k + 1)·1000."""
    labels = np.tile(np.arange(n, dtype=np.float32)[:, None, None], (1, 14, 3))
    poses = {subset: labels + np.float32(1000 * k) for k, subset in enumerate(subsets, start=1)}
    return PoseDataset("numbered", labels, poses, NYU, "")


def make_loader(
    dataset=None,
    *,
    seed=0,
    batch_size=5,
    distorter=None,
    augmenters=(),
    normalizer=None,
    tables=None,
    window=None,
    fused=False,
):
    return TrainingLoader(
        DeviceDataset.of(dataset or numbered_dataset(), CPU),
        batch_size=batch_size,
        distorter=distorter or NoDistorter(),
        augmenters=augmenters,
        normalizer=normalizer,
        generators=Generators(generator(seed), generator(seed + 1), generator(seed + 2)),
        tables=tables,
        window=window,
        fused=fused,
    )


def samples(batch):
    return batch.labels[:, 0, 0].int().tolist()


def subsets_of(batch):
    """The subsets of the samples of a batch."""
    return {int(k) for k in (batch.poses - batch.labels).div(1000).round().unique()}


def assert_same_batches(first, second):
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.poses, other.poses)
        assert torch.equal(one.labels, other.labels)


class TestBatch:
    def test_without_a_normalizer_is_in_millimetres(self, skeleton):
        poses, labels = hands(skeleton, 4)
        batch = Batch.of(poses, labels, None)
        assert batch.transform is None
        assert torch.equal(batch.poses, poses)
        assert torch.equal(batch.labels, labels)
        assert torch.equal(batch.in_mm(labels), labels)

    def test_brings_any_pose_of_its_space_to_millimetres(self, skeleton):
        poses, labels = hands(skeleton, 4)
        normalizer = GlobalNormalizer(skeleton)
        normalizer.fit([poses])
        batch = Batch.of(poses, labels, normalizer)
        halfway = (batch.poses + batch.labels) / 2
        torch.testing.assert_close(batch.in_mm(halfway), (poses + labels) / 2, rtol=0, atol=1e-3)

    @pytest.mark.parametrize("member", [None, Shifter, ViewpointNormalizer, IndividualNormalizer])
    def test_has_whole_samples_and_the_same_numbers_in_whatever_order_it_was_given_them(self, skeleton, member):
        poses, labels = hands(skeleton, 40)
        normalizer = member and member(skeleton)
        expected = Batch.of(poses, labels, normalizer)
        batch = Batch.of(stored_samples_last(poses), stored_samples_last(labels), normalizer)
        assert batch.poses.is_contiguous()
        assert batch.labels.is_contiguous()
        torch.testing.assert_close(batch.poses, expected.poses, rtol=0, atol=1e-3)
        torch.testing.assert_close(batch.labels, expected.labels, rtol=0, atol=1e-3)

    @pytest.mark.parametrize("member", [None, Shifter, GlobalNormalizer, ViewpointNormalizer, IndividualNormalizer])
    def test_is_split_into_batches_with_the_same_samples_and_frames(self, skeleton, member):
        poses, labels = hands(skeleton, 23)
        normalizer = member and member(skeleton)
        if normalizer is not None:
            normalizer.fit([poses])
        whole = Batch.of(poses, stored_samples_last(labels), normalizer)
        parts = list(whole.split(10))
        assert [len(part.poses) for part in parts] == [10, 10, 3]
        assert torch.equal(torch.cat([part.poses for part in parts]), whole.poses)
        assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
        assert torch.equal(torch.cat([part.in_mm(part.poses) for part in parts]), whole.in_mm(whole.poses))

    def test_normalizes_its_labels_once_for_all_parts_and_not_before_they_are_asked_for(self, skeleton):
        poses, labels = hands(skeleton, 5)
        whole = Batch.of(poses, labels, Shifter(skeleton))
        first, second = whole.split(3)
        assert "labels" not in vars(whole)
        memory = first.labels.untyped_storage().data_ptr()
        assert second.labels.untyped_storage().data_ptr() == whole.labels.untyped_storage().data_ptr() == memory

    def test_is_split_into_batches_that_a_model_may_write_to_without_a_trace_in_the_others(self, skeleton):
        poses, labels = hands(skeleton, 6)
        weight = torch.ones((), requires_grad=True)
        for part in Batch.of(poses.clone(), labels, None).split(2):
            assert not part.poses.requires_grad
            part.poses.mul_(weight).sum().backward()
        torch.testing.assert_close(weight.grad, poses.sum(), rtol=1e-5, atol=0)


class TestDeviceDataset:
    @pytest.fixture
    def dataset(self, skeleton):
        return pose_dataset(skeleton, N, SUBSETS)

    @pytest.fixture
    def data(self, dataset):
        return DeviceDataset.of(dataset, CPU)

    def test_has_the_samples_subsets_and_skeleton_of_the_dataset(self, data, dataset):
        assert len(data) == N
        assert data.subsets == SUBSETS
        assert data.skeleton is dataset.skeleton
        for subset in SUBSETS:
            np.testing.assert_array_equal(data.poses[subset], dataset.poses[subset])

    def test_gathers_the_samples_that_are_asked_for_in_that_order(self, data, dataset):
        indices = torch.tensor([22, 3, 3, 0])
        poses, labels = data.gather("B", indices)
        np.testing.assert_array_equal(poses, dataset.poses["B"][indices])
        np.testing.assert_array_equal(labels, dataset.labels[indices])

    @pytest.mark.parametrize("size", [1, 5, N - 1, N, 100])
    def test_goes_through_all_samples_in_order_in_chunks(self, data, dataset, size):
        chunks = list(data.chunks("C", size))
        assert [len(poses) for poses, _ in chunks] == [size] * (N // size) + [N % size] * (N % size > 0)
        np.testing.assert_array_equal(torch.cat([poses for poses, _ in chunks]), dataset.poses["C"])
        np.testing.assert_array_equal(torch.cat([labels for _, labels in chunks]), dataset.labels)

    def test_hands_out_copies_alone(self, data, dataset):
        """The arrays are shared with other trials, and torch would write to them without an error."""
        before = {"labels": dataset.labels.copy(), **{name: array.copy() for name, array in dataset.poses.items()}}
        for tensors in [data.gather("A", torch.arange(N)), *data.chunks("A", 5), *data.chunks("A", 100)]:
            for tensor in tensors:
                tensor.fill_(-1)
        for name, array in {"labels": dataset.labels, **dataset.poses}.items():
            np.testing.assert_array_equal(array, before[name])

    def test_shares_the_memory_of_the_dataset_on_the_cpu(self, data, dataset):
        assert data.labels.data_ptr() == dataset.labels.ctypes.data

    def test_takes_arrays_of_any_layout(self, dataset, skeleton):
        labels = np.asfortranarray(dataset.labels)
        data = DeviceDataset.of(PoseDataset("", labels, {"A": labels[::2].repeat(2, axis=0)[:N]}, skeleton, ""), CPU)
        _, gathered = data.gather("A", torch.tensor([4, 2]))
        np.testing.assert_array_equal(gathered, labels[[4, 2]])


class TestDataKeptOnADevice:
    def test_are_brought_to_the_device_once_for_all_that_follows(self, skeleton):
        kept = DeviceCache(DeviceDataset.of, dataset_identity)
        train, val = pose_dataset(skeleton, N), replace(pose_dataset(skeleton, N, seed=1), fingerprint="val")
        first = kept.get({"train": train, "val": val}, CPU)
        again = kept.get({"val": replace(val), "test": replace(train), "train": replace(train)}, CPU)
        assert again["train"] is again["test"] is first["train"]
        assert again["val"] is first["val"]
        np.testing.assert_array_equal(again["val"].labels, val.labels)

    def test_are_any_that_is_known_by_its_content(self):
        table = Table(np.arange(6, dtype=np.float32), "fingerprint")
        kept = DeviceCache[Table, torch.Tensor](
            lambda table, device: on_device(table.array, device), lambda table: table.fingerprint
        )
        first = kept.get({"a": table}, CPU)["a"]
        np.testing.assert_array_equal(first, table.array)
        assert kept.get({"b": replace(table)}, CPU)["b"] is first

    def test_are_not_taken_for_a_dataset_with_another_skeleton_or_order_of_subsets(self, skeleton):
        kept = DeviceCache(DeviceDataset.of, dataset_identity)
        first = pose_dataset(skeleton, N, ("A", "B"))
        turned = replace(first, poses=dict(reversed(first.poses.items())))
        own = replace(first, skeleton=replace(skeleton, bones=skeleton.bones[:-1]))
        brought = kept.get({"first": first, "turned": turned, "own": own}, CPU)
        assert brought["turned"].subsets == ("B", "A")
        assert brought["own"].skeleton == own.skeleton
        assert brought["first"].subsets == ("A", "B")

    def test_are_let_go_when_another_trial_trains_on_others(self, skeleton):
        kept = DeviceCache(DeviceDataset.of, dataset_identity)
        train = pose_dataset(skeleton, N)
        first = weakref.ref(kept.get({"train": train}, CPU)["train"])
        kept.get({"train": replace(train, fingerprint="another")}, CPU)
        assert first() is None
        assert list(kept.get({"train": train}, CPU)) == ["train"]


@pytest.fixture(params=[1, 12, 2048], ids="{} samples at once".format)
def _prepared_together(request, monkeypatch):
    """Whether batches are distorted, augmented and normalised one by one, a few together, or all."""
    monkeypatch.setattr("data_pipeline.loader._SAMPLES_PER_GROUP_OF_A_CPU", request.param)


@pytest.mark.parametrize("n", [1, 5, 12])
def test_every_row_of_an_array_reaches_the_gpu(gpus, monkeypatch, n):
    monkeypatch.setattr("data_pipeline.batch._PINNED_SAMPLES", 5)
    array = np.arange(n * 6, dtype=np.float32).reshape(n, 2, 3)
    np.testing.assert_array_equal(on_device(array, torch.device("cuda", 0)), array)


@pytest.mark.gpu
class TestOnAGpu:
    def test_a_dataset_is_the_same_there(self, skeleton, monkeypatch):
        monkeypatch.setattr("data_pipeline.batch._PINNED_SAMPLES", 5)
        dataset = pose_dataset(skeleton, N, SUBSETS)
        data = DeviceDataset.of(dataset, torch.device("cuda", 0))
        assert data.labels.is_cuda
        np.testing.assert_array_equal(data.labels.cpu(), dataset.labels)
        for subset in SUBSETS:
            np.testing.assert_array_equal(data.poses[subset].cpu(), dataset.poses[subset])


@pytest.mark.usefixtures("_prepared_together")
class TestEpoch:
    @pytest.mark.parametrize("batch_size", [1, 5, N - 1, N, 1000])
    def test_has_every_sample_once_and_a_short_last_batch(self, batch_size):
        loader = make_loader(batch_size=batch_size)
        for _ in range(3):
            batches = list(loader.epoch())
            assert len(batches) == len(loader)
            assert sorted(i for batch in batches for i in samples(batch)) == list(range(N))
            full, short = divmod(N, batch_size)
            assert [len(batch.poses) for batch in batches] == [batch_size] * full + [short] * (short > 0)

    def test_has_an_order_of_its_own(self):
        loader = make_loader()
        orders = [tuple(i for batch in loader.epoch() for i in samples(batch)) for _ in range(20)]
        assert len(set(orders)) == 20

    def test_puts_each_sample_at_each_place_alike(self):
        loader = make_loader(numbered_dataset(5), batch_size=5)
        counts = Counter((place, i) for _ in range(2000) for place, i in enumerate(samples(next(loader.epoch()))))
        assert scipy.stats.chisquare([counts[place, i] for place in range(5) for i in range(5)]).pvalue > 1e-3

    def test_keeps_pose_and_label_of_a_sample_together(self):
        for batch in make_loader().epoch():
            assert torch.equal(batch.poses.remainder(1000), batch.labels)

    def test_takes_each_batch_from_one_subset_and_all_subsets_alike(self):
        loader = make_loader(batch_size=2)
        drawn = [subsets_of(batch) for _ in range(100) for batch in loader.epoch()]
        assert all(len(subsets) == 1 for subsets in drawn)
        counts = Counter(subset for (subset,) in drawn)
        assert sorted(counts) == [1, 2, 3]
        assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-3

    def test_draws_the_subset_for_each_batch_and_not_for_the_epoch(self):
        assert len(set().union(*(subsets_of(batch) for batch in make_loader(batch_size=2).epoch()))) > 1

    def test_leaves_the_memory_of_the_dataset_alone_even_where_a_distorter_writes(self):
        class Writer(Distorter):
            def __call__(self, samples, generator):
                samples.labels.fill_(-1)
                return samples.poses.fill_(-1)

        dataset = pose_dataset(NYU, N)
        before = dataset.labels.copy(), dataset.poses["DEFAULT"].copy()
        assert all((batch.poses == -1).all() for batch in make_loader(dataset, distorter=Writer()).epoch())
        np.testing.assert_array_equal(dataset.labels, before[0])
        np.testing.assert_array_equal(dataset.poses["DEFAULT"], before[1])

    def test_distorts_the_input_alone_where_it_is_the_label(self):
        dataset = pose_dataset(NYU, N)
        dataset = PoseDataset("", dataset.labels, {"DEFAULT": dataset.labels}, NYU, "")
        loader = make_loader(dataset, distorter=GaussianDistorter(std_mm=10))
        labels = torch.cat([batch.labels for batch in loader.epoch()])
        assert sorted(labels[:, 0, 0].tolist()) == sorted(dataset.labels[:, 0, 0].tolist())
        assert all((batch.poses - batch.labels).std() > 5 for batch in loader.epoch())


@pytest.mark.usefixtures("_prepared_together")
class TestSteps:
    def test_distort_then_augment_in_order_then_normalise(self):
        """Each step writes a digit into the poses."""

        class Append(Distorter):
            def __init__(self, digit):
                self.digit = digit

            def __call__(self, samples, generator):
                return samples.poses * 10 + self.digit

        class AppendToBoth(Append, Augmenter):
            def __call__(self, poses, labels, skeleton, generator):
                return poses * 10 + self.digit, labels * 10 + self.digit

        dataset = numbered_dataset(4, subsets=("A",))
        steps = {"distorter": Append(1), "augmenters": [AppendToBoth(2), AppendToBoth(3)]}
        for batch in make_loader(dataset, **steps).epoch():
            original = (batch.labels - 23) / 100
            assert torch.equal(batch.poses, (original + 1000) * 1000 + 123)
        # The frame is that of the input after all steps: what is left of a flat pose is zero.
        for batch in make_loader(dataset, normalizer=Shifter(NYU), **steps).epoch():
            assert torch.equal(batch.poses, torch.zeros(4, 14, 3))
            assert torch.equal(batch.transform.origin.remainder(1000), torch.full((4, 1, 3), 123.0))

    def test_give_the_distorter_the_labels_of_the_same_samples(self):
        class Recorder(Distorter):
            def __call__(self, samples, generator):
                return samples.labels + 0.5

        for batch in make_loader(distorter=Recorder()).epoch():
            assert torch.equal(batch.poses, batch.labels + 0.5)

    def test_give_the_distorter_the_places_of_the_samples_the_skeleton_and_its_tables(self):
        class Recorder(Distorter):
            def __call__(self, samples, generator):
                assert samples.skeleton is NYU
                assert samples.tables is tables
                assert torch.equal(samples.labels[:, 0, 0], samples.indices.float())
                seen.extend(samples.indices.tolist())
                return samples.poses

        tables, seen = {"bank_errors.pt": torch.zeros(3, 14, 3)}, []
        loader = make_loader(distorter=Recorder(), tables=tables)
        order = [i for batch in loader.epoch() for i in samples(batch)]
        assert seen == order

    def test_draw_from_generators_of_their_own(self):
        """So an option does not change the draws of the others, and comparisons are paired."""
        plain = [samples(batch) for batch in make_loader().epoch()]
        noisy = make_loader(distorter=GaussianDistorter(std_mm=0.01))
        assert [samples(batch) for batch in noisy.epoch()] == plain

        dataset = pose_dataset(NYU, N)
        distorter, augmenters = GaussianDistorter(std_mm=5), [RandomRotator()]
        turned = make_loader(dataset, augmenters=augmenters).epoch()
        turned_noisy = make_loader(dataset, distorter=distorter, augmenters=augmenters).epoch()
        for one, other in zip(turned, turned_noisy, strict=True):
            moved = one.labels - one.labels.mean(dim=1, keepdim=True)
            also_moved = other.labels - other.labels.mean(dim=1, keepdim=True)
            torch.testing.assert_close(moved, also_moved, rtol=0, atol=1e-2)


@pytest.mark.usefixtures("_prepared_together")
class TestState:
    @pytest.fixture(params=["shifter", "none"])
    def make(self, request):
        dataset = pose_dataset(NYU, N, SUBSETS)

        def make(seed=0):
            return make_loader(
                dataset,
                seed=seed,
                distorter=GaussianDistorter(std_mm=5),
                augmenters=[RandomRotator(), RandomScaler()],
                normalizer=Shifter(NYU) if request.param == "shifter" else None,
            )

        return make

    def test_gives_the_same_batches_for_the_same_seeds(self, make):
        first, second = make(), make()
        for _ in range(2):
            assert_same_batches(first.epoch(), second.epoch())

    def test_gives_other_batches_for_another_seed(self, make):
        assert not torch.equal(next(make().epoch()).poses, next(make(seed=10).epoch()).poses)

    def test_goes_on_with_the_same_bits_where_it_was_saved(self, make):
        loader, continued = make(), make(seed=10)
        list(loader.epoch())
        file = io.BytesIO()
        torch.save(loader.state_dict(), file)
        file.seek(0)
        list(continued.epoch())
        continued.load_state_dict(torch.load(file, weights_only=True))
        for _ in range(2):
            assert_same_batches(loader.epoch(), continued.epoch())


SEQUENCES = FrameTable.of(
    sequence=list("aaaaaaabbbbbbbbbbbccccc"), index=[*range(7), 0, 1, 2, *range(5, 13), *range(5)]
)
"""23 frames in four runs: in the second sequence two frames are missing."""

RUNS = [range(7), range(7, 10), range(10, 18), range(18, 23)]


class TestWindows:
    @given(before=st.integers(0, 9), after=st.integers(0, 9))
    def test_repeat_the_ends_of_a_run_and_never_leave_it(self, before, after):
        data = DeviceDataset.of(replace(numbered_dataset(), frames=SEQUENCES), CPU)
        expected = [
            [min(max(i + offset, run[0]), run[-1]) for offset in range(-before, after + 1)] for run in RUNS for i in run
        ]
        assert data.window_rows(torch.arange(N), Window(before, after)).tolist() == expected

    @given(distant=st.builds(range, st.integers(-12, 3), st.integers(-3, 12), st.integers(1, 5)))
    def test_have_their_distant_frames_last_and_in_the_same_run(self, distant):
        data = DeviceDataset.of(replace(numbered_dataset(), frames=SEQUENCES), CPU)
        window = Window(1, 2, distant)
        offsets = [-1, 0, 1, 2, *distant]
        expected = [[min(max(i + offset, run[0]), run[-1]) for offset in offsets] for run in RUNS for i in run]
        assert data.window_rows(torch.arange(N), window).tolist() == expected
        assert (window.n_near, window.size) == (4, len(offsets))
        assert (window.first, window.last) == (min(offsets), max(offsets))

    def test_of_a_dataset_without_a_table_take_it_as_one_run(self):
        data = DeviceDataset.of(numbered_dataset(), CPU)
        assert data.window_rows(torch.tensor([0, 22, 10]), Window(1, 2)).tolist() == [
            [0, 0, 1, 2],
            [21, 22, 22, 22],
            [9, 10, 11, 12],
        ]

    @pytest.mark.parametrize("normalizer", [None, Shifter(NYU)])
    def test_of_a_batch_are_around_its_poses_of_one_backbone(self, normalizer):
        dataset = replace(numbered_dataset(), frames=SEQUENCES)
        loader = make_loader(dataset, normalizer=normalizer, window=Window(2, 1))
        seen = []
        for batch in loader.epoch():
            (subset,) = {int(k) for k in (batch.in_mm(batch.poses) - batch.labels_mm).div(1000).round().unique()}
            places = batch.labels_mm[:, 0, 0].long()
            rows = loader.data.window_rows(places, Window(2, 1)).float()
            in_mm = batch.windows if normalizer is None else batch.windows + batch.in_mm(batch.poses)[:, None]
            assert torch.equal(in_mm[..., 0, 0], rows + 1000 * subset)
            assert torch.equal(batch.inputs[:, 2], batch.poses)
            seen += places.tolist()
        assert sorted(seen) == list(range(N))

    def test_are_augmented_as_a_whole(self):
        """A window that is turned and scaled moves as before: all distances between its joints change alike."""
        dataset = replace(pose_dataset(NYU, N), frames=SEQUENCES)
        plain, turned = (
            next(make_loader(dataset, augmenters=augmenters, window=Window(2, 2)).epoch()).windows.flatten(1, 2)
            for augmenters in ((), (RandomRotator(), RandomScaler()))
        )  # (n, W·J, 3) each
        ratios = torch.cdist(turned, turned) / torch.cdist(plain, plain).clamp(min=1e-3)  # (n, W·J, W·J)
        apart = torch.cdist(plain, plain) > 1
        for ratio, is_apart in zip(ratios, apart, strict=True):
            torch.testing.assert_close(
                ratio[is_apart], ratio[is_apart].mean().expand(int(is_apart.sum())), rtol=1e-3, atol=0
            )

    def test_are_distorted_frame_by_frame(self):
        dataset = replace(numbered_dataset(400, ("A",)), frames=FrameTable.of(sequence=["a"] * 400))
        loader = make_loader(dataset, distorter=GaussianDistorter(std_mm=3.0), window=Window(1, 0), batch_size=400)
        batch = next(loader.epoch())
        rows = loader.data.window_rows(batch.labels_mm[:, 0, 0].long(), Window(1, 0))
        noise = batch.windows - (rows + 1000.0)[:, :, None, None]  # (N, 2, J, 3)
        before, corrected = noise.flatten(2).unbind(1)
        assert noise.std().item() == pytest.approx(3, rel=0.05)
        assert abs(np.corrcoef(before.flatten(), corrected.flatten())[0, 1]) < 0.05

    def test_are_sliced_with_their_batch(self):
        dataset = replace(numbered_dataset(), frames=SEQUENCES)
        whole = next(make_loader(dataset, batch_size=N, window=Window(1, 1)).epoch())
        parts = list(whole.split(6))
        assert torch.equal(torch.cat([part.windows for part in parts]), whole.windows)


class TestWindowsOfAllSubsets:
    @pytest.mark.parametrize("normalizer", [None, Shifter(NYU)])
    def test_have_every_subset_in_order_around_the_mean_pose(self, normalizer):
        dataset = replace(numbered_dataset(), frames=SEQUENCES)
        loader = make_loader(dataset, normalizer=normalizer, window=Window(2, 1), fused=True)
        seen = []
        for batch in loader.epoch():
            places = batch.labels_mm[:, 0, 0].long()
            rows = loader.data.window_rows(places, Window(2, 1)).float()  # (n, W)
            mean = batch.in_mm(batch.poses)
            assert torch.equal(mean, batch.labels_mm + 2000)  # of 1000, 2000 and 3000
            in_mm = batch.inputs if normalizer is None else batch.inputs + mean[:, None, None]
            expected = rows[:, None] + torch.tensor([1000.0, 2000.0, 3000.0])[:, None]  # (n, S, W)
            torch.testing.assert_close(in_mm, expected[..., None, None].expand_as(in_mm), rtol=0, atol=1e-3)
            seen += places.tolist()
        assert sorted(seen) == list(range(N))

    def test_are_augmented_as_a_whole_with_their_labels(self):
        """All distances between the joints of a sample, of whatever subset and frame, change alike."""
        dataset = replace(pose_dataset(NYU, N, SUBSETS), frames=SEQUENCES)
        plain, turned = (
            next(make_loader(dataset, augmenters=augmenters, window=Window(1, 1), fused=True).epoch())
            for augmenters in ((), (RandomRotator(), RandomScaler()))
        )
        before, after = (
            torch.cdist(points, points)
            for points in (torch.cat([b.inputs.flatten(1, 3), b.labels_mm], dim=1).double() for b in (plain, turned))
        )  # (n, S·W·J + J, S·W·J + J) each
        for ratio, is_apart in zip(after / before.clamp(min=1e-3), before > 1, strict=True):
            torch.testing.assert_close(
                ratio[is_apart], ratio[is_apart].mean().expand(int(is_apart.sum())), rtol=1e-3, atol=0
            )

    def test_are_distorted_pose_by_pose(self):
        dataset = numbered_dataset(400, ("A", "B"))
        loader = make_loader(
            dataset, distorter=GaussianDistorter(std_mm=3.0), window=Window(0, 0), fused=True, batch_size=400
        )
        batch = next(loader.epoch())
        noise = batch.inputs[:, :, 0] - batch.labels_mm[:, None] - torch.tensor([1000.0, 2000.0])[:, None, None]
        assert noise.std().item() == pytest.approx(3, rel=0.05)
        first, second = noise.flatten(2).unbind(1)
        assert abs(np.corrcoef(first.flatten(), second.flatten())[0, 1]) < 0.05

    def test_give_a_distorter_the_samples_that_the_poses_are_of(self):
        class Subtracts(Distorter):
            def __call__(self, samples, generator):
                assert torch.equal(samples.labels[:, 0, 0].long(), samples.indices)
                return samples.poses - samples.indices[:, None, None]

        for batch in make_loader(distorter=Subtracts(), window=Window(1, 1), fused=True).epoch():
            for subset, poses in enumerate(batch.inputs.unbind(1), start=1):
                assert (poses == 1000 * subset).all()

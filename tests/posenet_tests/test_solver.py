import copy
import gc
import itertools
import math
import random
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from data_pipeline.augmenters import RandomRotator, RandomScaler
from data_pipeline.batch import DeviceDataset, window_of
from data_pipeline.distorters import GaussianDistorter, NoDistorter
from data_pipeline.loader import Generators, TrainingLoader
from data_pipeline.normalizers import GlobalNormalizer, Shifter
from data_pipeline.skeleton import NYU
from posenet import errors
from posenet.checkpoint import pack, unpack
from posenet.evaluator import Evaluator, Measurement
from posenet.losses import CombinedLoss, Loss, MetricLoss
from posenet.models import ClosedFormCorrector, CorrectorMLP, KernelCorrector, TemporalLCN
from posenet.models.corrector import STRENGTH
from posenet.reproducible import seed_process
from posenet.solver import Best, DivergedError, Examples, Solver, SolverSettings, _is_log_point
from tests.support import generator, pose_dataset, same_bits

N_TRAIN, N_VAL, BATCH_SIZE = 23, 11, 5
N_BATCHES = 5  # four of five samples and one of three

TRAIN = {subsets: pose_dataset(NYU, N_TRAIN, subsets, seed=1) for subsets in (("A",), ("A", "B", "C"))}
VAL = {subsets: pose_dataset(NYU, N_VAL, subsets, seed=2) for subsets in TRAIN}

adam = partial(torch.optim.Adam, lr=1e-3)
constant = partial(lr_scheduler.ConstantLR, factor=1)


def make_solver(
    seed=0,
    *,
    model=None,
    model_class=CorrectorMLP,
    model_args=None,
    choose_strength=False,
    loss=None,
    optimizer=adam,
    scheduler=constant,
    normalizer=Shifter,
    distorter=None,
    augmenters=(),
    subsets=("A",),
    eval_space="default",
    evaluator=None,
    examples=None,
    **settings,
):
    train, val = (DeviceDataset.of(sets[subsets], torch.device("cpu")) for sets in (TRAIN, VAL))
    normalizer = None if normalizer is None else normalizer(train.skeleton)
    if normalizer is not None:
        normalizer.fit(poses for subset in subsets for poses, _ in train.chunks(subset, 100))
    seed_process(seed)
    model = model or model_class(NYU, **(model_args or {"hidden_dims": [16]}))
    loader = TrainingLoader(
        train,
        batch_size=BATCH_SIZE,
        distorter=distorter or NoDistorter(),
        augmenters=augmenters,
        normalizer=normalizer,
        generators=Generators(generator(seed), generator(seed + 1), generator(seed + 2)),
        window=window_of(model),
    )
    seed_process(seed + 1)
    if choose_strength:
        model.add_strength()
    has_gradients = not isinstance(model, ClosedFormCorrector)
    optimizer = optimizer(model.parameters()) if has_gradients else None
    evaluator = evaluator or Evaluator(val, normalizer=normalizer, eval_space=eval_space)
    settings = SolverSettings(**{"num_epochs": 3, **settings})
    scheduler = scheduler(optimizer) if has_gradients else None
    return Solver(model, loss or MetricLoss(), optimizer, scheduler, loader, evaluator, settings, examples)


def train(solver):
    """Trains to the end and returns all records."""
    return [record for report in solver.epochs() for point in report.log_points for record in point.records]


def trained(seed=0, **arguments):
    """Returns a solver that trained to the end; it is made just before, since both steps use global generators."""
    solver = make_solver(seed, **arguments)
    train(solver)
    return solver


def values(records, metric, split="train"):
    return [record.value for record in records if (record.split, record.metric) == (split, metric)]


def weighted_mean(values, sizes):
    return np.average(values, weights=sizes)


SIZES = [5, 5, 5, 5, 3]

# Everything that draws random numbers or keeps state between batches.
EVERYTHING = {
    "model_args": {"hidden_dims": [16, 16], "dropout": 0.3, "batchnorm": True},
    "loss": CombinedLoss([(errors.distance_error, 1.0, "absolute"), (errors.proportion_error, 0.1, "squared")]),
    "normalizer": GlobalNormalizer,
    "distorter": GaussianDistorter(std_mm=5),
    "augmenters": [RandomRotator(), RandomScaler()],
    "subsets": ("A", "B", "C"),
    "log_frequency": 2,
    "log_loss": True,
    "log_grad": True,
}


class ByHand:
    """The training of an MLP with one hidden layer, Shifter and Adam, in plain torch."""

    def __init__(self, num_epochs, seed=0):
        torch.manual_seed(seed)
        hidden, output = nn.Linear(42, 16), nn.Linear(16, 42)
        self.network = nn.Sequential(hidden, nn.LeakyReLU(), output)
        optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        poses = torch.tensor(TRAIN["A",].poses["A"])
        labels = torch.tensor(TRAIN["A",].labels)
        draw = generator(seed)
        self.losses, self.grad_norms, self.sizes = [], [], []
        for _ in range(num_epochs):
            order = torch.randperm(N_TRAIN, generator=draw)
            torch.randint(1, (N_BATCHES,), generator=draw)  # the subset of each batch; there is only one
            for start in range(0, N_TRAIN, BATCH_SIZE):
                indices = order[start : start + BATCH_SIZE]
                x, y = poses[indices], labels[indices]
                centre = x.mean(dim=1, keepdim=True)
                corrected = (x - centre) + self.network((x - centre).flatten(1)).view_as(x)
                loss = (corrected - (y - centre)).norm(dim=2).mean()
                optimizer.zero_grad()
                loss.backward()
                self.losses.append(loss.item())
                norms = [math.sqrt(p.grad.double().square().sum()) for p in self.network.parameters()]
                self.grad_norms.append(np.mean(norms))
                self.sizes.append(len(indices))
                optimizer.step()


class Restless(CorrectorMLP):
    """Draws in evaluations too."""

    def forward(self, poses):
        return super().forward(poses) + (0 if self.training else torch.randn(1))


def random_joint(poses, labels, skeleton):
    """A metric that draws from all global generators."""
    joint = (random.randrange(14) + np.random.randint(14) + torch.randint(14, (1,)).item()) % 14  # noqa: NPY002
    return (poses - labels)[:, joint].norm(dim=1)


class TestTraining:
    def test_gives_the_weights_of_a_loop_written_by_hand_bit_for_bit(self):
        solver = make_solver(num_epochs=4)
        train(solver)
        by_hand = ByHand(num_epochs=4).network.state_dict()
        trained = solver.model.layers.state_dict()
        assert by_hand.keys() == trained.keys()
        assert all(torch.equal(trained[name], by_hand[name]) for name in by_hand)

    @pytest.mark.parametrize("arguments", [{}, EVERYTHING], ids=["little", "everything"])
    def test_gives_the_same_bits_for_the_same_seeds(self, arguments):
        runs = []
        for _ in range(2):
            solver = make_solver(**arguments)
            runs.append((train(solver), solver.state_dict()))
        assert runs[0][0] == runs[1][0]
        assert same_bits(runs[0][1], runs[1][1])

    def test_gives_others_for_another_seed(self):
        assert train(make_solver(0)) != train(make_solver(1))

    @pytest.mark.parametrize(
        "logging", [{"log_frequency": 5}, {"log_frequency": 2, "log_loss": True, "log_grad": True}]
    )
    def test_does_not_depend_on_what_is_logged(self, logging):
        arguments = {**EVERYTHING, "log_frequency": 1, "log_loss": False, "log_grad": False}
        quiet, talkative = (trained(**{**arguments, **more}).state_dict() for more in ({}, logging))
        assert same_bits(quiet, talkative)

    def test_does_not_depend_on_what_evaluations_draw(self):
        def weights(metrics, **arguments):
            val = DeviceDataset.of(VAL["A",], torch.device("cpu"))
            evaluator = Evaluator(val, normalizer=Shifter(NYU), eval_space="default", own_metrics=metrics)
            dropout = {"hidden_dims": [16], "dropout": 0.3}
            solver = trained(model_class=Restless, model_args=dropout, evaluator=evaluator, **arguments)
            return solver.model.state_dict()

        frequent = weights([random_joint], log_frequency=5, examples=Examples("A", torch.arange(2)))
        assert same_bits(weights([]), frequent)

    def test_lowers_the_error_of_poses_that_it_has_not_seen(self):
        records = train(make_solver(num_epochs=60, optimizer=partial(torch.optim.Adam, lr=1e-2)))
        distances = values(records, "distance", "val")
        assert min(distances) < 0.95 * distances[0]

    def test_uses_every_sample_once_an_epoch_also_those_of_the_short_last_batch(self):
        seen = []

        class Recorder(Loss):
            def __call__(self, poses, labels, skeleton):
                seen.append(labels[:, 0].tolist())
                return MetricLoss()(poses, labels, skeleton)

        solver = make_solver(loss=Recorder(), normalizer=None)
        expected = sorted(TRAIN["A",].labels[:, 0].tolist())
        for _ in solver.epochs():
            assert [len(batch) for batch in seen] == SIZES
            assert sorted(itertools.chain(*seen)) == expected
            seen.clear()

    def test_leaves_the_shared_memory_of_the_datasets_alone(self):
        sets = [TRAIN["A", "B", "C"], VAL["A", "B", "C"]]
        before = copy.deepcopy([(dataset.labels, dataset.poses) for dataset in sets])
        train(make_solver(**EVERYTHING))
        for dataset, (labels, poses) in zip(sets, before, strict=True):
            np.testing.assert_array_equal(dataset.labels, labels)
            for subset, array in poses.items():
                np.testing.assert_array_equal(dataset.poses[subset], array)

    def test_keeps_no_tensor_of_a_batch_until_the_log_point(self, monkeypatch):
        counts, train_batch = [], Solver._train_batch

        def count_after(*arguments):
            train_batch(*arguments)
            gc.collect()
            counts.append(sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()))

        monkeypatch.setattr(Solver, "_train_batch", count_after)
        train(make_solver(num_epochs=2, log_grad=True))
        of_second_epoch = counts[N_BATCHES:]  # the first one creates the optimizer's state
        assert len(set(of_second_epoch)) == 1

    def test_yields_after_each_epoch_and_then_no_more(self):
        solver = make_solver(num_epochs=4)
        assert [report.epoch for report in solver.epochs()] == [1, 2, 3, 4]
        assert solver.epoch == 4
        assert list(solver.epochs()) == []

    def test_has_dropout_on_whatever_was_before_the_epoch_and_after_an_evaluation_within_it(self):
        modes = []

        class Watched(CorrectorMLP):
            def correction(self, poses):
                modes.append(self.training)
                return super().correction(poses)

        model = Watched(NYU, hidden_dims=[4], dropout=0.5).eval()
        for _ in make_solver(model=model, num_epochs=2, log_frequency=N_BATCHES).epochs():
            assert modes == [True, False] * N_BATCHES
            modes.clear()
            model.eval()


KERNEL = {"model_class": KernelCorrector, "model_args": {"bandwidth": 100.0, "ridge": 0.1, "n_centres": 12}}


class TestClosedForm:
    def test_is_fitted_to_all_samples_of_the_epoch_also_those_of_the_short_last_batch(self):
        arguments = {"bandwidth": 100.0, "ridge": 0.1, "n_centres": N_TRAIN}
        solver = trained(**{**KERNEL, "model_args": arguments}, num_epochs=1)
        poses, labels = torch.tensor(TRAIN["A",].poses["A"]), torch.tensor(TRAIN["A",].labels)
        centres = poses.mean(dim=1, keepdim=True)
        by_hand = KernelCorrector(NYU, **arguments)
        by_hand.add(poses - centres, labels - centres)
        by_hand.fit()
        torch.testing.assert_close(solver.model(poses - centres), by_hand(poses - centres), rtol=0, atol=1e-3)

    def test_lowers_the_error_of_poses_that_it_has_not_seen_in_one_epoch(self):
        (report,) = make_solver(**KERNEL, num_epochs=1, log_frequency=2).epochs()
        # The first log point is before the fit, and the model returns its input.
        before, after = (point.val_distance_mm for point in report.log_points)
        assert after < 0.95 * before

    def test_has_the_training_loss_of_the_weights_before_the_epoch(self):
        records = train(make_solver(**KERNEL, num_epochs=2, eval_space="original"))
        before, fitted = values(records, "loss")
        poses, labels = TRAIN["A",].poses["A"], TRAIN["A",].labels
        assert before == pytest.approx(np.linalg.norm(poses - labels, axis=2).mean())
        assert fitted < before

    def test_has_no_gradients_to_log(self):
        records = train(make_solver(**KERNEL, log_loss=True, log_grad=True))
        assert len(values(records, "batch_loss")) == 3 * N_BATCHES
        assert values(records, "batch_grad_norm") == []


class TestStrength:
    def test_is_the_best_one_at_every_log_point_and_part_of_the_best_weights(self):
        solver = make_solver(choose_strength=True, optimizer=partial(torch.optim.Adam, lr=0.05), log_frequency=2)
        (uncorrected,) = (
            m.value
            for m in make_solver(**KERNEL).evaluator.intermediate(KernelCorrector(NYU, **KERNEL["model_args"]))
            if (m.subset, m.space, m.metric) == ("mean", "original", "distance")
        )
        best = {}
        for report in solver.epochs():
            strength = solver.evaluator.best_strength(solver.model)
            assert values(report.log_points[-1].records, "strength", "val") == [strength]
            assert report.log_points[-1].text.endswith(f" mm with strength {strength}")
            assert report.val_distance_mm <= uncorrected + 1e-4
            best[report.val_distance_mm] = strength
        assert len(set(best.values()) - {0, 1}) > 0, "the example shows nothing"
        assert solver.best.weights[STRENGTH].item() == pytest.approx(best[solver.best.val_distance_mm])

    def test_does_not_change_the_training(self):
        weights = [trained(choose_strength=choose, **EVERYTHING).model.state_dict() for choose in (True, False)]
        del weights[0][STRENGTH]
        assert same_bits(dict(weights[0]), dict(weights[1]))

    def test_is_the_same_for_any_number_of_log_points(self):
        arguments = {**EVERYTHING, "choose_strength": True}
        states = [trained(**{**arguments, "log_frequency": n}).state_dict() for n in (1, 5)]
        assert same_bits(*states)


class TestScheduler:
    def test_is_stepped_once_an_epoch(self):
        solver = make_solver(scheduler=partial(lr_scheduler.StepLR, step_size=2, gamma=0.1), num_epochs=5)
        rates = [solver.optimizer.param_groups[0]["lr"] for _ in solver.epochs()]
        assert rates == pytest.approx([1e-3, 1e-4, 1e-4, 1e-5, 1e-5])

    @pytest.mark.parametrize("log_frequency", [1, 3])
    def test_that_requires_a_metric_gets_the_mean_loss_of_the_epoch(self, log_frequency):
        given = []

        class Recorder(lr_scheduler.ReduceLROnPlateau):
            def step(self, metrics):
                given.append(metrics)
                super().step(metrics)

        by_hand = ByHand(num_epochs=3)
        train(make_solver(scheduler=Recorder, scheduler_requires_metric=True, log_frequency=log_frequency))
        losses = np.reshape(by_hand.losses, (3, N_BATCHES))
        assert given == pytest.approx([weighted_mean(epoch, SIZES) for epoch in losses])


class TestLogPoints:
    @given(n_batches=st.integers(1, 60), log_frequency=st.integers(1, 80))
    def test_are_spread_evenly_over_the_epoch_and_end_with_it(self, n_batches, log_frequency):
        points = [n for n in range(1, n_batches + 1) if _is_log_point(n, n_batches, log_frequency)]
        assert points == sorted({math.ceil(i * n_batches / log_frequency) for i in range(1, log_frequency + 1)})
        assert len(points) == min(log_frequency, n_batches)
        assert points[-1] == n_batches

    @pytest.mark.parametrize(
        ("log_frequency", "points"),
        [(1, [5]), (2, [3, 5]), (3, [2, 4, 5]), (5, [1, 2, 3, 4, 5]), (99, [1, 2, 3, 4, 5])],
    )
    def test_hold_the_records_of_the_batches_since_the_last(self, log_frequency, points):
        by_hand = ByHand(num_epochs=2)
        solver = make_solver(num_epochs=2, log_frequency=log_frequency, log_loss=True, log_grad=True)
        for report in solver.epochs():
            assert [point.batch for point in report.log_points] == points
            done = 0
            for point in report.log_points:
                first = (report.epoch - 1) * N_BATCHES
                batches = slice(first + done, first + point.batch)
                records, losses = point.records, by_hand.losses[batches]
                assert {record.epoch for record in records} == {report.epoch}
                of_batches = [r.batch for r in records if r.metric == "batch_loss"]
                assert of_batches == list(range(done + 1, point.batch + 1))
                assert of_batches == [r.batch for r in records if r.metric == "batch_grad_norm"]
                assert {r.batch for r in records if not r.metric.startswith("batch_")} == {point.batch}

                assert values(records, "batch_loss") == losses
                assert values(records, "batch_grad_norm") == pytest.approx(by_hand.grad_norms[batches], rel=1e-5)
                (loss,) = values(records, "loss")
                assert loss == pytest.approx(weighted_mean(losses, by_hand.sizes[batches]))
                # The loss is the mean distance, in the same space.
                (distance,) = values(records, "distance")
                assert distance == pytest.approx(loss)
                done = point.batch

    @pytest.mark.parametrize(("log_loss", "log_grad"), [(False, False), (True, False), (False, True)])
    def test_hold_no_rows_of_batches_but_those_asked_for(self, log_loss, log_grad):
        counts = Counter(record.metric for record in train(make_solver(log_loss=log_loss, log_grad=log_grad)))
        assert counts["batch_loss"] == log_loss * 3 * N_BATCHES
        assert counts["batch_grad_norm"] == log_grad * 3 * N_BATCHES
        assert counts["loss"] == 3

    @pytest.mark.parametrize("eval_space", ["default", "original"])
    def test_hold_what_the_evaluator_measures(self, eval_space):
        solver = make_solver(normalizer=GlobalNormalizer, eval_space=eval_space, subsets=("A", "B", "C"))
        for report in solver.epochs():
            (point,) = report.log_points
            measured = [(m.subset, m.space, m.metric, m.value) for m in solver.evaluator.intermediate(solver.model)]
            assert [record[3:] for record in point.records if record.split == "val"] == measured
            in_mm = [value for *what, value in measured if what == ["mean", "original", "distance"]]
            assert in_mm == [point.val_distance_mm] == [report.val_distance_mm]

    @pytest.mark.parametrize("loss_space", ["default", "original"])
    @pytest.mark.parametrize("eval_space", ["default", "original"])
    def test_say_in_which_space_they_are(self, loss_space, eval_space):
        solver = make_solver(
            normalizer=GlobalNormalizer, loss_space=loss_space, eval_space=eval_space, log_loss=True, log_grad=True
        )
        scale = solver.loader.normalizer.learned()["std_mm"][0]
        records = [record for record in train(solver) if record.split == "train"]
        spaces = {record.metric: record.space for record in records}
        assert spaces == {
            **dict.fromkeys(["loss", "batch_loss", "batch_grad_norm"], loss_space),
            "distance": eval_space,
        }
        # The loss is the mean distance too: in one space it has the same value, in the other that times the scale.
        in_one, in_other = ("default", "original") if loss_space == "default" else ("original", "default")
        factor = {in_one: 1, in_other: scale if in_other == "original" else 1 / scale}[eval_space]
        expected = [factor * loss for loss in values(records, "loss")]
        assert values(records, "distance") == pytest.approx(expected, rel=1e-4)

    def test_tell_a_person_the_main_numbers(self):
        (report, *_) = make_solver(log_frequency=2).epochs()
        first, last = report.log_points
        assert first.text.startswith("epoch 1/3, batch 3/5: training loss ")
        (loss,), (distance,) = (values(last.records, metric) for metric in ("loss", "distance"))
        assert last.text == (
            f"epoch 1/3, batch 5/5: training loss {loss:.5g}, distance {distance:.5g}; "
            f"validation distance {last.val_distance_mm:.3f} mm"
        )

    def test_hold_the_predictions_of_the_examples(self):
        indices = torch.tensor([4, 0, 4])
        solver = make_solver(examples=Examples("B", indices), subsets=("A", "B", "C"), log_frequency=2)
        for report in solver.epochs():
            first, last = report.log_points
            assert first.examples.shape == (3, 14, 3)
            assert not torch.equal(first.examples, last.examples)
            assert torch.equal(last.examples, solver.evaluator.predict(solver.model, "B", indices))
        assert all(point.examples is None for report in make_solver().epochs() for point in report.log_points)

    def test_hold_the_loss_before_the_step_where_an_optimizer_asks_for_it_several_times(self):
        asked = []

        class Recorder(Loss):
            def __call__(self, poses, labels, skeleton):
                loss = MetricLoss()(poses, labels, skeleton)
                gradients = torch.autograd.grad(loss, solver.model.parameters(), retain_graph=True)
                asked.append((labels, loss.item(), np.mean([gradient.norm().item() for gradient in gradients])))
                return loss

        optimizer = partial(torch.optim.LBFGS, max_iter=4)
        solver = make_solver(optimizer=optimizer, loss=Recorder(), log_loss=True, log_grad=True)
        records = train(solver)
        by_batch = [list(batch) for _, batch in itertools.groupby(asked, key=lambda asked: id(asked[0]))]
        assert len(by_batch) == 3 * N_BATCHES < len(asked)
        assert values(records, "batch_loss") == [loss for (_, loss, _), *_ in by_batch]
        assert values(records, "batch_grad_norm") == pytest.approx([norm for (*_, norm), *_ in by_batch], rel=1e-5)
        # The loss is the mean distance, measured at the same time.
        assert values(records, "distance") == pytest.approx(values(records, "loss"))

    def test_do_not_make_the_device_wait_for_each_batch(self, monkeypatch):
        """On a GPU each of these calls waits until all requested work is done.

        Adam would read its step counter in this way, but torch keeps it on the CPU; SGD has no counter.
        """
        n_calls, at_batches = Counter(), []
        for name in ("item", "tolist", "numpy", "cpu", "nonzero", "__bool__", "__float__", "__int__", "__index__"):
            original = getattr(torch.Tensor, name)

            def counted(self, *arguments, _name=name, _original=original, **named):
                n_calls[_name] += 1
                return _original(self, *arguments, **named)

            monkeypatch.setattr(torch.Tensor, name, counted)

        class Watcher(Loss):
            def __call__(self, poses, labels, skeleton):
                at_batches.append(n_calls.copy())
                return MetricLoss()(poses, labels, skeleton)

        arguments = {**EVERYTHING, "optimizer": partial(torch.optim.SGD, lr=1e-3, momentum=0.9), "loss": Watcher()}
        solver = make_solver(**{**arguments, "log_frequency": 1})
        for _ in solver.epochs():
            assert len(at_batches) == N_BATCHES
            assert all(calls == at_batches[0] for calls in at_batches)
            assert n_calls["tolist"] > at_batches[-1]["tolist"]  # the log point fetches numbers, so the count works
            at_batches.clear()


class TestSpaces:
    def test_of_the_loss_differ_by_the_scale_of_the_frame(self):
        first = {}
        for space in ("default", "original"):
            solver = make_solver(
                normalizer=GlobalNormalizer, loss_space=space, log_loss=True, log_grad=True, num_epochs=1
            )
            records = train(solver)
            first[space] = values(records, "batch_loss")[0], values(records, "batch_grad_norm")[0]
        scale = solver.loader.normalizer.learned()["std_mm"][0]
        for original, default in zip(first["original"], first["default"], strict=True):
            assert original == pytest.approx(scale * default, rel=1e-4)

    def test_of_the_loss_are_one_without_a_normalizer(self):
        solvers = [trained(normalizer=None, loss_space=space) for space in ("default", "original")]
        assert same_bits(*(solver.model.state_dict() for solver in solvers))


class Script:
    """Replaces an evaluator, and returns the given measurements."""

    eval_space = "original"

    def __init__(self, distances):
        self.distances = iter(distances)

    def intermediate(self, model):
        return [Measurement("mean", "original", "distance", next(self.distances))]


class TestBest:
    @pytest.mark.parametrize(
        ("distances", "best_epoch"),
        [([5, 4, 3], 3), ([3, 4, 5], 1), ([5, 2, 3, 2, 4], 2), ([5, 5, 5], 1), ([1e30, 1e29], 2)],
    )
    def test_epoch_is_the_first_with_the_lowest_validation_distance(self, distances, best_epoch):
        solver = make_solver(evaluator=Script(distances), num_epochs=len(distances))
        weights = [copy.deepcopy(solver.model.state_dict()) for _ in solver.epochs()]
        assert solver.best.epoch == best_epoch
        assert solver.best.val_distance_mm == distances[best_epoch - 1]
        assert same_bits(solver.best.weights, dict(weights[best_epoch - 1]))

    def test_is_chosen_by_the_end_of_the_epoch_and_not_by_a_log_point_within(self):
        solver = make_solver(evaluator=Script([1, 7, 2, 6, 9, 8]), num_epochs=3, log_frequency=2)
        assert [report.val_distance_mm for report in solver.epochs()] == [7, 6, 8]
        assert (solver.best.epoch, solver.best.val_distance_mm) == (2, 6)

    def test_weights_are_those_that_an_evaluation_of_every_epoch_finds_best(self):
        solver = make_solver(subsets=("A", "B", "C"), num_epochs=12, optimizer=partial(torch.optim.Adam, lr=0.01))
        distances, weights = [], []
        for _ in solver.epochs():
            labels, of_subsets = VAL["A", "B", "C"].labels, []
            for poses in VAL["A", "B", "C"].poses.values():
                centres = poses.mean(axis=1, keepdims=True)
                with torch.no_grad():
                    corrected = copy.deepcopy(solver.model).eval()(torch.from_numpy(poses - centres)).numpy() + centres
                of_subsets.append(np.sqrt(((corrected - labels) ** 2).sum(axis=2)).mean())
            distances.append(np.mean(of_subsets))
            weights.append(copy.deepcopy(solver.model.state_dict()))
        best = int(np.argmin(distances))
        assert 0 < best < len(distances) - 1, "the example shows nothing"
        assert solver.best.epoch == best + 1
        assert solver.best.val_distance_mm == pytest.approx(distances[best], rel=1e-5)
        assert same_bits(solver.best.weights, dict(weights[best]))

    def test_is_none_before_the_first_epoch(self):
        assert make_solver().best == Best(0, math.inf, {})


@dataclass(frozen=True)
class Explosion(Loss):
    """A loss that is `value` at one call, counted from 1."""

    at: int
    value: float
    calls: list = field(default_factory=list)

    def __call__(self, poses, labels, skeleton):
        self.calls.append(None)
        loss = MetricLoss()(poses, labels, skeleton)
        return loss * self.value if len(self.calls) == self.at else loss


class TestDivergence:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize(("at", "epoch", "batch"), [(1, 1, 1), (5, 1, 5), (8, 2, 3), (15, 3, 5)])
    @pytest.mark.parametrize("log_frequency", [1, 2, 5])
    def test_of_the_loss_is_told_with_its_epoch_and_batch(self, value, at, epoch, batch, log_frequency):
        solver = make_solver(loss=Explosion(at, value), log_frequency=log_frequency)
        finished = []
        with pytest.raises(DivergedError, match=rf"the loss is {value} in epoch {epoch}, batch {batch}") as caught:
            finished += solver.epochs()
        assert (caught.value.epoch, caught.value.batch) == (epoch, batch)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_of_the_validation_distance_is_told_too(self, value):
        solver = make_solver(evaluator=Script([5, 4, value, 3]), num_epochs=2, log_frequency=2)
        says = rf"the validation error is {value} in epoch 2, batch 3"
        with pytest.raises(DivergedError, match=says):
            train(solver)

    def test_never_becomes_the_best_epoch(self):
        solver = make_solver(loss=Explosion(7, math.nan))
        with pytest.raises(DivergedError):
            train(solver)
        assert solver.best.epoch == 1
        assert all(weight.isfinite().all() for weight in solver.best.weights.values())


OPTIMIZERS = [
    *(getattr(torch.optim, name) for name in ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta")),
    *(getattr(torch.optim, name) for name in ("ASGD", "Adafactor", "RMSprop", "Rprop", "SGD")),
    partial(torch.optim.Adam, amsgrad=True),
    partial(torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True),
    partial(torch.optim.LBFGS, max_iter=3, history_size=4),
]

SCHEDULERS = [
    partial(lr_scheduler.StepLR, step_size=2, gamma=0.5),
    partial(lr_scheduler.MultiStepLR, milestones=[1, 3]),
    partial(lr_scheduler.OneCycleLR, max_lr=0.01, total_steps=4),
    partial(lr_scheduler.CyclicLR, base_lr=1e-4, max_lr=1e-2, step_size_up=2, cycle_momentum=False),
    partial(lr_scheduler.CosineAnnealingLR, T_max=4),
    partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=2),
    partial(lr_scheduler.ExponentialLR, gamma=0.5),
    partial(lr_scheduler.LinearLR, total_iters=3),
    partial(lr_scheduler.PolynomialLR, total_iters=3),
    partial(lr_scheduler.ReduceLROnPlateau, patience=0, threshold=10),
]


def name_of(value):
    function, named = (value.func, value.keywords) if isinstance(value, partial) else (value, {})
    return f"{function.__name__}({', '.join(f'{name}={argument}' for name, argument in named.items())})"


def killed_and_continued(n_before, **arguments):
    """Trains n epochs, packs the state, and continues in a new solver; returns the later reports and the state."""
    killed = make_solver(**arguments)
    for _ in itertools.islice(killed.epochs(), n_before):
        pass
    checkpoint = pack(killed.state_dict())

    # Like another process: other seeds, other weights, and other earlier draws.
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    continued = make_solver(seed=500, **arguments)
    next(continued.epochs())
    continued = make_solver(seed=600, **arguments)
    continued.load_state_dict(unpack(checkpoint))
    return list(continued.epochs()), continued.state_dict()


def assert_continues_with_the_same_bits(n_before, **arguments):
    uninterrupted = make_solver(**arguments)
    expected = list(uninterrupted.epochs())[n_before:]
    reports, state = killed_and_continued(n_before, **arguments)
    assert [report.epoch for report in reports] == [report.epoch for report in expected]
    for report, uninterrupted_report in zip(reports, expected, strict=True):
        for point, other in zip(report.log_points, uninterrupted_report.log_points, strict=True):
            assert point.records == other.records
            assert point.text == other.text
    assert same_bits(state, uninterrupted.state_dict())


class TestKilledAndContinued:
    @pytest.mark.parametrize("n_before", [0, 1, 2, 3, 4])
    def test_is_the_same_as_uninterrupted_wherever_it_was_killed(self, n_before):
        scheduler = partial(lr_scheduler.StepLR, step_size=2, gamma=0.5)
        assert_continues_with_the_same_bits(n_before, **EVERYTHING, scheduler=scheduler, num_epochs=4)

    @pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=name_of)
    def test_is_the_same_as_uninterrupted_with_every_optimizer(self, optimizer):
        assert_continues_with_the_same_bits(2, **EVERYTHING, optimizer=optimizer, num_epochs=4)

    @pytest.mark.parametrize("scheduler", SCHEDULERS, ids=name_of)
    def test_is_the_same_as_uninterrupted_with_every_scheduler(self, scheduler):
        requires_metric = scheduler.func is lr_scheduler.ReduceLROnPlateau
        assert_continues_with_the_same_bits(
            2, **EVERYTHING, scheduler=scheduler, scheduler_requires_metric=requires_metric, num_epochs=4
        )

    @pytest.mark.parametrize("n_before", [0, 1, 3])
    @pytest.mark.parametrize("n_centres", [12, 100])
    def test_is_the_same_as_uninterrupted_with_a_model_in_closed_form(self, n_before, n_centres):
        model_args = {"bandwidth": 1.0, "ridge": 0.1, "n_centres": n_centres}
        arguments = {**EVERYTHING, **KERNEL, "model_args": model_args, "num_epochs": 4, "choose_strength": True}
        assert_continues_with_the_same_bits(n_before, **arguments)

    def test_is_the_same_as_uninterrupted_with_a_model_over_time(self):
        model_args = {"size": 5, "dim": 4, "dropout": 0.3}
        arguments = {**EVERYTHING, "model_class": TemporalLCN, "model_args": model_args, "num_epochs": 4}
        assert_continues_with_the_same_bits(2, **arguments)

    def test_keeps_the_best_epoch_of_before(self):
        optimizer = partial(torch.optim.Adam, lr=0.05)
        arguments = {"optimizer": optimizer, "num_epochs": 4}
        uninterrupted = trained(**arguments)
        assert uninterrupted.best.epoch <= 2, "the example shows nothing"
        _, state = killed_and_continued(2, **arguments)
        assert same_bits(state["best"], vars(uninterrupted.best))

    def test_trains_on_where_there_are_more_epochs_than_before(self):
        state = pack(trained(num_epochs=2, **EVERYTHING).state_dict())
        expected = trained(num_epochs=4, **EVERYTHING).state_dict()
        longer = make_solver(seed=9, num_epochs=4, **EVERYTHING)
        longer.load_state_dict(unpack(state))
        train(longer)
        assert same_bits(longer.state_dict(), expected)

    def test_has_a_state_that_later_epochs_do_not_change_once_it_is_packed(self):
        solver = make_solver(**EVERYTHING)
        reports = solver.epochs()
        next(reports)
        checkpoint = pack(solver.state_dict())
        before = unpack(checkpoint)
        list(reports)
        assert same_bits(unpack(checkpoint), before)


def test_a_model_whose_output_has_another_shape_is_told_so():
    class WrongMLP(CorrectorMLP):
        def forward(self, poses):
            return super().forward(poses)[:, :5]

    with pytest.raises(ValueError, match=r"returned a tensor of shape \(\d+, 5, 3\) for poses of shape \(\d+, 14, 3\)"):
        next(make_solver(model=WrongMLP(NYU, hidden_dims=[4])).epochs())

import numpy as np
import pytest

from cluster.figures.style import FigureError
from cluster.reports.draw import FIGURES, FigureOptions, draw
from cluster.results.names import ChoiceError
from cluster.results.results import NoResultsError, Results
from cluster.storage.frame_errors import FrameErrors
from tests.cluster_tests.experiment_files import PARTS, write_examples, write_experiment, write_frames, write_records
from tests.cluster_tests.results_files import experiment_json, read_json, write_json

LR, DECAY = "optimizer_args.lr", "optimizer_args.weight_decay"
SIZE = "experiment_config.train_set_size"
THRESHOLDS = np.arange(81)
BEFORE, AFTER = np.clip(THRESHOLDS / 60, 0, 1), np.clip(THRESHOLDS / 40, 0, 1)
FIRST, SECOND = f"{0:016x}", f"{1:016x}"


def written(path):
    """A grid of two options with two repetitions; the best two combinations have all files that a trial can write."""
    folder = write_experiment(
        path / "my_sweep",
        [
            ({LR: 0.001, DECAY: 0.0}, [9.0, 9.2]),
            ({LR: 0.001, DECAY: 0.1}, [10.0, 10.2]),
            ({LR: 0.01, DECAY: 0.0}, [11.0, 11.2]),
            ({LR: 0.01, DECAY: 0.1}, [12.0, "ValueError"]),
        ],
    )
    for place, key in enumerate((FIRST, SECOND)):
        for repetition in range(2):
            trial_id = f"{key}/{repetition}"
            write_records(folder, trial_id, [14.0, 9.0 + place], success=("worst", BEFORE, AFTER))
            before = np.linspace(5, 25, 40, dtype=np.float32)
            write_frames(folder, trial_id, before, 0.5 * before + repetition)
            write_examples(folder, trial_id)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A shared folder; no test writes to it."""
    return written(tmp_path_factory.mktemp("drawing"))


@pytest.fixture
def own(tmp_path):
    """A copy of `folder` that a test may change."""
    return written(tmp_path)


@pytest.fixture
def bare(tmp_path):
    """Trials that have only their results."""
    return write_experiment(tmp_path / "bare", [({LR: 1}, [9.0]), ({LR: 2}, [10.0])])


def legend(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def note(figure):
    return figure.get_suptitle().replace("\n", " ")


def lines(figure):
    return figure.axes[0].get_lines()


class TestFromAFolder:
    @pytest.mark.parametrize("name", FIGURES)
    def test_each_figure_is_drawn_in_the_width_that_was_asked_for(self, folder, name):
        figure = draw(name, Results.read(folder), FigureOptions(width_in=5.0))
        assert figure.get_figwidth() == 5.0
        assert any(axes.has_data() for part in (figure, *figure.subfigs) for axes in part.axes)

    def test_learning_curves_are_those_of_the_best_that_logged_some(self, folder):
        figure = draw("curves", Results.read(folder), FigureOptions())
        assert legend(figure) == ["lr 0.001, weight_decay 0 (n = 2)", "lr 0.001, weight_decay 0.1 (n = 2)"]
        assert lines(figure)[0].get_ydata().tolist() == [14.0, 9.0]

    def test_learning_curves_are_those_of_the_combinations_that_were_named(self, folder):
        figure = draw("curves", Results.read(folder), FigureOptions([SECOND]))
        assert legend(figure) == ["lr 0.001, weight_decay 0.1 (n = 2)"]
        assert lines(figure)[0].get_ydata().tolist() == [14.0, 10.0]

    def test_improvement_by_distance_is_the_mean_over_subsets_in_each_bin(self, folder):
        figure = draw("distance", Results.read(folder), FigureOptions())
        improvement = np.linspace(5, 25, 40).reshape(2, 20).mean(axis=0) / 2  # of frames that are 5 to 24 away
        means = figure.axes[0].containers[0].lines[0].get_ydata()
        bins = np.arange(5, 25) // 2
        np.testing.assert_allclose(means, [improvement[bins == number].mean() for number in np.unique(bins)], rtol=1e-6)
        assert [bar.get_height() for bar in figure.axes[1].patches] == [1, *[2] * 9, 1]

    def test_errors_over_time_have_a_panel_for_each_sequence(self, folder):
        figure = draw("time", Results.read(folder), FigureOptions())
        assert [axes.get_title(loc="left") for axes in figure.axes] == [
            "sequence s (subject Ann)",
            "sequence t (subject Bo)",
        ]
        before, after = lines(figure)
        errors = np.linspace(5, 25, 40).reshape(2, 20).mean(axis=0)[:5]
        np.testing.assert_allclose(before.get_ydata(), errors, rtol=1e-6)
        np.testing.assert_allclose(after.get_ydata(), errors / 2, rtol=1e-6)
        assert before.get_xdata().tolist() == list(range(5))
        chosen = draw("time", Results.read(folder), FigureOptions(sequences=["t"]))
        assert [axes.get_title(loc="left") for axes in chosen.axes] == ["sequence t (subject Bo)"]
        with pytest.raises(ChoiceError, match="there is no sequence 'u'"):
            draw("time", Results.read(folder), FigureOptions(sequences=["u"]))

    def test_success_rates_are_those_that_were_logged(self, folder):
        uncorrected, corrected = lines(draw("success", Results.read(folder), FigureOptions()))
        np.testing.assert_allclose(uncorrected.get_ydata(), 100 * BEFORE)
        np.testing.assert_allclose(corrected.get_ydata(), 100 * AFTER)

    def test_success_rates_of_several_combinations_are_told_apart(self, folder):
        names = [
            text.partition(" (")[0]
            for text in legend(draw("success", Results.read(folder), FigureOptions(["best", SECOND])))
        ]
        assert names[1:] == ["lr 0.001, weight_decay 0", "lr 0.001, weight_decay 0.1"]

    @pytest.mark.parametrize("ending", ["npy", "txt"])
    def test_success_rates_of_other_methods_are_taken_from_their_errors(self, folder, tmp_path, ending):
        errors = np.array([10.0, 20.0, 20.5, 70.0])
        path = tmp_path / f"errors.{ending}"
        (np.save if ending == "npy" else np.savetxt)(path, errors)
        figure = draw("success", Results.read(folder), FigureOptions(others=[("Published", path)]))
        assert legend(figure)[-1].startswith("Published")
        rates = lines(figure)[-1].get_ydata()
        assert [rates[mm] for mm in (9, 10, 19, 20, 21, 70, 80)] == [0, 25, 25, 50, 75, 100, 100]

    def test_errors_by_joint_are_means_over_the_finished_repetitions(self, folder):
        before, after = (
            container.lines[0].get_xdata()
            for container in draw("joints", Results.read(folder), FigureOptions()).axes[0].containers
        )
        assert sorted(before) == [10.0 + place for place in range(len(PARTS))]
        assert sorted(after) == [9.0 + place for place in range(len(PARTS))]

    def test_a_heat_map_has_the_first_two_options_or_those_that_were_named(self, folder):
        first = draw("heatmap", Results.read(folder), FigureOptions()).axes[0]
        turned = draw("heatmap", Results.read(folder), FigureOptions(rows="weight_decay", columns="lr")).axes[0]
        assert (first.get_xlabel(), turned.get_xlabel()) == ("weight_decay", "lr")
        np.testing.assert_array_equal(first.images[0].get_array(), turned.images[0].get_array().T)

    def test_an_error_by_option_is_over_the_first_one_or_those_that_were_named(self, folder):
        first, named = (
            draw("option", Results.read(folder), FigureOptions(**chosen))
            for chosen in ({}, {"option": "weight_decay", "lines": "lr"})
        )
        assert (first.axes[0].get_xlabel(), legend(first)) == ("lr", ["corrected", "uncorrected"])
        assert (named.axes[0].get_xlabel(), legend(named)) == ("weight_decay", ["lr 0.001", "lr 0.01", "uncorrected"])

    def test_a_learning_curve_ends_with_the_whole_training_set(self, tmp_path):
        folder = write_experiment(tmp_path / "sizes", [({SIZE: n}, [9.0]) for n in (100, 1000, None)])
        file = experiment_json(folder)
        file["configs"]["experiment_config"]["train_set"] = "a_train"
        folder.write_experiment(file)
        assert "left out: train_set_size None." in note(draw("option", Results.read(folder), FigureOptions()))
        folder.write_experiment({**file, "data": [*file["data"], {"name": "a_train", "size": None, "samples": 5000}]})
        figure = draw("option", Results.read(folder), FigureOptions())
        assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["100", "1000", "5000"]
        assert "left out" not in note(figure)

    def test_a_learning_curve_ends_with_the_whole_training_set_of_an_option_with_one_value(self, tmp_path):
        options = [{"experiment_config.train_set": "a_train", SIZE: n} for n in (100, None)]
        folder = write_experiment(tmp_path / "sizes", [(of, [9.0]) for of in options])
        file = experiment_json(folder)
        file["configs"]["experiment_config"]["train_set"] = "replaced"
        sizes = [{"name": name, "size": None, "samples": n} for name, n in (("a_train", 5000), ("replaced", 7000))]
        folder.write_experiment({**file, "data": [*file["data"], *sizes]})
        figure = draw("option", Results.read(folder), FigureOptions())
        assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["100", "5000"]

    def test_frames_are_those_of_all_subsets_of_one_repetition(self, own):
        own.trial(f"{FIRST}/0").write("frames.parquet", b"broken")
        figure = draw("histogram", Results.read(own), FigureOptions())
        assert legend(figure) == ["before: median 15.0 mm, mean 15.0 mm", "after: median 8.5 mm, mean 8.5 mm"]
        assert note(figure).startswith("40 poses of repetition 1")

    @pytest.mark.parametrize(
        ("name", "begins"),
        [
            ("histogram", "40 poses of repetition 0; "),
            ("improvement", "40 poses of repetition 0: "),
            ("hands", "Examples of repetition 0: "),
        ],
    )
    def test_what_is_of_one_repetition_names_it(self, folder, name, begins):
        assert note(draw(name, Results.read(folder), FigureOptions())).startswith(begins)

    def test_hands_are_drawn_at_the_first_a_middle_and_the_last_log_point_and_say_so(self, folder):
        figure = draw("hands", Results.read(folder), FigureOptions())
        titles = [part.get_suptitle() for part in figure.subfigs]
        assert titles == ["epoch 1, batch 5", "epoch 2, batch 5", "epoch 4, batch 5"]
        assert note(figure).endswith("3 of 4 log points.")

    def test_hands_are_drawn_at_all_log_points_where_so_many_are_asked_for(self, folder):
        figure = draw("hands", Results.read(folder), FigureOptions(n_examples=1, n_log_points=100))
        assert [part.get_suptitle() for part in figure.subfigs] == [f"epoch {epoch}, batch 5" for epoch in (1, 2, 3, 4)]
        assert note(figure).endswith("The first 1 of 2 examples.")


class TestRepetitionsThatFailed:
    """The second repetition of the best combination failed."""

    @pytest.fixture
    def holes(self, tmp_path):
        folder = write_experiment(
            tmp_path / "holes",
            [
                ({LR: 0.1, DECAY: 0.0}, [9.0, "OutOfMemoryError"]),
                ({LR: 0.1, DECAY: 0.1}, [10.0, 10.2]),
                ({LR: 0.2, DECAY: 0.1}, ["ValueError", "ValueError"]),
            ],
        )
        write_records(folder, f"{FIRST}/0", [14.0, 9.0], success=("worst", BEFORE, AFTER))
        return folder

    @pytest.mark.parametrize("name", ["curves", "success"])
    def test_are_counted_in_the_legend(self, holes, name):
        assert "(n = 1 of 2)" in legend(draw(name, Results.read(holes), FigureOptions([FIRST])))[-1]

    def test_are_counted_in_errors_by_joint(self, holes):
        assert note(draw("joints", Results.read(holes), FigureOptions([FIRST]))) == "n = 1 of 2 repetitions."

    def test_leave_a_combination_without_a_curve_that_is_named(self, holes):
        assert "lr 0.2, weight_decay 0.1 (n = 0 of 2): no curve." in note(
            draw("curves", Results.read(holes), FigureOptions([FIRST, f"{2:016x}"]))
        )

    @pytest.mark.parametrize(("name", "mark"), [("heatmap", "*: fewer"), ("parallel", "Dashed: fewer than n = 2")])
    def test_mark_their_combination_that_comes_after_complete_ones(self, holes, name, mark):
        said = note(draw(name, Results.read(holes), FigureOptions()))
        assert mark in said
        assert "Combinations with fewer repetitions come after complete ones." in said


class TestCombinationsWithoutATestSet:
    @pytest.fixture
    def some(self, tmp_path):
        """The first combination has no test set, the second has one."""
        sweep = [({"experiment_config.test_set": name}, [9.0]) for name in (None, "a_test")]
        folder = write_experiment(tmp_path / "some", sweep)
        for key, split in ((FIRST, "val"), (SECOND, "test")):
            content = read_json(folder.trial(f"{key}/0"))
            content["metrics"] = {name: content["metrics"][name] for name in {"val", split}}
            write_json(folder.trial(f"{key}/0"), content)
            write_records(folder, f"{key}/0", [9.0], split=split, success=("worst", BEFORE, AFTER))
        return Results.read(folder)

    @pytest.mark.parametrize("key", [FIRST, SECOND])
    @pytest.mark.parametrize("name", ["joints", "success"])
    def test_show_their_errors_in_validation_if_they_are_chosen(self, some, name, key):
        assert draw(name, some, FigureOptions([key])).axes[0].has_data()

    def test_are_left_out_of_success_rates_in_testing(self, some):
        figure = draw("success", some, FigureOptions())
        assert len(lines(figure)) == 2
        assert "logged success rates on a test set." in note(figure)


class TestWhatCannotBeDrawn:
    @pytest.mark.parametrize(
        ("name", "what"),
        [
            ("curves", "nothing was logged"),
            ("success", "logged its success rates"),
            ("joints", "logged the errors of its joints"),
            ("heatmap", "two options, --rows and --columns; bare has optimizer_args.lr"),
            ("histogram", "see keep_weights"),
            ("improvement", "see keep_weights"),
            ("distance", "see keep_weights"),
            ("time", "see keep_weights"),
            ("hands", "set val_example_indices"),
        ],
    )
    def test_says_what_is_missing(self, bare, name, what):
        with pytest.raises(FigureError, match=what):
            draw(name, Results.read(bare), FigureOptions())

    @pytest.mark.parametrize(
        ("name", "what"),
        [
            ("distance", r"0{16} of my_sweep have no distances from training frames: .* \(NAME_frames\.parquet\)"),
            ("time", r"0{16} of my_sweep have no sequences: the frame table of the dataset \(NAME_frames\.parquet\)"),
        ],
    )
    def test_says_that_frames_are_not_known(self, own, name, what):
        errors = np.linspace(5, 25, 40, dtype=np.float32)
        own.trial(f"{FIRST}/0").write("frames.parquet", FrameErrors({"A": (errors, errors)}).to_parquet())
        with pytest.raises(FigureError, match=what):
            draw(name, Results.read(own), FigureOptions())

    def test_rates_of_another_measure_are_missed_too(self, folder):
        with pytest.raises(FigureError, match="logged its success rates"):
            draw("success", Results.read(folder), FigureOptions(measure="joint"))

    @pytest.mark.parametrize("name", ["joints", "histogram", "improvement", "distance", "time", "hands"])
    def test_a_figure_of_one_combination_refuses_two(self, folder, name):
        with pytest.raises(FigureError, match="one combination, not 2"):
            draw(name, Results.read(folder), FigureOptions([FIRST, SECOND]))

    @pytest.mark.parametrize("name", ["curves", "success", "joints", "histogram", "hands"])
    def test_a_combination_that_is_not_there_is_named(self, folder, name):
        with pytest.raises(ChoiceError, match="no combination 'abc'"):
            draw(name, Results.read(folder), FigureOptions(["abc"]))

    def test_an_option_that_is_not_there_is_named(self, folder):
        with pytest.raises(ChoiceError, match="no option 'dropout'"):
            draw("heatmap", Results.read(folder), FigureOptions(rows="lr", columns="dropout"))

    def test_one_option_alone_makes_no_heat_map(self, folder):
        with pytest.raises(FigureError, match=f"--rows and --columns; my_sweep has {LR}, {DECAY}"):
            draw("heatmap", Results.read(folder), FigureOptions(rows="lr"))

    @pytest.mark.parametrize("width", [0.0, -1.0, 1e6, float("nan"), float("inf")])
    def test_a_width_that_is_none_is_refused(self, folder, width):
        with pytest.raises(FigureError, match="2 to 40 inches wide"):
            draw("curves", Results.read(folder), FigureOptions(width_in=width))

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("errors.txt", b"no number"),
            ("errors.npy", b"broken"),
            ("pickled.npy", np.array([{}])),
            ("texts.npy", np.array(["a", "b"])),
        ],
    )
    def test_a_file_that_holds_no_errors_is_named(self, folder, tmp_path, name, content):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.save(path, content)
        with pytest.raises(FigureError, match=f"{name} is not a file of errors"):
            draw("success", Results.read(folder), FigureOptions(others=[("theirs", path)]))

    @pytest.mark.parametrize("labels", [["corrected"], ["uncorrected"], ["A", "A"]])
    def test_a_label_that_another_curve_has_replaces_none(self, folder, tmp_path, labels):
        np.save(tmp_path / "theirs.npy", np.ones(4))
        others = [(label, tmp_path / "theirs.npy") for label in labels]
        with pytest.raises(FigureError, match=f"two success curves have the label '{labels[0]}'.*--other LABEL=FILE"):
            draw("success", Results.read(folder), FigureOptions(others=others))

    @pytest.mark.parametrize("name", ["missing.npy", "missing.txt"])
    def test_a_file_that_is_missing_is_named(self, folder, tmp_path, name):
        with pytest.raises(FigureError, match=f"^there is no file .*{name}$"):
            draw("success", Results.read(folder), FigureOptions(others=[("theirs", tmp_path / name)]))

    def test_an_axis_takes_an_option_with_numbers_that_has_no_lines(self, folder, tmp_path):
        with pytest.raises(FigureError, match=f"^the axis and the lines name the same option, {LR}"):
            draw("option", Results.read(folder), FigureOptions(option="lr", lines=LR))
        texts = write_experiment(tmp_path / "texts", [({"model": "a"}, [9.0]), ({"model": "b"}, [10.0])])
        with pytest.raises(FigureError, match=r"an option with at least two numbers; texts has model$"):
            draw("option", Results.read(texts), FigureOptions())

    def test_one_option_twice_makes_no_heat_map(self, folder):
        with pytest.raises(FigureError, match=f"^rows and columns name the same option, {LR}"):
            draw("heatmap", Results.read(folder), FigureOptions(rows="lr", columns=LR))

    def test_broken_examples_are_named(self, own):
        own.trial(f"{FIRST}/0").write("examples.npz", b"broken")
        with pytest.raises(FigureError, match=f"{FIRST}/0: "):
            draw("hands", Results.read(own), FigureOptions())

    @pytest.mark.parametrize("name", ["joints", "hands"])
    def test_a_trial_that_does_not_tell_its_skeleton_is_named(self, own, name):
        trial = own.trial(f"{FIRST}/0")
        trial.write_trial(trial.read_trial()._replace(description={}))
        with pytest.raises(FigureError, match=f"trial.json of {FIRST}/0 does not say which skeleton it uses"):
            draw(name, Results.read(own), FigureOptions())

    def test_an_experiment_that_is_not_there(self, own):
        own.storage.remove("experiment.json")
        with pytest.raises(NoResultsError, match="holds no experiment"):
            draw("curves", Results.read(own), FigureOptions())


def of_100_frames(path, measure):
    """An experiment on a set of 100 frames of hands with 21 joints."""
    folder = write_experiment(path / "known", [({}, [9.0])], with_test=False)
    write_records(folder, f"{FIRST}/0", [9.0], split="val", success=(measure, BEFORE, AFTER))
    return folder


class TestTheNumberOfErrorsOfAnotherMethod:
    @pytest.mark.parametrize(("measure", "shape"), [("worst", (100,)), ("joint", (2100,)), ("joint", (100, 21))])
    def test_is_that_of_the_frames_or_of_all_their_joints(self, tmp_path, measure, shape):
        np.save(tmp_path / "theirs.npy", np.full(shape, 9.5))
        table = Results.read(of_100_frames(tmp_path, measure))
        drawing = FigureOptions(others=[("theirs", tmp_path / "theirs.npy")], measure=measure)
        assert lines(draw("success", table, drawing))[-1].get_ydata().tolist() == [0.0] * 10 + [100.0] * 71

    @pytest.mark.parametrize(
        ("measure", "n", "needed"),
        [
            ("worst", 10, "an error for each frame of the same set"),
            ("mean", 2100, "an error for each frame of the same set"),
            ("joint", 100, "an error for each of the 21 joints of each frame of the same set"),
        ],
    )
    def test_is_an_error_where_it_is_another(self, tmp_path, measure, n, needed):
        np.savetxt(tmp_path / "theirs.txt", np.ones(n))
        table = Results.read(of_100_frames(tmp_path, measure))
        drawing = FigureOptions(others=[("theirs", tmp_path / "theirs.txt")], measure=measure)
        with pytest.raises(FigureError) as error:
            draw("success", table, drawing)
        assert str(error.value) == (
            f"{tmp_path / 'theirs.txt'} has {n:,} errors, a_val has 100 frames; it needs {needed}"
        )

    def test_fits_one_of_the_sets_where_several_are_drawn(self, tmp_path):
        sweep = [({"experiment_config.val_set": name}, [mm]) for name, mm in (("easy", 3.0), ("hard", 9.0))]
        folder = write_experiment(tmp_path / "two", sweep, with_test=False)
        sizes = [{"name": "easy", "size": None, "samples": 100}, {"name": "hard", "size": None, "samples": 50}]
        folder.write_experiment({**experiment_json(folder), "data": sizes})
        for key in (FIRST, SECOND):
            write_records(folder, f"{key}/0", [9.0], split="val", success=("worst", BEFORE, AFTER))
        table = Results.read(folder)
        drawing = FigureOptions(others=[("theirs", tmp_path / "theirs.npy")])
        for n, name in ((100, "easy"), (50, "hard")):
            np.save(tmp_path / "theirs.npy", np.ones(n))
            figure = draw("success", table, drawing)
            assert legend(figure)[-1].startswith(f"theirs (on {name}), ")
            assert note(figure).endswith("A dotted curve is comparable only with curves on the same data.")
        np.save(tmp_path / "theirs.npy", np.ones(150))
        with pytest.raises(FigureError, match="has 150 errors, easy has 100 frames, hard has 50 frames; it needs"):
            draw("success", table, drawing)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    test_set = "experiment_config.test_set"
    combinations = [
        ({LR: lr, DECAY: decay, test_set: name}, [mm + lr])
        for name, mm in (("easy", 3.0), ("hard", 9.0))
        for lr in (1, 2)
        for decay in (0.0, 0.1)
    ]
    folder = write_experiment(tmp_path_factory.mktemp("two") / "two", combinations)
    for place in range(len(combinations)):
        shifted = BEFORE if place < 4 else np.clip(THRESHOLDS / 80, 0, 1)
        write_records(folder, f"{place:016x}/0", [14.0, 9.0], success=("worst", shifted, AFTER))
    return folder


class TestDifferentData:
    """An experiment whose trials were measured on two test sets."""

    @pytest.mark.parametrize("figure", ["curves", "success"])
    def test_has_the_best_on_each_in_a_figure_of_curves(self, two, figure):
        names = [
            text.partition(" (")[0].partition(",")[0]
            for text in legend(draw(figure, Results.read(two), FigureOptions()))
        ]
        assert list(dict.fromkeys(names)) == ["easy", "hard"]

    def test_has_its_learning_curves_named_by_the_set_that_they_are_of(self, tmp_path):
        val_set, test_set = (f"experiment_config.{split}_set" for split in ("val", "test"))
        sweep = [({val_set: f"{name}_val", test_set: f"{name}_test"}, [9.0]) for name in ("easy", "hard")]
        folder = write_experiment(tmp_path / "named", sweep)
        for key in (FIRST, SECOND):
            write_records(folder, f"{key}/0", [14.0, 9.0], success=("worst", BEFORE, AFTER))
        assert legend(draw("curves", Results.read(folder), FigureOptions())) == ["easy_val (n = 1)", "hard_val (n = 1)"]
        names = {text.partition(",")[0] for text in legend(draw("success", Results.read(folder), FigureOptions()))}
        assert names == {"uncorrected", "easy_test", "hard_test"}

    def test_has_an_uncorrected_curve_for_each(self, two):
        assert [text.partition(", AUC")[0] for text in legend(draw("success", Results.read(two), FigureOptions()))] == [
            *("easy, uncorrected", "easy"),
            *("hard, uncorrected", "hard"),
        ]

    @pytest.mark.parametrize(
        "figure", ["joints", "option", "heatmap", "parallel", "histogram", "improvement", "distance", "time", "hands"]
    )
    def test_is_not_mixed_in_any_other_figure(self, two, figure):
        with pytest.raises(FigureError, match=r"measured on 2 sets of data.*0{16} \(easy\), 0{15}4 \(hard\)"):
            draw(figure, Results.read(two), FigureOptions())

    def test_is_drawn_with_ten_other_methods_whose_data_it_does_not_guess(self, two, tmp_path):
        others = [(f"M{i}", tmp_path / f"{i}.npy") for i in range(10)]
        for i, (_, path) in enumerate(others):
            np.save(path, np.full(3, 8.0 * i))
        figure = draw("success", Results.read(two), FigureOptions(others=others))
        assert [text.partition(", AUC")[0] for text in legend(figure)[4:]] == [label for label, _ in others]
        assert note(figure).endswith("with curves on the same data, which its number of frames does not determine.")
        with pytest.raises(FigureError, match="of 11 other methods cannot be distinguished; choose at most 10"):
            draw("success", Results.read(two), FigureOptions(others=[*others, ("one more", others[0][1])]))

    def test_is_chosen_by_a_combination(self, two):
        figure = draw("heatmap", Results.read(two), FigureOptions(combinations=[f"{4:016x}"]))
        assert {text.get_text() for text in figure.axes[0].texts} == {"11.00", "12.00"}
        assert draw("joints", Results.read(two), FigureOptions(combinations=[f"{4:016x}"]))

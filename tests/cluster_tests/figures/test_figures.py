import io
import itertools
import subprocess
import sys
from functools import cache
from unittest.mock import patch
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from mpl_toolkits.mplot3d import proj3d
from PIL import Image

from cluster.figures.curves import (
    THRESHOLDS_MM,
    area_under_rates,
    learning_curves,
    success_curves,
    success_rates,
)
from cluster.figures.errors import ROUNDING_MM, error_histogram, errors_by_joint, improvement_by_error
from cluster.figures.frames import Recording, error_over_time, improvement_by_distance
from cluster.figures.hands import skeletons
from cluster.figures.options import error_by_option, heat_map, parallel_coordinates
from cluster.figures.style import COLOURS, FORMATS, FigureError, fitting, fitting_all, paper_style, save
from cluster.figures.style import text_width as width_of
from cluster.results.learning_curves import Curve
from data_pipeline.skeleton import HANDS17, ICVL, NYU
from posenet import evaluator, metrics
from tests.support import ROOT

HOSTILE = "optimizer_args.lr=$\\alpha_{ <b>&\"'% " * 4
LR, DECAY, BATCH = "optimizer_args.lr", "optimizer_args.weight_decay", "batch$_{"


def curve(n_points, *, shift=0.0):
    epochs = np.arange(1.0, n_points + 1)
    return Curve(epochs, loss=epochs, train_mm=8 + 4 / epochs + shift, val_mm=10 + 5 / epochs + shift)


def frames(n=3000):
    rng = np.random.default_rng(0)
    before = rng.gamma(6, 2.5, size=n)
    return before, np.abs(0.6 * before + 4 + rng.normal(0, 2, size=n))


def parts(skeleton, value):
    """Numbers of two repetitions for every joint and finger."""
    names = [*skeleton.joint_names, *dict(skeleton.fingers)]
    return {name: [value + place, value + place + 1] for place, name in enumerate(names)}


def summary(results, **constant):
    """Rows of a summary: a distance in validation and one in test by lr, weight decay and batch size, best first."""
    rows = [
        {LR: lr, DECAY: decay, BATCH: batch, "n": 3, "val_distance_mm_mean": val, "test_distance_mm_mean": test}
        for (lr, decay, batch), (val, test) in results.items()
    ]
    return [row | constant for row in sorted(rows, key=lambda row: row["val_distance_mm_mean"] or np.inf)]


def grid():
    options = itertools.product([1e-5, 1e-4, 1e-3, 1e-2], [0.0, 0.1, HOSTILE], [None, 1, 2])
    return summary({option: (10 + i % 7, 11 + i % 5) for i, option in enumerate(options)})


def by_option(results, *, before=20.0, **constant):
    """Rows of a summary with deviations and the distance before, which may depend on the place of the row."""
    rows = summary(results, val_distance_mm_std=0.5, test_distance_mm_std=0.25)
    starts = [before] * len(rows) if isinstance(before, float) else before
    of_splits = [{"val_distance_before_mm": start - 1, "test_distance_before_mm": start} for start in starts]
    return [row | of_row | constant for row, of_row in zip(rows, of_splits, strict=True)]


def many_sizes():
    """Seven lines over many numbers, some of them close together."""
    sizes = [0.0, 1e-6, 1.1e-6, *np.geomspace(1e-5, 1, 9).tolist()]
    results = {(lr, f"{i}{HOSTILE}", 1): (10 + i, 10 + i) for i in range(7) for lr in sizes}
    return by_option(results, before=[20.0 + i for i in range(len(results))])


def hands(n=3):
    labels = np.random.default_rng(1).normal(scale=40, size=(n, 14, 3))
    return labels + 9, {"epoch 1": labels + 6, HOSTILE: labels + 1}, labels


def recording(n, name=HOSTILE):
    before, after = frames()
    return Recording(name, np.arange(n), before[:n], after[:n])


def followed(n_points):
    """Two examples at many log points."""
    labels = np.random.default_rng(1).normal(scale=40, size=(2, 14, 3))
    return labels + 9, {f"epoch {i}": labels + 9 / i for i in range(1, n_points + 1)}, labels


ALL = {
    "learning curves": lambda: learning_curves({HOSTILE + str(i): [curve(9), curve(6, shift=i)] for i in range(8)}),
    "success curves": lambda: success_curves(
        {HOSTILE + "0": success_rates(frames()[0])}, {HOSTILE + "0": [success_rates(frames()[1])] * 2}, of="worst"
    ),
    "success curves of all that there may be": lambda: success_curves(
        {HOSTILE + str(i): success_rates(frames()[0] * 1.1**i) for i in range(7)},
        {HOSTILE + str(i): [success_rates(frames()[1] * 1.1**i)] * (1 + i % 2) for i in range(7)},
        others=[(f"{i}{HOSTILE}", success_rates(frames()[1] * 1.1**i)) for i in range(10)],
        of="worst",
        n_planned=2,
    ),
    "errors by joint": lambda: errors_by_joint(HANDS17, parts(HANDS17, 20), parts(HANDS17, 10)),
    "error by option": lambda: error_by_option(by_option({(lr, 1, 1): (9, 9) for lr in (1, 3, 4)}), LR, split="test"),
    "error by option of all lines": lambda: error_by_option(many_sizes(), LR, lines=DECAY, split="val"),
    "heat map": lambda: heat_map(grid(), DECAY, LR, split="test"),
    "heat map of one row": lambda: heat_map(grid()[:1], DECAY, LR, split="val"),
    "parallel coordinates": lambda: parallel_coordinates(grid(), [LR, DECAY, BATCH], split="val", n_planned=4),
    "histogram": lambda: error_histogram(*frames()),
    "improvement": lambda: improvement_by_error(*frames()),
    "improvement of few": lambda: improvement_by_error(*frames(n=50)),
    "improvement by distance": lambda: improvement_by_distance(*frames(), np.arange(len(frames()[0])) % 900.0),
    "errors over time": lambda: error_over_time([recording(n) for n in (2000, 20, 1, 50, 50, 50, 50)]),
    "skeletons": lambda: skeletons(*hands(), NYU),
    "skeletons of many": lambda: skeletons(*hands(9), NYU),
    "skeletons beside each other": lambda: skeletons(*followed(11), NYU, n_examples=1, n_log_points=10),
}
MORE_OF_A_KIND = [name for name in ALL if " of " in name or " beside " in name]
every_figure = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in MORE_OF_A_KIND)) for name in ALL]
)


@cache
def file(name, format):
    """A figure in a format, made once for all tests."""
    return save(ALL[name](), format)


def texts_of(figure):
    """The drawn texts and their positions, in pixels."""
    drawn, draw = {}, Text.draw

    def noted(text, renderer):
        drawn[id(text)] = text
        draw(text, renderer)

    canvas = FigureCanvasAgg(figure)
    with paper_style(), patch.object(Text, "draw", noted):
        canvas.draw()
    shown = [text for text in drawn.values() if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in shown]


def words(figure):
    return [text for text, _ in texts_of(figure)]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def note(figure):
    return figure.get_suptitle().replace("\n", " ")


class TestEveryFigure:
    @every_figure
    @pytest.mark.slow
    def test_keeps_all_texts_within_the_picture_and_off_each_other_at_the_width_of_a_column(self, name):
        figure = ALL[name]()
        assert figure.get_figwidth() == 3.5
        right, top = figure.bbox.x1, figure.bbox.y1
        for text, box in texts_of(figure):
            assert box.x0 >= -0.5, text
            assert box.y0 >= -0.5, text
            assert box.x1 <= right + 0.5, text
            assert box.y1 <= top + 0.5, text

        # The box of a line includes room for tall letters and descenders.
        inner = [(text, box.expanded(0.98, 0.7)) for text, box in texts_of(figure)]
        for (text, box), (other, other_box) in itertools.combinations(inner, 2):
            assert not box.overlaps(other_box), (text, other)
        assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 5

    @pytest.mark.slow
    @every_figure
    def test_is_the_same_bytes_when_drawn_again(self, name):
        for format in FORMATS if name == "learning curves" else ["svg"]:
            assert save(ALL[name](), format) == file(name, format)

    @every_figure
    @pytest.mark.slow
    def test_is_a_png_of_three_hundred_dots_an_inch(self, name):
        with Image.open(io.BytesIO(file(name, "png"))) as image:
            image.load()
            assert image.width == 1050
            assert round(image.info["dpi"][0]) == 300

    def test_has_its_truetype_fonts_in_the_pdf(self):
        pypdf = pytest.importorskip("pypdf", reason="pypdf, which reads the PDF back, is not installed")
        (page,) = pypdf.PdfReader(io.BytesIO(file("learning curves", "pdf"))).pages
        fonts = [font.get_object() for font in page["/Resources"]["/Font"].values()]
        assert fonts
        for font in fonts:
            (descendant,) = font["/DescendantFonts"]
            assert descendant.get_object()["/Subtype"] == "/CIDFontType2"
            assert "/FontFile2" in descendant.get_object()["/FontDescriptor"]

    @every_figure
    def test_is_well_formed_svg_with_its_texts_in_comments(self, name):
        builder = ElementTree.TreeBuilder(insert_comments=True)
        root = ElementTree.fromstring(file(name, "svg"), ElementTree.XMLParser(target=builder))
        comments = {element.text.strip() for element in root.iter() if element.tag is ElementTree.Comment}
        assert len(comments) >= 3
        assert not list(root.iter("{http://www.w3.org/2000/svg}text"))  # outlines, so no font is needed

    def test_leaves_the_settings_of_matplotlib_alone(self):
        before = dict(mpl.rcParams)
        for format in FORMATS:
            save(error_histogram(*frames()), format)
        assert dict(mpl.rcParams) == before

    def test_looks_the_same_whatever_the_settings_are(self):
        expected = save(error_histogram(*frames()), "svg")
        with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "text.usetex": True, "svg.fonttype": "none"}):
            assert save(error_histogram(*frames()), "svg") == expected

    def test_costs_no_import_of_matplotlib_before_one_is_drawn(self):
        modules = [f"cluster.figures.{path.stem}" for path in (ROOT / "cluster/figures").glob("[a-z]*.py")]
        assert len(modules) == 6
        program = f"import sys, {', '.join(modules)}; print(*{{'matplotlib', 'torch', 'ray'}} & sys.modules.keys())"
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == ""


# Machado, Oliveira & Fernandes, A Physiologically-based Model for Simulation of Color Vision Deficiency (2009).
SEEN = {
    "all": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


class TestColours:
    @pytest.mark.parametrize("eye", SEEN)
    def test_are_told_apart_by_colour_blind_people(self, eye):
        colours = np.array([to_rgb(colour) for colour in COLOURS])
        linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
        seen = np.clip(linear @ np.transpose(SEEN[eye]), 0, 1)
        to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
        xyz = seen @ to_xyz.T / [0.9505, 1, 1.089]
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
        differences = [np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)]
        assert min(differences) > 15  # a just noticeable difference is 2.3


class TestTextsThatFit:
    @given(text=st.text(max_size=80), width=st.floats(20, 200))
    def test_are_no_wider_than_there_is_room(self, text, width):
        with paper_style():
            fitted = fitting(text, width, 7)
            assert width_of(fitted, 7) <= width
            assert "\n" not in fitted

    def test_lose_their_middle(self):
        with paper_style():
            fitted = fitting("begin " + "x" * 200 + " end", 100, 7)
        assert fitted.startswith("begin x")
        assert fitted.endswith("x end")
        assert fitted.count("…") == 1

    def test_stay_as_they_are_where_they_fit(self):
        with paper_style():
            assert fitting("lr $1_e$", 100, 7) == "lr $1_e$"

    def test_are_numbered_where_they_would_look_alike(self):
        texts = ["a" * 60 + middle + "b" * 60 for middle in "xyz"]
        with paper_style():
            assert [text[:2] for text in fitting_all(texts, 100, 7)] == ["1:", "2:", "3:"]

    def test_have_a_sign_for_characters_that_the_font_does_not_have(self):
        with paper_style():
            assert fitting("手\x00 a\n b", 100, 7) == "�� a b"


class TestLearningCurves:
    def test_are_means_over_repetitions_with_a_band_from_the_least_to_the_largest(self):
        curves = [curve(5), curve(5, shift=2), curve(5, shift=7)]
        figure = learning_curves({"a": curves})
        (axes,) = figure.axes
        val, train = axes.lines
        np.testing.assert_allclose(val.get_xydata(), np.transpose([curves[0].epochs, curves[0].val_mm + 3]))
        np.testing.assert_allclose(train.get_ydata(), curves[0].train_mm + 3)
        assert (val.get_linestyle(), train.get_linestyle()) == ("-", "--")
        (band,) = axes.findobj(PolyCollection)
        box = band.get_datalim(axes.transData)
        assert (box.y0, box.y1) == (curves[0].val_mm.min(), curves[0].val_mm.max() + 7)
        assert legend(figure) == ["a (n = 3)"]
        assert "Validation solid, training dashed. Mean and min–max band" in note(figure)

    def test_end_with_the_shortest_repetition_and_say_so(self):
        figure = learning_curves({"a": [curve(5), curve(3)], "b": [curve(5)]})
        assert list(figure.axes[0].lines[0].get_xdata()) == [1, 2, 3]
        assert list(figure.axes[0].lines[2].get_xdata()) == [1, 2, 3, 4, 5]
        assert "a: up to epoch 3, where its shortest repetition ends." in note(figure)
        assert "b:" not in note(figure)

    def test_have_a_gap_where_a_repetition_has_no_number_and_say_so(self):
        broken = curve(4)
        broken.val_mm[2] = np.nan
        figure = learning_curves({"a": [curve(4), broken]})
        np.testing.assert_array_equal(np.isnan(figure.axes[0].lines[0].get_ydata()), [False, False, True, False])
        assert "a: gaps where a repetition has no value." in note(figure)

    def test_count_repetitions_that_logged_nothing(self):
        figure = learning_curves({"a": [curve(4), curve(0)]})
        assert legend(figure) == ["a (n = 1 of 2)"]
        assert "The other repetitions did not finish or logged nothing." in note(figure)

    def test_count_repetitions_that_were_planned_and_did_not_finish(self):
        figure = learning_curves({"a": [curve(4)] * 2, "b": [curve(4)] * 3}, n_planned=3)
        assert legend(figure) == ["a (n = 2 of 3)", "b (n = 3)"]
        assert "The other repetitions did not finish or logged nothing." in note(figure)
        assert "did not finish" not in note(learning_curves({"b": [curve(4)] * 3}, n_planned=3))

    def test_name_a_combination_that_has_none(self):
        figure = learning_curves({"a": [curve(4)], "b": []}, n_planned=1)
        assert legend(figure) == ["a (n = 1)"]
        assert "b (n = 0 of 1): no curve." in note(figure)

    def test_do_not_speak_of_training_that_was_not_logged_in_mm(self):
        figure = learning_curves({"a": [curve(4)._replace(train_mm=np.full(4, np.nan))]})
        assert "training" not in note(figure)

    @pytest.mark.parametrize("groups", [{}, {"a": []}, {"a": [curve(0)]}, {str(i): [curve(2)] for i in range(9)}])
    def test_of_nothing_and_of_too_many_are_an_error_that_says_so(self, groups):
        with pytest.raises(FigureError, match=r"no learning curves|choose at most 8"):
            learning_curves(groups)


class TestSuccessCurves:
    def test_count_errors_that_are_at_most_the_threshold(self):
        errors = torch.tensor([0.0, 1.0, 1.5, 20.0, 80.0, 81.0])
        expected = [float(metrics.success(errors, t).mean()) for t in evaluator.CURVE_THRESHOLDS_MM]
        np.testing.assert_allclose(success_rates(errors.numpy()), expected, rtol=1e-6)

    def test_are_of_the_thresholds_that_are_recorded(self):
        assert tuple(THRESHOLDS_MM) == evaluator.CURVE_THRESHOLDS_MM

    @given(errors=st.lists(st.floats(0, 200), min_size=1, max_size=50))
    def test_have_the_area_of_the_metric_within_half_a_millimetre_of_eighty(self, errors):
        exact = metrics.area_under_curve(torch.tensor(errors, dtype=torch.float64), 0, 80).mean()
        assert abs(area_under_rates(success_rates(np.array(errors))) - float(exact)) <= 1 / 160 + 1e-9

    def test_have_the_area_of_the_metric_to_the_digits_that_are_shown_for_a_real_number_of_frames(self):
        errors = frames(5000)[0]
        exact = metrics.area_under_curve(torch.tensor(errors), 0, 80).mean()
        assert area_under_rates(success_rates(errors)) == pytest.approx(float(exact), abs=5e-4)

    def test_are_drawn_in_percent_with_areas_in_the_legend(self):
        rates = success_rates(np.array([10.5, 20.5, 30.5, 100.0]))
        figure = success_curves(
            {"mine": rates}, {"mine": [np.ones(81), np.zeros(81)]}, others=[("other", np.ones(81))], of="mean"
        )
        before, mine, other = figure.axes[0].lines
        np.testing.assert_allclose(before.get_ydata(), 100 * rates)
        np.testing.assert_allclose(mine.get_ydata(), 50)
        np.testing.assert_allclose(other.get_xdata(), np.arange(81))
        area = (69 + 59 + 49) / 4 / 80  # (79.5 + 69.5 …) as trapezia of a step between whole millimetres
        assert area_under_rates(rates) == pytest.approx(area + 3 * 0.5 / 4 / 80)
        assert legend(figure) == [
            f"uncorrected, AUC {area_under_rates(rates):.3f}",
            "mine (n = 2), AUC 0.500",
            "other, AUC 1.000",
        ]
        assert "Frames, mean distance ≤ t (%)" in words(figure)

    @pytest.mark.parametrize(
        ("uncorrected", "results", "text"),
        [
            (np.ones(81), {str(i): [np.ones(81)] for i in range(8)}, "of 8 results .* choose at most 7"),
            (np.ones(80), {}, "'uncorrected' is not 81 shares"),
            (np.ones(81), {"mine": [np.full(81, np.nan)]}, "'mine' is not 81 shares"),
            (np.ones(81), {"mine": []}, "'mine' has no repetition"),
        ],
    )
    def test_of_anything_but_rates_are_an_error_that_names_them(self, uncorrected, results, text):
        with pytest.raises(FigureError, match=text):
            success_curves({"mine": uncorrected}, results, of="worst")

    def test_of_different_data_have_each_its_own_uncorrected_curve_in_its_colour(self):
        easy, hard = success_rates(np.array([5.5, 6.5])), success_rates(np.array([50.5, 60.5]))
        figure = success_curves({"a": easy, "b": hard}, {"a": [np.ones(81)], "b": [np.ones(81)]}, of="worst")
        before_a, a, before_b, b = figure.axes[0].lines
        np.testing.assert_allclose(before_a.get_ydata(), 100 * easy)
        np.testing.assert_allclose(before_b.get_ydata(), 100 * hard)
        assert before_a.get_color() == a.get_color() != b.get_color() == before_b.get_color()
        assert [text.partition(", AUC")[0] for text in legend(figure)] == ["a, uncorrected", "a", "b, uncorrected", "b"]

    def test_may_be_of_several_data_and_ten_other_methods_and_look_all_different(self):
        rates = [np.linspace(0, share, 81) for share in (0.2, 0.4, 0.6, 0.8)]
        figure = success_curves(
            {f"set {i}": rates[i] for i in range(4)},
            {f"set {i}": [np.ones(81)] for i in range(4)},
            others=[(f"other {i}", np.ones(81)) for i in range(10)],
            of="worst",
        )
        drawn = figure.axes[0].lines
        assert len({(line.get_color(), line.get_linestyle()) for line in drawn}) == len(drawn) == 4 + 4 + 10
        assert [line.get_linestyle() for line in drawn] == ["--", "-"] * 4 + [":"] * 7 + ["-."] * 3
        assert len(set(legend(figure))) == 18

    def test_of_more_than_ten_other_methods_are_an_error(self):
        with pytest.raises(FigureError, match="of 11 other methods cannot be distinguished; choose at most 10 of them"):
            success_curves(
                {"mine": np.ones(81)},
                {"mine": [np.ones(81)]},
                others=[(str(i), np.ones(81)) for i in range(11)],
                of="worst",
            )

    @pytest.mark.parametrize("labels", [["mine"], ["A", "B", "A"], ["uncorrected"]])
    def test_have_each_a_label_of_its_own(self, labels):
        with pytest.raises(FigureError, match=f"two success curves have the label '{labels[0]}'"):
            success_curves(
                {"mine": np.ones(81)},
                {"mine": [np.ones(81)]},
                others=[(label, np.ones(81)) for label in labels],
                of="worst",
            )

    @pytest.mark.parametrize(
        ("n", "n_planned", "count"), [(2, 3, " (n = 2 of 3)"), (1, 2, " (n = 1 of 2)"), (1, 1, "")]
    )
    def test_count_repetitions_that_were_planned_and_did_not_finish(self, n, n_planned, count):
        figure = success_curves({}, {"mine": [np.ones(81)] * n}, of="worst", n_planned=n_planned)
        assert legend(figure) == [f"mine{count}, AUC 1.000"]
        assert ("did not finish" in note(figure)) == (n < n_planned)

    @pytest.mark.parametrize("errors", [[], [1.0, np.nan]])
    def test_of_errors_that_are_no_numbers_are_an_error(self, errors):
        with pytest.raises(FigureError, match="not numbers"):
            success_rates(np.array(errors))


class TestErrorsByJoint:
    @pytest.mark.parametrize("skeleton", [HANDS17, ICVL, NYU], ids=lambda skeleton: skeleton.name)
    def test_have_joints_of_no_finger_first_then_each_finger_from_the_palm_outwards(self, skeleton):
        figure = errors_by_joint(skeleton, parts(skeleton, 20), parts(skeleton, 10))
        labels = figure.axes[0].get_yticklabels()
        in_fingers = [joint for _, joints in skeleton.fingers for joint in joints]
        expected = [name for joint, name in enumerate(skeleton.joint_names) if joint not in in_fingers]
        for finger, joints in skeleton.fingers:
            expected += [finger, *(skeleton.joint_names[joint] for joint in joints)]
        assert [label.get_text() for label in labels] == expected
        bold = [label.get_text() for label in labels if label.get_fontweight() == "bold"]
        assert bold == list(dict(skeleton.fingers))
        bottom, top = figure.axes[0].get_ylim()
        assert bottom > top  # the first one is above

    def test_are_means_with_sample_standard_deviations_over_repetitions(self):
        figure = errors_by_joint(NYU, parts(NYU, 20), parts(NYU, 10))
        names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        before, after = figure.axes[0].containers
        for container, values in ((before, parts(NYU, 20)), (after, parts(NYU, 10))):
            np.testing.assert_allclose(container.lines[0].get_xdata(), [np.mean(values[name]) for name in names])
            ends = np.array(container.lines[2][0].get_segments())[:, :, 0]  # (P, 2)
            np.testing.assert_allclose(np.ptp(ends, axis=1) / 2, [np.std(values[name], ddof=1) for name in names])
        assert "Mean ± standard deviation over n = 2 repetitions." in note(figure)

    def test_count_repetitions_that_were_planned_and_did_not_finish(self):
        figure = errors_by_joint(NYU, parts(NYU, 20), parts(NYU, 10), n_planned=3)
        assert note(figure) == "Mean ± standard deviation over n = 2 of 3 repetitions."
        one = [{name: values[:1] for name, values in parts(NYU, mm).items()} for mm in (20, 10)]
        assert note(errors_by_joint(NYU, *one, n_planned=3)) == "n = 1 of 3 repetitions."
        assert note(errors_by_joint(NYU, *one, n_planned=1)) == "n = 1 repetition."

    def test_say_where_there_is_no_number(self):
        after = parts(NYU, 10) | {"palm": [np.nan, np.nan], "wrist_1": [10.0, np.nan]}
        del after["wrist_2"]
        figure = errors_by_joint(NYU, parts(NYU, 20), after)
        assert words(figure).count("no number") == 2
        assert "2 of them lack values" in note(figure)
        assert figure.axes[0].containers[1].lines[0].get_xdata()[0] == 10

    def test_of_nothing_are_an_error(self):
        with pytest.raises(FigureError, match="no errors by joint"):
            errors_by_joint(NYU, {}, {})


class TestImprovementByDistance:
    def test_is_the_mean_of_each_bin_with_its_number_of_frames(self):
        distance = np.array([51.0, 60, 99, 120, 380, np.nan])
        before = np.array([10.0, 10, 10, 10, 10, 10])
        after = np.array([9.0, 8, 7, 12, 5, 0])
        figure = improvement_by_distance(before, after, distance)
        upper, lower = figure.axes
        x, y = upper.containers[0].lines[0].get_data()
        assert (x.tolist(), y.tolist()) == ([75, 125, 375], [2.0, -2.0, 5.0])
        assert [bar.get_height() for bar in lower.patches] == [3, 1, 1]
        assert note(figure) == ("5 frames of one repetition. 1 frame in sequences without training frames is left out.")

    @pytest.mark.parametrize("distance", [[0.0], [0.0, 1, 2], [7.0] * 3, [1.0, 5_000_000]])
    def test_is_drawn_for_any_distances(self, distance):
        errors = np.ones(len(distance))
        figure = improvement_by_distance(errors, errors, np.array(distance))
        assert sum(bar.get_height() for bar in figure.axes[1].patches) == len(distance)
        assert len(figure.axes[1].patches) <= 11

    def test_of_unknown_distances_is_an_error(self):
        with pytest.raises(FigureError, match="no frame is in a sequence with training frames"):
            improvement_by_distance(np.ones(3), np.ones(3), np.full(3, np.nan))


class TestErrorOverTime:
    def drawn(self, index, errors):
        figure = error_over_time([Recording("s", np.array(index), np.array(errors), np.array(errors) / 2)])
        return [line.get_data() for line in figure.axes[0].get_lines()], note(figure)

    def test_is_that_of_each_frame_with_a_break_where_frames_are_missing(self):
        (before, after), _ = self.drawn([3, 4, 9, 10, 11], [1.0, 2, 3, 4, 5])
        np.testing.assert_array_equal(before, [[3, 4, np.nan, 9, 10, 11], [1, 2, np.nan, 3, 4, 5]])
        np.testing.assert_array_equal(after[1], before[1] / 2)

    def test_of_every_fifth_frame_is_one_line(self):
        (before, _), _ = self.drawn(range(0, 50, 5), range(10))
        np.testing.assert_array_equal(before, [range(0, 50, 5), range(10)])

    def test_of_a_long_sequence_has_means_of_several_frames(self):
        (before, _), text = self.drawn(range(1000), range(1000))
        np.testing.assert_array_equal(before[1], np.arange(1000).reshape(250, 4).mean(axis=1))
        assert "A point is the mean of up to 4 successive frames." in text

    def test_of_many_sequences_shows_the_first(self):
        figure = error_over_time([recording(20)] * 9)
        assert len(figure.axes) == 6
        assert "The first 6 of 9 sequences." in note(figure)

    def test_of_no_sequence_is_an_error(self):
        with pytest.raises(FigureError, match="no sequences to draw"):
            error_over_time([])


class TestHeatMap:
    ROWS = summary(
        {(1e-2, 0.0, 1): (10, 15), (1e-2, 0.0, 2): (11, 12), (1e-3, 0.0, 1): (12, 13), (1e-3, 0.1, 1): (9, 17)}
    )

    def cells(self, figure):
        return {text.get_position(): text.get_text() for text in figure.axes[0].texts}

    def test_has_in_each_cell_the_best_in_validation_so_that_none_is_chosen_on_the_test_set(self):
        figure = heat_map(self.ROWS, DECAY, LR, split="test")
        # Columns are 0.001 and 0.01, rows 0 and 0.1: numbers by size.
        assert self.cells(figure) == {(0, 0): "13.00", (1, 0): "15.00", (0, 1): "17.00"}
        assert "Each cell shows the best of the other options in validation." in note(figure)
        assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0.001", "0.01"]

    def test_frames_the_best_in_validation_and_hatches_what_was_not_run(self):
        figure = heat_map(self.ROWS, DECAY, LR, split="test")
        hatched, frame = figure.axes[0].patches
        assert frame.get_xy() == (-0.5, 0.5)
        assert hatched.get_hatch()
        assert hatched.get_xy() == (0.5, 0.5)
        assert "Hatched: not run" in note(figure)

    def test_has_a_dash_where_no_repetition_finished_and_a_star_where_some_did_not(self):
        rows = summary({(1, 1, 1): (10, 10), (2, 1, 1): (11, 11), (3, 1, 1): (None, None)})
        rows[1]["n"], rows[2]["n"] = 2, 0
        figure = heat_map(rows, DECAY, LR, split="val")
        assert self.cells(figure) == {(0, 0): "10.00", (1, 0): "11.00*", (2, 0): "–"}
        assert "*: fewer repetitions finished." in note(figure)

    def test_has_a_star_wherever_repetitions_are_missing_even_in_all_cells(self):
        rows = summary({(1, 1, 1): (10, 10), (2, 1, 1): (11, 11)})
        figure = heat_map(rows, DECAY, LR, split="val", n_planned=4)
        assert set(self.cells(figure).values()) == {"10.00*", "11.00*"}
        assert "mean over n = 4 repetitions." in note(figure)

    @pytest.mark.parametrize(
        ("incomplete", "says"),
        [((1e-2, 0.0, 2), True), ((1e-3, 0.1, 2), True), ((1e-2, 0.0, 1), False)],
        ids=["of a cell", "of all", "of none"],
    )
    def test_says_that_a_better_combination_was_passed_over_for_repetitions_that_are_missing(self, incomplete, says):
        complete = summary({(1e-2, 0.0, 1): (10, 15), (1e-3, 0.1, 1): (9, 17)})
        passed_over = summary({incomplete: (8 if says else 12, 12)}, n=2)
        text = note(heat_map([*complete, *passed_over], DECAY, LR, split="test", n_planned=3))
        assert ("Combinations with fewer repetitions come after complete ones." in text) == says

    def test_tells_values_apart_that_python_calls_equal(self):
        rows = summary({(1, 1, 1): (10, 10)}) + summary({(True, 1, 1): (11, 11)}) + summary({(1.0, 1, 1): (12, 12)})
        figure = heat_map(rows, DECAY, LR, split="val")
        assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "1.0", "True"]

    def test_has_lists_in_the_order_of_their_numbers(self):
        dims = [[128, 8], [64, 64], [128, 64], [0.5, 64], [0.25, 64], [1e-5, 64]]
        rows = summary({(1, 1, 1): (10, 10)}) * len(dims)
        rows = [{**row, LR: value} for row, value in zip(rows, dims, strict=True)]
        figure = heat_map(rows, DECAY, LR, split="val", width_in=7)
        shown = [label.get_text() for label in figure.axes[0].get_xticklabels()]
        assert shown == ["[1e-05, 64]", "[0.25, 64]", "[0.5, 64]", "[64, 64]", "[128, 8]", "[128, 64]"]

    def test_says_when_there_are_more_values_than_fit(self):
        rows = summary({(lr, 1, 1): (10, 10) for lr in range(40)})
        with pytest.raises(FigureError, match=r"40 values of optimizer_args\.lr do not fit into 3\.5 inches"):
            heat_map(rows, DECAY, LR, split="val")
        heat_map(rows, LR, DECAY, split="val")

    def test_of_no_result_is_an_error(self):
        with pytest.raises(FigureError, match="no combination has a result"):
            heat_map(summary({(1, 1, 1): (None, None)}), DECAY, LR, split="val")


class TestErrorByOption:
    ROWS = by_option(
        {
            **{(1000, 0.0, 1): (9, 15), (10, 0.0, 1): (13, 17), (100, 0.0, 1): (11, 16)},
            **{(100, 0.1, 1): (10, 14), (10, 0.1, 1): (12, 18), (1000, 0.1, 1): (8, 13)},
            # Better on the test set, but not in validation.
            **{(10, 0.0, 2): (14, 1), (10, 0.1, 2): (15, 1)},
        }
    )

    def test_is_a_mean_with_its_deviation_at_each_number_on_a_line_for_each_value(self):
        figure = error_by_option(self.ROWS, LR, lines=DECAY, split="test")
        axes = figure.axes[0]
        drawn = {container.get_label(): container for container in axes.containers}
        lines = [container.lines[0].get_xydata().tolist() for container in drawn.values()]
        assert lines == [[[10, 17], [100, 16], [1000, 15]], [[10, 18], [100, 14], [1000, 13]]]
        (bars,) = axes.containers[0].lines[2]
        np.testing.assert_allclose(bars.get_segments()[0][:, 1], [16.75, 17.25])
        assert legend(figure) == ["weight_decay 0", "weight_decay 0.1", "uncorrected"]
        assert axes.get_ylabel() == "Test distance (mm)"
        assert note(figure) == (
            "Mean ± sample standard deviation over n = 3 repetitions. Each point shows the best of the other options "
            "in validation."
        )

    def test_of_one_line_has_the_best_of_the_others_in_validation(self):
        figure = error_by_option(self.ROWS, LR, split="val")
        assert figure.axes[0].containers[0].lines[0].get_xydata().tolist() == [[10, 12], [100, 10], [1000, 8]]
        assert legend(figure) == ["corrected", "uncorrected"]
        assert figure.axes[0].get_ylabel() == "Validation distance (mm)"

    @pytest.mark.parametrize(
        ("numbers", "scale", "label"),
        [([1, 2, 3], "linear", "lr"), ([1, 100], "log", "lr (log)"), ([0, 1, 100], "symlog", "lr (log)")],
    )
    def test_has_a_logarithmic_axis_if_numbers_span_decades(self, numbers, scale, label):
        axes = error_by_option(by_option({(lr, 1, 1): (9, 9) for lr in numbers}), LR, split="val").axes[0]
        assert (axes.get_xscale(), axes.get_xlabel()) == (scale, label)
        assert [text.get_text() for text in axes.get_xticklabels()] == list(map(str, numbers))

    def test_has_an_uncorrected_line_of_its_own_for_each_line_if_they_differ(self):
        rows = by_option({(lr, 0.1, 1): (9, 9) for lr in (1, 2)}, before=[20.0, 21.0])
        figure = error_by_option(rows, LR, split="test")
        assert figure.axes[0].lines[-1].get_xydata().tolist() == [[1, 20], [2, 21]]
        assert "Dashed: uncorrected." in note(figure)

    def test_names_what_is_not_a_number_and_counts_what_has_no_result(self):
        results = {
            (1, 1, 1): (9, 9),
            (2, 1, 1): (8, 8),
            (None, 1, 1): (7, 7),
            (True, 1, 2): (7, 7),
            (3, 1, 1): (None,) * 2,
        }
        said = note(error_by_option(by_option(results, n=2), LR, split="test", n_planned=2))
        assert "Not a number and left out: lr None, True." in said
        assert "1 without a result is left out." in said

    def test_says_of_how_many_repetitions_and_what_was_passed_over(self):
        rows = [
            *by_option({(1, 1, 1): (9, 9), (2, 1, 1): (9, 9)}),
            *by_option({(2, 1, 2): (8, 8), (4, 1, 1): (8, 8)}, n=2),
        ]
        said = note(error_by_option(rows, LR, split="val", n_planned=3))
        assert "over n = 2 to 3 repetitions." in said
        assert "Combinations with fewer repetitions come after complete ones." in said

    @pytest.mark.parametrize(
        ("rows", "lines", "says"),
        [
            (by_option({(1, 1, 1): (9, 9), ("2", 1, 1): (9, 9)}), None, "fewer than two of its numbers have a result"),
            (by_option({(lr, i, 1): (9, 9) for lr in (1, 2) for i in range(8)}), DECAY, "8 lines, .* at most 7 can"),
        ],
    )
    def test_of_too_few_numbers_or_too_many_lines_is_an_error(self, rows, lines, says):
        with pytest.raises(FigureError, match=says):
            error_by_option(rows, LR, lines=lines, split="test")


class TestParallelCoordinates:
    def lines(self, figure):
        (collection,) = figure.axes[0].findobj(LineCollection)
        return np.array(collection.get_segments())

    def test_have_a_line_for_each_combination_with_a_result(self):
        rows = [*grid(), *summary({(1e-4, 0.5, 1): (None, None)})]
        figure = parallel_coordinates(rows, [LR, DECAY, BATCH], split="val")
        assert self.lines(figure).shape == (36, 4, 2)
        assert "1 of 37 combinations without a result are left out." in note(figure)

    def test_are_dashed_where_repetitions_are_missing(self):
        rows = [*summary({(1, 1, 1): (10, 10), (2, 1, 1): (12, 12)}), *summary({(3, 1, 1): (9, 9)}, n=2)]
        figure = parallel_coordinates(rows, [LR, DECAY], split="val", n_planned=3)
        (collection,) = figure.axes[0].findobj(LineCollection)
        dashed = [pattern is not None for _, pattern in collection.get_linestyle()]
        assert dashed == [False, False, True]  # the last one is the best and in front
        assert "Dashed: fewer than n = 3 repetitions finished." in note(figure)
        assert "Combinations with fewer repetitions come after complete ones." in note(figure)
        assert "repetitions" not in note(parallel_coordinates(rows[:2], [LR, DECAY], split="val", n_planned=3))

    def test_are_logarithmic_where_numbers_span_more_than_a_decade_and_a_half(self):
        rows = summary({(1e-4, 1, 1): (10, 0), (1e-3, 3, 1): (11, 0), (1e-2, 31, 1): (12, 0)})
        figure = parallel_coordinates(rows, [LR, DECAY], split="val")
        best_last = self.lines(figure)[::-1]
        np.testing.assert_allclose(best_last[:, 0, 1], [0, 0.5, 1])
        np.testing.assert_allclose(best_last[:, 1, 1], [0, 2 / 30, 1])
        np.testing.assert_allclose(best_last[:, 2, 1], [0, 0.5, 1])
        assert sum("(log)" in text for text in words(figure)) == 1

    @pytest.mark.slow
    def test_of_ten_thousand_combinations_stay_a_small_file(self):
        rng = np.random.default_rng(0)
        rows = summary({(lr, decay, 1): (decay, 1) for lr, decay in rng.random((10_000, 2)).tolist()})
        figure = parallel_coordinates(rows, [LR, DECAY], split="val")
        assert len(self.lines(figure)) == 10_000
        assert len(save(figure, "svg")) < 1e6

    def test_name_round_numbers_where_there_are_many(self):
        rows = summary({(lr, 1, 1): (10, 0) for lr in range(1, 30)})
        found = words(parallel_coordinates(rows, [LR], split="val"))
        assert {"5", "10", "15", "20", "25"} <= set(found)
        assert "7" not in found

    def test_and_heat_maps_name_options_by_the_parts_that_tell_them_apart(self):
        rows = [row | {"model_args.lr": 1} for row in grid()]
        drawn = words(parallel_coordinates(rows, [LR, DECAY], split="val"))
        assert {"optimizer_args.\nlr\n(log)", "weight_decay"} <= set(drawn)
        axes = heat_map(rows, DECAY, LR, split="val").axes[0]
        assert (axes.get_ylabel(), axes.get_xlabel()) == ("weight_decay", LR)

    @pytest.mark.parametrize(("rows", "options"), [(grid(), []), (summary({(1, 1, 1): (None, None)}), [LR])])
    def test_of_nothing_are_an_error(self, rows, options):
        with pytest.raises(FigureError, match="no parallel coordinates"):
            parallel_coordinates(rows, options, split="val")


class TestErrorsOfFrames:
    def test_fill_a_histogram_whose_bins_sum_to_all_frames(self):
        figure = error_histogram(*frames())
        for bars in figure.axes[0].patches:
            assert bars.get_data().values.sum() == pytest.approx(100)
        before, after = frames()
        assert legend(figure)[0] == f"before: median {np.median(before):.1f} mm, mean {before.mean():.1f} mm"
        last_edge = figure.axes[0].patches[0].get_data().edges[-1]
        n_beyond = [(values > last_edge).sum() for values in (before, after)]
        assert f"includes {n_beyond[0]} poses before and {n_beyond[1]} after" in note(figure)

    def test_count_one_pose_beyond_the_last_bin_in_the_singular(self):
        values = np.linspace(0, 10, 100)
        assert "includes 1 pose before and 0 after" in note(error_histogram(np.append(values[:-1], 1000.0), values))

    def test_improve_by_the_mean_of_each_tenth_of_the_frames(self):
        before, after = frames()
        figure = improvement_by_error(before, after)
        (container,) = figure.axes[0].containers
        order = np.argsort(before)
        expected = [(before[tenth].mean(), (before - after)[tenth].mean()) for tenth in np.split(order, 10)]
        np.testing.assert_allclose(container.lines[0].get_xydata(), expected)
        improved = 100 * np.mean(after < before)
        assert f"3,000 poses of one repetition: {improved:.1f} % improved" in note(figure)
        assert figure.axes[0].get_ylim()[0] < 0 < figure.axes[0].get_ylim()[1]

    def test_are_improved_by_more_than_the_rounding_that_the_metric_has(self):
        assert ROUNDING_MM == evaluator.ROUNDING_MM
        figure = improvement_by_error(np.array([1.0, 2, 3, 4]), np.array([1.0005, 1, 4, 4]))
        assert "25.0 % improved, 25.0 % worsened" in note(figure)

    @pytest.mark.parametrize("draw", [error_histogram, improvement_by_error])
    def test_without_a_number_are_counted(self, draw):
        figure = draw(np.array([1.0, np.nan, 0]), np.array([1.0, 1, 0]))
        assert "2 poses" in note(figure)
        assert "Frames left out because a value is missing: 1." in note(figure)

    @pytest.mark.parametrize("draw", [error_histogram, improvement_by_error])
    def test_of_none_and_of_unlike_numbers_are_an_error(self, draw):
        with pytest.raises(FigureError, match="no frames"):
            draw(np.array([np.nan]), np.array([1.0]))
        with pytest.raises(FigureError, match="2 frames before and 1 after"):
            draw(np.ones(2), np.ones(1))

    @pytest.mark.parametrize("draw", [error_histogram, improvement_by_error])
    def test_may_all_be_perfect(self, draw):
        save(draw(np.zeros(1500), np.zeros(1500)), "png")


class TestSkeletons:
    def panels(self, figure):
        return [axes for part in figure.subfigs for axes in part.axes]

    def test_have_all_bones_of_input_label_and_corrected_hand(self):
        inputs, corrected, labels = hands()
        panels = self.panels(skeletons(inputs, corrected, labels, NYU))
        assert len(panels) == 2 * 3
        for place, axes in enumerate(panels):
            example = place % 3
            centre = [sum(axes.get_xlim()), sum(axes.get_ylim()), sum(axes.get_zlim())]
            assert centre == [0, 0, 0]
            drawn = [np.array(line.get_data_3d()).reshape(3, len(NYU.bones), 3) for line in axes.lines]
            poses = [labels[example], inputs[example], list(corrected.values())[place // 3][example]]
            for line, pose in zip(drawn, poses, strict=True):
                lengths = np.linalg.norm(line[:, :, 1] - line[:, :, 0], axis=0)
                np.testing.assert_allclose(lengths, [np.linalg.norm(pose[a] - pose[b]) for a, b in NYU.bones])

    def test_are_at_one_scale_from_one_side(self):
        panels = self.panels(skeletons(*hands(), NYU))
        looks = {(axes.elev, axes.azim, axes.get_xlim(), axes.get_ylim(), axes.get_zlim()) for axes in panels}
        assert len(looks) == 1
        assert np.ptp(panels[0].get_xlim()) == np.ptp(panels[0].get_zlim())

    def test_are_whole(self):
        figure = skeletons(*hands(), NYU)
        FigureCanvasAgg(figure).draw()
        for axes in self.panels(figure):
            for line in axes.lines:
                x, y, _ = proj3d.proj_transform(*line.get_data_3d(), axes.get_proj())
                places = axes.transData.transform(np.transpose([x, y]))
                places = places[np.isfinite(places).all(axis=1)]
                assert all(axes.bbox.contains(*place) for place in places)

    def test_have_their_mean_distances_above(self):
        inputs, corrected, labels = hands()
        titles = [axes.get_title() for axes in self.panels(skeletons(inputs, corrected, labels, NYU))]
        assert titles == ["15.6 → 10.4"] * 3 + ["15.6 → 1.7"] * 3  # a shift by d in x, y and z is d · √3

    @pytest.mark.slow
    def test_say_when_not_all_examples_fit(self):
        figure = skeletons(*hands(9), NYU)
        assert "The first 5 of 9 examples." in note(figure)
        assert len(self.panels(skeletons(*hands(9), NYU, width_in=7))) == 2 * 9

    @pytest.mark.parametrize(("n", "expected"), [(1, [10]), (2, [1, 10]), (3, [1, 5, 10]), (99, range(1, 11))])
    def test_are_of_so_many_log_points_from_the_first_to_the_last(self, n, expected):
        figure = skeletons(*followed(10), NYU, n_log_points=n)
        assert [part.get_suptitle() for part in figure.subfigs] == [f"epoch {epoch}" for epoch in expected]
        assert (f"{n} of 10 log points." in note(figure)) == (n < 10)

    def test_are_of_so_many_examples(self):
        figure = skeletons(*hands(), NYU, n_examples=2)
        assert len(self.panels(figure)) == 2 * 2
        assert "The first 2 of 3 examples." in note(figure)

    def test_are_no_higher_than_a_page_where_several_log_points_fit_beside_each_other(self):
        figure = skeletons(*followed(10), NYU, n_examples=1)
        assert len(self.panels(figure)) == 10
        assert figure.get_figheight() < 10

    @pytest.mark.parametrize("how", [{"n_examples": 0}, {"n_log_points": 0}, {"n_log_points": -1}])
    def test_of_no_example_or_no_log_point_are_an_error(self, how):
        with pytest.raises(FigureError, match="at least one example and one log point"):
            skeletons(*hands(), NYU, **how)

    def test_are_at_the_scale_of_what_is_drawn(self):
        inputs, corrected, labels = hands()
        one = skeletons(inputs[:1], {"epoch 1": corrected["epoch 1"][:1]}, labels[:1], NYU)
        labels[1:] = np.nan
        points = {"epoch 0": corrected["epoch 1"] * 100, "epoch 1": corrected["epoch 1"]}
        first = skeletons(inputs, points, labels, NYU, n_examples=1, n_log_points=1)
        assert [axes.get_xlim() for axes in self.panels(first)] == [axes.get_xlim() for axes in self.panels(one)]

    def test_of_nothing_and_of_no_numbers_are_an_error(self):
        inputs, _, labels = hands()
        with pytest.raises(FigureError, match="no example was followed"):
            skeletons(inputs, {}, labels, NYU)
        with pytest.raises(FigureError, match="not a finite number"):
            skeletons(inputs, {"a": labels * np.nan}, labels, NYU)

import os
import re
import shutil
import subprocess
import unicodedata

import numpy as np
import pypdf
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.reports.formats.latex_escape import breakable, escaped
from cluster.reports.tables.export import export_groups
from cluster.reports.tables.table_options import TableOptions
from cluster.result_table import ResultTable
from cluster.results.names import ChoiceError
from cluster.storage.frame_errors import FrameErrors
from tests.cluster_tests.reports.test_sweep_over_models import folder_of
from tests.cluster_tests.results_files import results, write_results

LR, AUGMENTERS = "optimizer_args.lr", "augmenters"
SWEEP = {
    "a": ({LR: 1e-5, AUGMENTERS: "[]"}, [11.0, 11.2, 11.1]),
    "b": ({LR: 1e-5, AUGMENTERS: "[Rotate(30), Scale(0.9, 1.1)]"}, [10.0, 10.3, "failed"]),
    "c": ({LR: 0.01, AUGMENTERS: "[]"}, [12.0, 12.1, 11.9]),
    "d": ({LR: 0.01, AUGMENTERS: "[Rotate(30), Scale(0.9, 1.1)]"}, [10.5, 10.6, 10.4]),
}
LONG = "Sequential([RotateJointsRandomly(max_angle=30.0), ScaleRandomly(low=0.9, high=1.1), DropJoints(p=0.1)]), really"
ASCII = "".join(map(chr, range(33, 127)))
OTHERS = "äöüßÄÖÜéèêëñçøåæœŁłčšžğıŒÆØ§αβγλμσωΓΔΩ±×≤≥≠≈∞→←↑↓°–—‘’“”…中🖐"


def noisy(mean, seed):
    return [mean + 0.1 * x for x in np.random.default_rng(seed).standard_normal(10)]


SEEN = noisy(10.0, 0)
TIES = {
    "best": ({"x": "best"}, SEEN),
    # The same first two digits, but worse in every repetition.
    "digits": ({"x": "digits"}, [x + 0.0001 * (1 + i) for i, x in enumerate(SEEN)]),
    # Different digits, but better in some repetitions.
    "other": ({"x": "other"}, noisy(10.03, 1)),
    "worst": ({"x": "worst"}, noisy(15.0, 2)),
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return results(tmp_path_factory.mktemp("sweep"), SWEEP, name="my_sweep #1")


def rows(text):
    """The rows of the only table's body, with the source of each cell."""
    body = text.partition("\\midrule\n")[2].partition("\\bottomrule")[0]
    lines = [line.strip() for line in body.strip().splitlines() if "midrule" not in line]
    assert all(line.endswith(" \\\\") for line in lines)
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(" \\\\"))] for line in lines]


COMMANDS = {
    **{r"\textbackslash{}": "\\", r"\textasciicircum{}": "^", r"\textasciitilde{}": "~", r"\textless{}": "<"},
    **{r"\textgreater{}": ">", r"\textbar{}": "|", r"\`{}": "`", r"\dots{}": "…", "{[}": "[", "{*}": "*"},
    **{rf"\{c}": c for c in "{}$&#%_"},
    **{r"\mbox{}": "", r"\allowbreak{}": "", "---": "—", "--": "–", "``": "“", "''": '"', "`": "‘"},
    **{r"\ss{}": "ß", r"\ae{}": "æ", r"\AE{}": "Æ", r"\oe{}": "œ", r"\OE{}": "Œ", r"\o{}": "ø", r"\O{}": "Ø"},
    **{r"\l{}": "ł", r"\L{}": "Ł", r"\i{}": "ı", r"\S{}": "§", "~": "\N{NO-BREAK SPACE}"},
}
ACCENTS = dict(zip("`'^~=u.\"rHvc", "̧̀́̂̃̄̆̇̈̊̋̌".replace("̧", "") + "̧", strict=True))
MATH = {
    **{name: unicodedata.lookup(f"GREEK SMALL LETTER {name.upper()}") for name in ("alpha", "beta", "gamma", "delta")},
    **{"pm": "±", "times": "×", "to": "→", "le": "≤", "lambda": "λ"},
}


def read_latex(source):
    """Returns the text that a source shows; it reads only the few commands that labels use."""
    shown = ""
    while source:
        math = re.match(r"\$([^$]+)\$", source)
        accent = re.match(r"\\([`'^~=u.\"rHvc])\{([A-Za-z])\}", source)
        number = re.match(r"\{\[\}U\+([0-9A-F]{4,6})\]", source)
        command = next((name for name in sorted(COMMANDS, key=len, reverse=True) if source.startswith(name)), None)
        if number:
            shown, used = shown + chr(int(number[1], 16)), number[0]
        elif math:
            shown, used = shown + math[1], math[0]
        elif accent:
            shown, used = shown + unicodedata.normalize("NFC", accent[2] + ACCENTS[accent[1]]), accent[0]
        elif command is not None:
            shown, used = shown + COMMANDS[command], command
        else:
            used = source[0]
            assert used.isascii(), "it is for any encoding"
            assert used.isprintable()
            assert used not in r"\{}$&#%_^~<>|`[*" + '"', f"{used} is not what it seems in LaTeX"
            shown += used
        source = source[len(used) :]
    return shown


ascii_texts = st.text(st.characters(min_codepoint=32, max_codepoint=126))


class TestAText:
    @given(ascii_texts)
    @example(ASCII)
    @example(ASCII[::-1])
    @example("--- '''\" ,, ?` !` << >> ---")
    def test_of_what_a_keyboard_has_is_all_there(self, text):
        assert read_latex(escaped(text)) == " ".join(text.split())
        assert read_latex(breakable(text)) == " ".join(text.split())

    @given(st.text(st.characters(codec="utf-8", exclude_categories=("Sm", "Sc")).filter(lambda c: c not in "“”’‘")))
    def test_of_anything_else_is_there_as_a_letter_or_a_number(self, text):
        # Formulas have a separate test.
        source = escaped(text)
        assert source.isascii()
        if "$" not in source.replace(r"\$", ""):
            assert read_latex(source) == unicodedata.normalize("NFC", " ".join(text.split()))

    @pytest.mark.parametrize(
        ("text", "source"),
        [
            ("λ → ±", r"$\lambda$ $\to$ $\pm$"),
            ("e\u0301", r"\'{e}"),  # two characters stand for one letter
            ("Å", r"\r{A}"),
            ("中", "{[}U+4E2D]"),
            ("a\x00b", "a{[}U+0000]b"),
            ("-–—", r"-\mbox{}--\mbox{}---"),
            ("lr_[0]", r"lr\_{[}0]"),
        ],
    )
    def test_is_written_so(self, text, source):
        assert escaped(text) == source


class TestTheTable:
    def test_is_of_booktabs_with_caption_and_label(self, sweep):
        text = sweep.to_latex()
        assert text.startswith("% Needs \\usepackage{booktabs,multirow}\n\\begin{table}[htbp]\n")
        for rule in ("toprule", "bottomrule", "begin{tabular}", "end{tabular}", "end{table}"):
            assert text.count(f"\\{rule}") == 1
        assert "\\hline" not in text
        assert "\\label{tab:my-sweep-1}" in text
        (caption,) = re.findall(r"\\caption\{(.*)\}\n", text)
        assert caption == (
            r"Mean distance per joint (mm, lower is better) on the test set hands\_test (1,234 frames); "
            r"mean $\pm$ sample standard deviation over n = 2 to 3 finished repetitions. Combinations are sorted by "
            r"their mean distance in validation, best first; those with fewer than 3 finished repetitions come last. "
            r"Bold: best mean among those with the most repetitions. Underlined: second best. n = 3 is too few for a "
            r"test."
        )

    def test_has_the_best_in_bold_and_the_second_underlined(self, sweep):
        assert rows(sweep.to_latex(TableOptions(columns=("lr", "n", "before", "after", "change_percent")))) == [
            ["$0.01$", "$3$", "$20.00$", r"{\boldmath\bfseries $10.50 \pm 0.10$}", "$-47.5$"],
            ["$10^{-5}$", "$3$", "$20.00$", r"\underline{$11.10 \pm 0.10$}", "$-44.5$"],
            ["$0.01$", "$3$", "$20.00$", r"$12.00 \pm 0.10$", "$-40.0$"],
            ["$10^{-5}$", "$2$", "$20.00$", r"$10.15 \pm 0.21$", "$-49.2$"],
        ]

    def test_marks_ties_by_the_test_and_not_by_digits(self, tmp_path):
        found = dict(rows(results(tmp_path, TIES).to_latex(TableOptions(columns=("x", "after")))))
        shown = {name: re.search(r"\$.*\$", cell)[0] for name, cell in found.items()}
        assert shown["best"] == shown["digits"] != shown["other"]
        assert found["best"] == rf"{{\boldmath\bfseries {shown['best']}}}"
        assert found["digits"] == rf"\underline{{{shown['digits']}}}"
        assert found["other"] == rf"{{\boldmath\bfseries {shown['other']}}}"
        assert found["worst"] == shown["worst"]

    def test_groups_rows_that_share_an_option_and_stand_together(self, sweep):
        text = sweep.to_latex(TableOptions(columns=("lr", "augmenters", "n"), sort="lr"))
        assert [row[0] for row in rows(text)] == [
            *(r"\multirow[t]{2}{*}{$10^{-5}$}", ""),
            *(r"\multirow[t]{2}{*}{$0.01$}", ""),
        ]
        assert text.count("\\midrule") == 2
        assert "\\multirow" not in sweep.to_latex()

    def test_of_two_options_has_a_head_of_two_lines(self, sweep):
        text = sweep.to_latex(TableOptions(rows="augmenters", columns_of="lr"))
        assert (
            "    & \\multicolumn{2}{c}{lr} \\\\\n    \\cmidrule(lr){2-3}\n    augmenters & $10^{-5}$ & $0.01$ \\\\\n"
            in text
        )
        assert [len(row) for row in rows(text)] == [3, 3]

    def test_has_its_notes_below(self, sweep):
        below = sweep.to_latex().partition("\\end{tabular}")[2]
        assert "1 repetition failed and is excluded from all means." in below

    def test_breaks_labels_that_are_too_long_for_the_page(self, tmp_path):
        table = results(tmp_path, {"a": ({"x": LONG}, [9.0]), "b": ({"x": "short"}, [9.5])})
        text = table.to_latex()
        assert re.search(r"\\begin\{tabular\}\{p\{0\.\d\d\\linewidth\}rrr\}", text)
        assert read_latex(rows(text)[0][0].removeprefix(r"\raggedright\let\\\tabularnewline ")) == LONG

    def test_of_more_rows_than_a_page_has_goes_on_on_the_next(self, tmp_path):
        table = results(tmp_path, {f"k{i}": ({"x": i}, [9.0 + i]) for i in range(41)})
        text = table.to_latex()
        assert text.startswith("% Needs \\usepackage{booktabs,multirow,longtable}\n")
        assert "\\begin{tabular}" not in text
        assert text.count("before (mm) & after (mm)") == 2
        assert "\\begin{longtable}" not in table.to_latex(TableOptions(best=40))

    def test_of_both_columns_of_a_page_is_as_wide_as_the_page(self, sweep):
        text = sweep.to_latex(TableOptions(fit="columns"))
        assert "\\begin{table*}[tp]\n" in text
        assert text.endswith("\\end{table*}\n")
        assert text.partition("\\caption")[2].replace("table*", "table") == sweep.to_latex().partition("\\caption")[2]

    def test_has_the_size_that_was_asked_for_or_one_that_fits(self, sweep):
        def sizes(**options):
            return re.findall(r"^  \\(\w+size|small)$", sweep.to_latex(TableOptions(**options)), re.M)

        assert sizes() == sizes(columns=("lr", "after"), fit="column") == []
        without_labels = ("lr", "n", "failed", "before", "after", "change_percent")
        assert sizes(columns=without_labels, fit="column") == ["footnotesize"]
        assert sizes(fit="column") == ["scriptsize"]
        assert sizes(fit="column", size="small") == ["small"]
        assert sizes(fit="column", size="normalsize") == []

    def test_has_units_on_their_own_line_in_a_column(self, sweep):
        head = r"\begin{tabular}[b]{@{}r@{}}before \\ (mm)\end{tabular}"
        assert head in sweep.to_latex(TableOptions(fit="column"))
        assert head not in sweep.to_latex(TableOptions(fit="columns"))

    def test_that_is_too_wide_however_small_says_so_in_a_comment(self, sweep):
        wide = TableOptions(columns=("before", "after", "change", "key") * 4)
        assert "% It may be too wide: try fewer columns, a smaller size, or another fit.\n" in sweep.to_latex(wide)
        assert "too wide" not in sweep.to_latex(TableOptions(fit="column"))

    def test_that_two_columns_cannot_break_is_an_error(self, tmp_path):
        table = results(tmp_path, {f"k{i}": ({"x": i}, [9.0 + i]) for i in range(41)})
        for fit in ("column", "columns"):
            with pytest.raises(
                ChoiceError, match=r"41 rows do not fit on one page; show at most 40 \(such as --best 40"
            ):
                table.to_latex(TableOptions(fit=fit))
            assert table.to_latex(TableOptions(fit=fit, best=40))

    def test_may_be_a_document_of_its_own(self, sweep):
        text = sweep.to_latex(TableOptions(standalone=True))
        assert text.startswith("\\documentclass")
        assert text.endswith("\\end{document}\n")
        assert sweep.to_latex().partition("\n")[2] in text


def compiled(folder, document):
    """Returns the PDF of a document, and the log of pdflatex."""
    (folder / "tables.tex").write_text(document, encoding="ascii")
    ran = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "tables.tex"],
        cwd=folder,
        env={**os.environ, "TEXMFVAR": str(folder / "fonts"), "max_print_line": "1000"},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout[-3000:]
    return folder / "tables.pdf", ran.stdout


def excess_widths(log):
    """Returns by how much lines are too wide, in points."""
    return [float(width) for width in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", log)]


needs_latex = pytest.mark.skipif(
    not all(map(shutil.which, ("pdflatex", "pdftotext"))),
    reason="needs a LaTeX and poppler-utils: apt-get install texlive-latex-extra poppler-utils",
)


@pytest.fixture(scope="module")
def pdf(tmp_path_factory):
    """One document with tables of every kind, since LaTeX takes long to start."""
    folder = tmp_path_factory.mktemp("latex")
    sweep = write_results(folder / "sweep", SWEEP, name="my_sweep #1")
    table = ResultTable.read(sweep)
    with_intervals = write_results(folder / "intervals", {"a": ({"y": 1}, [9.0])})
    with_intervals.trial("a/0").write(
        "frames.parquet", FrameErrors({"A": (np.full(99, 20.0), np.linspace(8, 10, 99))}).to_parquet()
    )
    with_intervals = ResultTable.read(with_intervals)
    labels = [ASCII, OTHERS, LONG, "- [0] * not an argument", "-- --- ,, '' ''' ?` !` << >>"]
    odd = results(folder / "odd", {f"k{i}": ({"a_b & 50%": x}, [9.0 + i]) for i, x in enumerate(labels)}, name="{}")
    many = results(folder / "many", {f"k{i}": ({"u": i // 30, "v": i}, [9.0 + i]) for i in range(60)}, name="many")
    tables = [
        table.to_latex(),
        table.to_latex(TableOptions(columns=("lr", "augmenters", "n", "after"), sort="lr")),
        table.to_latex(TableOptions(rows="augmenters", columns_of="lr")),
        table.to_latex(TableOptions(trials=True)),
        export_groups(sweep, table, "joint", "latex", TableOptions()).decode(),
        table.to_latex(TableOptions(metric="acceleration_error")),
        with_intervals.to_latex(TableOptions(intervals=True, columns=("before", "after", "change", "change_percent"))),
        odd.to_latex(),
        odd.to_latex(TableOptions(columns=("after", "a_b & 50%"))),
        results(folder / "ties", TIES, name="ties").to_latex(TableOptions(columns=("x", "after"))),
        "\\clearpage",
        many.to_latex(TableOptions(sort="v")),
    ]
    head, _, _ = many.to_latex(TableOptions(standalone=True)).partition("\\begin{longtable}")
    head = head[: head.index("\\begin{document}")]
    return compiled(folder, "\n".join([head, "\\begin{document}", *tables, "\\end{document}"]))


@pytest.fixture(scope="module")
def text(pdf):
    """The text in it."""
    found = subprocess.run(
        ["pdftotext", "-layout", str(pdf[0]), "-"], capture_output=True, text=True, check=True, timeout=60
    )
    return unicodedata.normalize("NFKC", found.stdout)  # "fi" is a single glyph on paper


@pytest.mark.slow
@needs_latex
class TestCompiled:
    def test_nothing_is_wider_than_the_page_and_no_character_is_missing(self, pdf):
        _, log = pdf
        assert "Missing character" not in log
        # A label with all characters of a keyboard has no place for a line break.
        assert all(width < 10 for width in excess_widths(log)), excess_widths(log)

    def test_each_row_is_a_line(self, text):
        lines = [" ".join(line.split()) for line in text.splitlines()]
        assert "lr augmenters n failed before (mm) after (mm) change (%)" in lines
        assert "0.01 [Rotate(30), Scale(0.9, 1.1)] 3 0 20.00 10.50 ± 0.10 −47.5" in lines
        assert "W 1,234 63.00 21.00 ± 0.20 −42.00 −66.7" in lines
        assert any(re.search(r"20\.00 9\.00 −11\.00 \[−\d+\.\d\d, −\d+\.\d\d\] −55\.0 \[", line) for line in lines)
        assert "(mm/frame" in text
        assert "U+00B2" not in text
        assert "0.01 [Rotate(30), Scale(0.9, 1.1)] 0 finished 3 20.00 10.50" in lines

    def test_captions_are_numbered_and_whole(self, text):
        flat = " ".join(text.split())
        for number in range(1, 10):
            assert f"Table {number}: " in flat
        assert (
            "Table 3: Mean distance per joint (mm, lower is better) on the test set hands test (1,234 frames); mean ±"
        ) in flat
        assert "1 repetition failed and is excluded from all means." in flat

    def test_what_is_bold_is_the_best(self, pdf):
        bold = ""

        def visit(text, _matrix, _text_matrix, font, _size):
            nonlocal bold
            if font is not None and "CMBX" in font.get("/BaseFont", ""):
                bold += text

        pypdf.PdfReader(pdf[0]).pages[0].extract_text(visitor_text=visit)
        # The point has another font, like all points in formulas.
        assert set(bold.split()) == {"1050", "010"}

    def test_a_label_that_begins_like_an_argument_is_there(self, text):
        assert re.search(r"^ *- \[0\] \* not an argument +20\.00", text, re.M)

    def test_every_character_of_a_keyboard_is_there(self, text):
        # LaTeX's oldest fonts draw "_" as a line.
        as_set = ASCII.translate({ord("'"): "’", ord('"'): "”", ord("^"): "ˆ", ord("~"): "˜", ord("_"): " "})
        assert unicodedata.normalize("NFKC", as_set) in text

    def test_long_tables_have_all_rows_and_a_head_on_each_page(self, text):
        pages = [page for page in text.split("\f") if re.search(r"^ *u +v +before", page, re.M)]
        assert len(pages) == 2
        found = [int(v) for page in pages for v in re.findall(r"^ *(?:\d )? *(\d+) +20\.00", page, re.M)]
        assert found == list(range(60))


@pytest.mark.slow
@needs_latex
def test_on_a_page_with_two_columns_a_table_fits_one_or_both(tmp_path):
    models = ResultTable.read(folder_of(tmp_path / "models"))
    sweep = results(tmp_path / "sweep", SWEEP, name="my sweep")
    options = [
        *(TableOptions(fit="column"), TableOptions(fit="column", size="scriptsize"), TableOptions(fit="columns")),
        *(TableOptions(fit="columns", size="small"), TableOptions(fit="columns", trials=True)),
    ]
    tables = [table.to_latex(chosen) for table in (models, sweep) for chosen in options]
    tables.append(sweep.to_latex(TableOptions(fit="column", rows="augmenters", columns_of="lr")))
    names, labels = ("experiment_config.train_set_size", "augmenters"), ("[RandomRotator()]", "[]")
    sizes = {
        f"{n}{i}": (dict(zip(names, (10**n, labels[i]), strict=True)), [9.0 + n]) for n in range(3) for i in (0, 1)
    }
    tables.append(results(tmp_path / "sizes", sizes).to_latex(TableOptions(fit="column")))
    head, begin, _ = sweep.to_latex(TableOptions(fit="column", standalone=True)).partition("\\begin{document}\n")
    assert head.startswith("\\documentclass[twocolumn]{article}\n")
    _, log = compiled(tmp_path, "\n".join([head, begin, *tables, "\\end{document}"]))
    assert not excess_widths(log)
    _, log = compiled(tmp_path, "\n".join([head, begin, models.to_latex(), "\\end{document}"]))
    assert excess_widths(log), "that of a page does not fit"

import csv
import io
import math
import re

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.reports.tables.files import csv_bytes, parquet_bytes
from cluster.reports.tables.summary import mean_and_std, summary_markdown, summary_text
from cluster.result_table import ResultTable
from cluster.results.names import NOT_APPLICABLE
from tests.cluster_tests.results_files import results

values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
)


def table_of(rows, *, splits=("val",), n_others=0, trials=None):
    """A table whose summary has these rows: options with `n`, `failed`, `diverged`, and results by split."""
    paths = [path for path in rows[0] if path not in ("n", "failed", "diverged", "val", "test")]
    summary = []
    for row in rows:
        summed = {"key": "k", "n": 1, "failed": 0, "diverged": 0, **{k: v for k, v in row.items() if k not in splits}}
        for split in splits:
            before, mean, std, percent = row.get(split, (None,) * 4)
            summed |= {
                f"{split}_distance_before_mm": before,
                f"{split}_distance_mm_mean": mean,
                f"{split}_distance_mm_std": std,
                f"{split}_change_percent": percent,
            }
        summary.append(summed)
    n_repetitions = len(trials or rows) // len(rows)
    return ResultTable("my sweep", paths, paths, list(splits), trials or [], summary, n_others, n_repetitions)


def on_one_line(text):
    return " ".join(text.split())


def cells(text, row):
    """The cells of a line of a table in a terminal."""
    line = next(line for line in text.splitlines() if line.startswith(row))
    return line.split()


class TestTheText:
    def test_of_a_mean_has_its_deviation_where_there_is_one(self):
        assert mean_and_std(9.514, 0.0649) == "9.51 ± 0.06"
        assert mean_and_std(9.515001, None) == "9.52"
        assert mean_and_std(None, None) == "–"

    @pytest.mark.parametrize("write", [summary_text, summary_markdown])
    def test_has_before_after_and_change(self, write):
        text = write(table_of([{"lr": 0.001, "n": 3, "val": (16.789, 12.3456, 0.1, -26.5)}]))
        assert "16.79" in text
        assert "12.35 ± 0.10" in text
        assert "−26.5 %" in text
        assert "validation" in text
        assert "Mean distance per joint in mm: mean ± sample standard deviation over n finished repetitions." in text

    def test_has_a_dash_for_what_is_missing(self):
        text = summary_text(table_of([{"lr": 1, "n": 0, "failed": 2, "diverged": 1}]))
        assert cells(text, "1 ") == ["1", "0,", "2", "failed,", "1", "diverged", "–", "–", "–"]

    def test_counts_failed_repetitions_beside_n(self):
        text = summary_text(table_of([{"lr": 1, "n": 2, "failed": 1, "val": (20.0, 10.0, 1.0, -50.0)}]))
        assert cells(text, "1 ") == ["1", "2,", "1", "failed", "20.00", "10.00", "±", "1.00", "−50.0", "%"]

    def test_has_a_group_of_columns_for_the_test_set(self):
        row = {"lr": 1, "n": 2, "val": (20.0, 10.0, 1.0, -50.0), "test": (30.0, 40.0, None, 33.3333)}
        text = summary_text(table_of([row], splits=("val", "test")))
        assert cells(text, "1 ")[-4:] == ["30.00", "40.00", "+33.3", "%"]
        assert "Epochs were chosen on the validation set." in text
        assert "Epochs were chosen" not in summary_text(table_of([{"lr": 1}]))

    def test_tells_learning_rates_apart_that_differ_in_the_ninth_digit(self):
        text = summary_text(table_of([{"lr": 0.123456781}, {"lr": 0.123456782}, {"lr": 3e-4}, {"lr": math.inf}]))
        assert [line.split()[0] for line in text.splitlines() if line.startswith(("0.", "inf"))] == [
            "0.123456781",
            "0.123456782",
            "0.0003",
            "inf",
        ]

    def test_tells_a_number_from_a_text_that_looks_the_same(self):
        text = summary_text(table_of([{"lr": 1}, {"lr": "1"}, {"lr": None}]))
        assert [line.split()[0] for line in text.splitlines() if line.endswith("–")] == ["1", "'1'", "None"]

    def test_of_many_combinations_is_cut_in_the_terminal_and_whole_in_markdown(self):
        table = table_of([{"lr": i} for i in range(100)])
        text = summary_text(table)
        assert "and 60 more combinations, all in tables/summary.csv" in text
        assert sum(line.endswith("–") for line in text.splitlines()) == 40
        assert sum(line.endswith("– |") for line in summary_markdown(table).splitlines()) == 100

    def test_tells_how_many_trials_stand_how(self):
        trials = [
            {"key": "k", "repetition": i, "lr": 1, "status": status, "error": None}
            for i, status in enumerate(["finished"] * 2 + ["pending"])
        ]
        assert summary_text(table_of([{"lr": 1}], trials=trials)).startswith(
            "my sweep: 3 trials, 2 finished, 1 pending\n"
        )
        assert summary_text(table_of([{"lr": 1}], trials=trials[:1])).startswith("my sweep: 1 trial, 1 finished\n")

    def test_says_where_combinations_without_all_repetitions_are(self):
        trials = [{"key": "k", "repetition": i, "status": "finished"} for i in range(6)]
        note = "validation first; combinations with fewer than 3 finished repetitions come after the others."
        assert note in on_one_line(summary_text(table_of([{"lr": 1, "n": 3}, {"lr": 2, "n": 2}], trials=trials)))
        for others in (3, 0):
            text = summary_text(table_of([{"lr": 1, "n": 3}, {"lr": 2, "n": others}], trials=trials))
            assert "validation first.\n" in text

    def test_names_each_trial_that_failed_with_the_first_line_of_its_error(self):
        trials = [
            {"key": "k", "repetition": 2, "lr": 0.1, "status": "failed", "error": "RuntimeError: one\ntwo"},
            {"key": "k", "repetition": 0, "lr": 0.1, "status": "diverged", "error": None},
        ]
        for write in (summary_text, summary_markdown):
            text = write(table_of([{"lr": 0.1}], trials=trials))
            assert "failed: k/2 (lr = 0.1): RuntimeError: one\n" in text
            assert "diverged: k/0 (lr = 0.1):" in text
            assert "two" not in text

    def test_names_the_first_of_many_that_failed_and_counts_the_others(self):
        trials = [
            {"key": "k", "repetition": i, "lr": 1, "status": "failed" if i % 2 else "diverged", "error": f"x{i}"}
            for i in range(50)
        ]
        text = summary_text(table_of([{"lr": 1}], trials=trials))
        assert sum(": k/" in line for line in text.splitlines()) == 20
        assert text.endswith(
            "failed: k/19 (lr = 1): x19\nand 30 more that failed or diverged, see `error` in tables/trials.csv\n"
        )
        text = summary_text(table_of([{"lr": 1}], trials=trials[:20]))
        assert text.endswith("failed: k/19 (lr = 1): x19\n")

    def test_names_trials_with_the_same_error_once_with_their_number(self):
        trials = [
            {"key": "k", "repetition": i, "lr": 1, "status": "failed", "error": error}
            for i, error in enumerate(["x", "y", "x", "x\nmore"])
        ]
        text = summary_text(table_of([{"lr": 1}], trials=trials))
        assert text.endswith("failed: k/0 (lr = 1): x (and 2 more with the same error)\nfailed: k/1 (lr = 1): y\n")

    @pytest.mark.parametrize(
        ("n", "counted"), [(1, "1 trial with other settings is"), (7, "7 trials with other settings are")]
    )
    def test_counts_trials_of_other_settings(self, n, counted):
        text = summary_text(table_of([{"lr": 1}], n_others=n))
        assert f"{counted} kept in trials/ but not shown." in text

    @pytest.mark.parametrize("write", [summary_text, summary_markdown])
    def test_has_those_together_that_were_measured_on_the_same_data(self, tmp_path, write):
        test_set = "experiment_config.test_set"
        rows = {"a": ("here", 3.0), "b": ("there", 7.0), "c": ("here", 9.0)}
        text = write(results(tmp_path, {key: ({test_set: name, "lr": key}, [mm]) for key, (name, mm) in rows.items()}))
        assert re.findall(r"(here|there) .*%", text) == ["here", "here", "there"]
        assert "validation first; those measured on the same data are listed together." in on_one_line(text)

    @pytest.mark.parametrize("write", [summary_text, summary_markdown])
    def test_says_what_is_before_a_model_that_fuses_subsets(self, tmp_path, write):
        says = "For a model that fuses subsets, before is the error of the mean pose over the subsets."
        assert says in write(results(tmp_path / "a", {"a": ({}, [9.0])}, subsets=("fused",))).replace("\n", " ")
        assert says not in write(results(tmp_path / "b", {"a": ({}, [9.0])}, subsets=("A", "B"))).replace("\n", " ")

    @pytest.mark.parametrize(
        ("peaks", "total", "says"),
        [
            (
                [3.0, 1.0],
                24.0,
                "took up to 3.0 of the 24.0 GiB of its GPU. With 0.6 GiB for each process, 6 trials would",
            ),
            ([20.0], 24.0, "1 trial would fit"),
            ([24.0], 24.0, "1 trial would fit"),
            ([3.0, None], 80.0, "22 trials would fit on a GPU at a time (trials_per_device)"),
        ],
    )
    def test_says_how_many_trials_would_fit_on_a_gpu(self, peaks, total, says):
        described = {"key": "k", "repetition": 0, "status": "finished", "gpu_total_gib": total}
        table = table_of([{"lr": 1}], trials=[{**described, "gpu_peak_gib": peak} for peak in peaks])
        assert says in on_one_line(summary_text(table))

    def test_without_options_has_one_row(self):
        text = summary_text(table_of([{"n": 1, "val": (20.0, 10.0, None, -50.0)}]))
        assert "20.00" in text


class TestMarkdown:
    def test_is_a_table_with_a_heading(self):
        lines = summary_markdown(
            table_of([{"optimizer_args.weight_decay": None, "val": (20.0, 10.0, 1.0, -50.0)}])
        ).splitlines()
        assert lines[0] == "# my sweep"
        rows = [line for line in lines if line.startswith("|")]
        assert len(rows) == 3
        assert {line.count("|") for line in rows} == {6}
        assert rows[0].startswith("| weight\\_decay ")

    def test_escapes_a_bar_in_a_label(self):
        (row,) = [line for line in summary_markdown(table_of([{"set": "a|b"}])).splitlines() if "a\\|b" in line]
        assert row.replace("\\|", "").count("|") == 6

    def test_keeps_a_label_on_its_line(self):
        text = summary_markdown(table_of([{"set": "a\nb"}, {"set": "c"}]))
        assert [line.count("|") for line in text.splitlines() if line.startswith("|")] == [6] * 4


class TestCsv:
    @given(st.lists(st.floats(allow_nan=False), min_size=1))
    def test_keeps_every_bit_of_a_float(self, numbers):
        content = csv_bytes([{"x": number} for number in numbers]).decode()
        read = [float(row["x"]) for row in csv.DictReader(io.StringIO(content))]
        assert [number.hex() for number in read] == [number.hex() for number in numbers]

    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from(["a", "b,c"]),
                st.text(st.characters(codec="utf-8", exclude_characters="\r\0")),
                min_size=2,
            ),
            min_size=1,
        )
    )
    def test_is_read_as_it_was_written_whatever_the_text(self, rows):
        content = csv_bytes(rows).decode()
        assert list(csv.DictReader(io.StringIO(content, newline=""))) == [
            {name: f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text for name, text in row.items()}
            for row in rows
        ]

    @pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t"])
    def test_has_no_formulas_in_cells_or_headers_and_leaves_numbers_numbers(self, start):
        text = f"{start}cmd|' /C calc'!A0"
        header, row = csv.reader(io.StringIO(csv_bytes([{text: text, "x": -0.5, "n": -3}]).decode(), newline=""))
        assert header == [f"'{text}", "x", "n"]
        assert row == [f"'{text}", "-0.5", "-3"]

    def test_begins_no_row_within_a_text(self):
        assert csv_bytes([{"error": "x\r=1+1"}]) == b"error\nx\\r=1+1\n"

    def test_writes_a_nul_so_that_it_can_be_read(self):
        assert csv_bytes([{"error": "a\0b"}]) == b"error\na\\0b\n"

    def test_has_an_empty_field_for_what_is_missing(self):
        assert csv_bytes([{"a": None, "b": 1}, {"a": True, "b": 0.1}]) == b"a,b\n,1\nTrue,0.1\n"


class TestParquet:
    def test_distinguishes_an_option_that_is_none_from_a_number_that_is_missing(self):
        rows = [{"dropout": None, "decay": None, "mm": None}, {"dropout": 0.5, "decay": None, "mm": 9.5}]
        read = pq.read_table(io.BytesIO(parquet_bytes(rows, ["dropout", "decay"]))).to_pydict()
        assert read == {"dropout": ["None", "0.5"], "decay": [None, None], "mm": [None, 9.5]}

    def test_leaves_out_an_option_that_does_not_apply_so_that_numbers_remain_numbers(self):
        rows = [
            {"momentum": NOT_APPLICABLE, "model": None, "text": NOT_APPLICABLE},
            {"momentum": 0.5, "model": "x", "text": "a"},
        ]
        read = pq.read_table(io.BytesIO(parquet_bytes(rows, ["momentum", "model"]))).to_pydict()
        assert read == {"momentum": [None, 0.5], "model": ["None", "x"], "text": [NOT_APPLICABLE, "a"]}

    @given(st.lists(values, min_size=1))
    def test_holds_any_column(self, column):
        read = pq.read_table(io.BytesIO(parquet_bytes([{"x": value} for value in column])))["x"].to_pylist()
        types = {type(value) for value in column if value is not None}
        if len(types) <= 1 or types == {int, float}:
            assert read == column
        else:
            assert read == [None if value is None else str(value) for value in column]

    @pytest.mark.parametrize("column", [[10**20], [1, -(2**63) - 1], [2**63, None], [[1], [2, "x"]]])
    def test_holds_what_no_type_holds_as_text(self, column):
        read = pq.read_table(io.BytesIO(parquet_bytes([{"x": value} for value in column])))["x"].to_pylist()
        assert read == [None if value is None else str(value) for value in column]

    def test_has_a_type_for_each_column(self):
        rows = [
            {"i": 1, "f": 0.5, "s": "a", "b": True, "n": None, "m": 1},
            {"i": 2, "f": None, "s": "b", "b": False, "n": None, "m": "x"},
        ]
        schema = pq.read_table(io.BytesIO(parquet_bytes(rows))).schema
        assert {name: str(schema.field(name).type) for name in schema.names} == {
            "i": "int64",
            "f": "double",
            "s": "string",
            "b": "bool",
            "n": "null",
            "m": "string",
        }

"""Commands that read results: whatever is in their files, they end with a result or with an error in words."""

import contextlib
import io
import json
import math
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.reports.page import pictures
from cluster.results.results import Results
from cluster.storage.filesystem import Storage, StorageError
from cluster.storage.folders import ExperimentFolder
from tests.cluster_tests.experiment_files import write_examples, write_experiment, write_frames, write_records
from tests.cluster_tests.results_files import write_fold_results
from tests.cluster_tests.small_experiment import LR
from tests.cluster_tests.test_older_results import MADE
from tune_runs import report

COMMANDS = [
    *("show", "show --json", "show --intervals", "show --by subset", "show --by subject", "show --by joint"),
    *("log best", "log best --json", "curves", "diff best {key}", "compare other", "effects", "effects --json"),
    *("clean", "rm", "html --out {out}/a.html", "show --folds"),
    *(f"export table --format {kind}" for kind in ("csv", "json", "latex", "markdown", "html")),
    *(f"export {kind} --out {{out}}/a.{end}" for kind in ("table", "trials") for end in ("parquet", "xlsx")),
    *("export trials --format csv", "export table --by sequence --format csv", "export effects --format csv"),
    *(f"figure {kind} --out {{out}}/a.svg" for kind in ("curves", "joints", "heatmap", "parallel", "histogram")),
    *(f"figure {kind} --out {{out}}/a.svg" for kind in ("success", "improvement", "distance", "time", "hands")),
    "export tensorboard --out {out}/runs",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with results in `results`: of this version, on folds, in an archive, of an old version, and others."""
    root = tmp_path_factory.mktemp("damaged")
    rng = np.random.default_rng(0)
    options = [({"lr": lr, "model": model}, [9.0 + lr, 8.5, None]) for lr in (0.1, 0.2) for model in ("A", "B")]
    for name in ("plain", "archived", "other"):
        folder = write_experiment(root / "results" / name, options, n_repetitions=3)
        for trial_id in (f"{place:016x}/{repetition}" for place in range(4) for repetition in range(2)):
            write_records(folder, trial_id, [12.0, 10.0, 9.0], success=("worst", np.linspace(0, 1, 81), np.ones(81)))
        write_frames(folder, f"{0:016x}/0", *rng.uniform(5, 15, size=(2, 80)).astype(np.float32))
        write_examples(folder, f"{0:016x}/0")
        if name == "archived":
            folder.archive.add([f"{place:016x}/{repetition}" for place in range(2) for repetition in range(2)])
    write_fold_results(root / "results" / "folds", {0.1: [[9.0, 8.0], [7.0, 6.0]]}, [(10, 20), (30, 40)])
    shutil.copytree(MADE / "results" / "every_family", root / "results" / "old")
    (root / "outside").mkdir()
    (root / "out").mkdir()
    return root


def files_of(root):
    """The attackable files of all experiments but one."""
    endings = (".json", ".parquet", ".npz")
    found = (path for path in (root / "results").rglob("*") if path.name.endswith(endings))
    return sorted(path for path in found if not {"other", "tables"} & set(path.relative_to(root).parts))


def content(root):
    """Everything but what a command was told to write."""
    return {
        path: None if path.is_dir() else (path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if "out" not in path.relative_to(root).parts
    }


TEXTS = ["", "../../outside/x", "{root}/outside/x", "..", "a\0b", "\ud800", "é" * 300, "<b>", "key", "val", "DEFAULT"]
NUMBERS = ["1e18", "1e308", "-1", "1e400", "NaN", "-Infinity", "1" + 400 * "0", "9" * 19, "0", "true", "null", "1e-320"]
JSON_TEXTS = [
    *map(json.dumps, TEXTS),
    *NUMBERS,
    *("[]", "{}", "[[]]", "[null]", '{"a": 1}', '["a", "b"]', '{"name": "a.b", "args": 1}', "[1, 2, 3]"),
    *("[" * depth + "]" * depth for depth in (60, 900, 10_000)),
    *('{"a":' * depth + "1" + "}" * depth for depth in (60, 900)),
]
VALUES = [None, 0, -1, 2**31 - 1, math.inf, math.nan, 1e308, 1e39, "", "x", "../x", [1], "[" * 10_000]
NAMES = ["key", "status", "n", "val_distance_mm", "a", "..", "\ud800", "", "name", "args", "mean", "test"]


def places(content, path=()):
    """The path of every value inside a JSON value."""
    yield path
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in parts:
        yield from places(value, (*path, key))


def changed(path, place, raw):
    """The content of a file of JSON in which a value is replaced by a text."""
    whole = json.loads(path.read_bytes())
    parent = whole
    for part in place[:-1]:
        parent = parent[part]
    parent[place[-1]] = "@@"
    return json.dumps(whole).replace('"@@"', raw).encode()


def changed_json(data, draw, root):
    """Replaces or removes any value, or renames any key."""
    whole = {"": json.loads(data)}
    found = list(places(whole[""]))
    # A long list has most of the places, and all of its items are alike.
    depth = draw(st.integers(0, max(map(len, found))))
    path = draw(st.sampled_from([path for path in found if len(path) == depth] or found))
    parent, last = whole, ""
    for part in path:
        parent, last = parent[last], part
    how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename"]))
    raw = draw(st.sampled_from(JSON_TEXTS)).replace("{root}", str(root))
    if how == "rename" and isinstance(parent, dict) and path:
        parent[draw(st.sampled_from(NAMES))] = parent.pop(last)
    elif how == "remove" and path:
        del parent[last]
    else:
        parent[last] = "@@"
    return json.dumps(whole[""]).replace('"@@"', raw).encode()


def changed_bytes(data, draw):
    """Cuts the bytes, or changes one."""
    place = draw(st.integers(0, max(0, len(data) - 1)))
    if draw(st.booleans()):
        return data[:place]
    return data[:place] + bytes([draw(st.integers(0, 255))]) + data[place + 1 :]


def changed_table(data, draw):
    """Gives a column other values or another type, repeats rows, or leaves the column out."""
    table = pq.read_table(io.BytesIO(data))
    name = draw(st.sampled_from(table.column_names))
    n, place = len(table), table.column_names.index(name)
    column = table.column(name).to_pylist()
    value = draw(st.sampled_from(VALUES))
    everywhere = draw(st.booleans())
    how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "twice", "empty"]))
    if how == "remove":
        table = table.drop_columns([name])
    elif how == "twice":
        table = pa.concat_tables([table, table])
    elif how == "empty":
        table = table.slice(0, 0)
    else:
        values = [value] * n if everywhere or not n else [value, *column[1:]]
        # Arrow cannot write every value into a column; then the table stays as it is.
        with contextlib.suppress(pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            kind = None if everywhere and draw(st.booleans()) else table.schema.field(name).type
            table = table.set_column(place, name, pa.array(values, kind))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def changed_arrays(data, draw):
    """Gives an array other values, another type or another shape, or leaves it out."""
    arrays = dict(np.load(io.BytesIO(data)))
    name = draw(st.sampled_from(sorted(arrays)))
    array = arrays[name]
    how = draw(st.sampled_from(["fill", "kind", "shape", "remove"]))
    if how == "fill":
        with np.errstate(all="ignore"):
            arrays[name] = np.full_like(array, draw(st.sampled_from([0, -1, 1e38, np.inf, np.nan])))
    elif how == "kind":
        arrays[name] = array.astype(draw(st.sampled_from(["U8", "c16", "?", "i1", "f8", "M8[s]"])))
    elif how == "shape":
        arrays[name] = draw(st.sampled_from([array[:0], array[..., :1], array[None], array.ravel()]))
    else:
        del arrays[name]
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def run(arguments):
    """Runs a command; returns its exit status, and what it printed to a terminal with UTF-8."""
    printed = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    with contextlib.redirect_stdout(printed[0]), contextlib.redirect_stderr(printed[1]):
        try:
            status = report.main(arguments)
        except SystemExit as error:
            status = error.code
    return status, *(stream.buffer.getvalue().decode() for stream in printed)


def attack(root, path, data, commands):
    """Runs commands on results in which a file has other content; then the file is as it was."""
    before = path.read_bytes()
    name = path.relative_to(root / "results").parts[0]
    storage = ["--storage-path", str(root / "results")]
    path.write_bytes(data)
    there = content(root)
    try:
        for command in commands:
            words = command.format(out=root / "out", key=f"{1:016x}").split()
            status, _, error = run([words[0], name, *words[1:], *storage])
            assert status in (0, 2), command
            assert (status == 2) == ("error: " in error), (command, error)
            shutil.rmtree(root / "out")
            (root / "out").mkdir()
        status, listed, error = run(["list", *storage])
        assert (status, error) == (0, "")
        assert next(line for line in listed.splitlines() if line.startswith("other")).split()[1] == "unfinished"
        assert content(root) == there
    finally:
        path.write_bytes(before)


@pytest.fixture
def not_rendered(monkeypatch):
    """Leaves out what most of the time goes to: the rendering of figures whose numbers are not damaged."""
    monkeypatch.setattr(pictures, "save", lambda *args, **how: b"")


BRIEF = ["show --json", "log best", "compare other", "html --out {out}/a.html", "export tensorboard --out {out}/runs"]

EXPERIMENT = [
    *(("started", raw) for raw in ("1e18", "NaN", '"now"')),
    *(("git", "5"), ("versions", "[5]"), ("machine", '"x"'), ("configs", "5"), ("command", "[5]"), ("data", '"x"')),
    *(("options", raw) for raw in ("{}", "[{}]", '[{"paths": [], "rows": [[]]}]')),
    *(("separations", raw) for raw in ("[5]", '[{"val": ["a_val", []], "train": ["x", null]}]')),
    ("git", '{"commit": ["x"], "dirty": "no"}'),
    ("data", '[{"name": [], "size": {}, "samples": "many"}]'),
    ("configs", '{"experiment_config": {"test_set": ["x"]}}'),
    ("name", '"\\ud800"'),
]


@pytest.mark.usefixtures("not_rendered")
@pytest.mark.parametrize(("name", "raw"), EXPERIMENT)
def test_a_value_of_a_wrong_type_in_an_experiment_is_named_and_the_rest_is_shown(root, name, raw):
    path = root / "results" / "plain" / "experiment.json"
    attack(root, path, changed(path, (name,), raw), BRIEF)


@pytest.mark.usefixtures("not_rendered")
@pytest.mark.parametrize("option", ["key", "status", "n", "seed", "val_distance_mm", "error"])
def test_an_option_that_is_named_like_a_column_is_an_error(root, option):
    path = root / "results" / "plain" / "experiment.json"
    attack(root, path, path.read_bytes().replace(b'"lr"', json.dumps(option).encode()), BRIEF)


@pytest.mark.usefixtures("not_rendered")
@pytest.mark.parametrize("key", ["../../outside/x", "{root}/outside/x", "..", ".", "", "a/0", "a\\", "a" * 300, "é"])
def test_a_key_that_could_lead_elsewhere_writes_nothing_there(root, key):
    path = root / "results" / "plain" / "experiment.json"
    data = changed(path, ("plan", "combinations", 0, "key"), json.dumps(key.replace("{root}", str(root))))
    attack(root, path, data, BRIEF)


@pytest.mark.parametrize("raw", ["1" + 400 * "0", "1e308", "NaN", '"9"', "null"])
def test_a_distance_that_is_no_distance_makes_a_trial_unfinished(root, raw):
    path = next((root / "results" / "plain").rglob("trial.json"))
    attack(root, path, changed(path, ("metrics", "val", "mean", "distance"), raw), BRIEF)


@pytest.mark.usefixtures("not_rendered")
@pytest.mark.parametrize(
    "rows", [[None], [["{}"]], ["[]"], ["[" * 10_000], ['{"a":' * 10_000], [5], [b"\xff"], [], ["{}"] * 1_001]
)
def test_an_archive_with_other_rows_is_broken_and_says_what_to_remove(root, rows):
    path = next((root / "results" / "archived").rglob("*.trials.parquet"))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"trial_id": [f"{0:016x}/{i}" for i in range(len(rows))], "trial_json": rows}), buffer)
    attack(root, path, buffer.getvalue(), BRIEF)


class TestARunOfItsScript:
    """Of a small experiment with two finished trials, one of which is broken."""

    def run(self, small_experiment):
        return [row["status"] for row in small_experiment.run({}, {LR: [1e-3, 1e-2]}).trials]

    @pytest.mark.parametrize(
        "place", [("started",), ("plan", "combinations", 0, "key"), ("configs",), ("data",), ("git",)], ids=str
    )
    def test_writes_a_broken_description_anew(self, finished_experiment, place):
        path = finished_experiment.folder / "experiment.json"
        path.write_bytes(changed(path, place, "1e400"))
        assert self.run(finished_experiment) == ["finished", "finished"]
        assert Results.read(ExperimentFolder(Storage(finished_experiment.folder))).warnings == []

    @pytest.mark.parametrize("raw", ["1" + 400 * "0", "1e308", "[]"])
    def test_trains_a_trial_with_broken_results_again(self, finished_experiment, raw):
        path = next(finished_experiment.folder.rglob("trial.json"))
        before = json.loads(path.read_bytes())["metrics"]
        path.write_bytes(changed(path, ("metrics", "val", "mean", "distance"), raw))
        assert self.run(finished_experiment) == ["finished", "finished"]
        assert json.loads(path.read_bytes())["metrics"] == before

    def test_says_which_folders_to_remove(self, finished_experiment):
        with Storage(finished_experiment.folder).opened("trials/" + "/".join("d" * 40), make=True):
            pass
        storage = str(finished_experiment.storage_path)
        with pytest.raises(StorageError, match=r"trials/d/d has folders in folders.*remove it"):
            self.run(finished_experiment)
        assert run(["show", "small_experiment", "--storage-path", storage])[0] == 2
        assert "broken" in run(["list", "--storage-path", storage])[1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large, HealthCheck.too_slow])
@given(data=st.data())
def test_a_damaged_file_ends_every_command_with_a_result_or_an_error_and_changes_nothing(root, data):
    path = data.draw(st.sampled_from(files_of(root)), label="file")
    before = path.read_bytes()
    if data.draw(st.booleans()):
        damaged = changed_bytes(before, data.draw)
    elif path.suffix == ".json":
        damaged = changed_json(before, data.draw, root)
    else:
        damaged = (changed_table if path.suffix == ".parquet" else changed_arrays)(before, data.draw)
    commands = data.draw(st.lists(st.sampled_from(COMMANDS), min_size=2, max_size=2, unique=True))
    attack(root, path, damaged, commands)

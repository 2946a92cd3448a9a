"""Commands that read results: whatever is in their files, they end with a result or with an error in words."""

import io
import json

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
from tests.cluster_tests.small_experiment import LR
from tests.fuzz import COMMANDS, content, damaged, files_of, is_clean, lists_healthy, run, write_root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with damageable results."""
    root = tmp_path_factory.mktemp("damaged")
    write_root(root)
    return root


def changed(path, place, raw):
    """The content of a file of JSON in which a value is replaced by a text."""
    whole = json.loads(path.read_bytes())
    parent = whole
    for part in place[:-1]:
        parent = parent[part]
    parent[place[-1]] = "@@"
    return json.dumps(whole).replace('"@@"', raw).encode()


def attack(root, path, data, commands):
    """Runs commands on results in which a file has other content; then the file is as it was."""
    before = path.read_bytes()
    name = path.relative_to(root / "results").parts[0]
    path.write_bytes(data)
    there = content(root)
    try:
        for command in commands:
            status, _, error = run(root, name, command)
            assert is_clean(status, error), (command, error)
        status, listed, error = run(root, name, "list")
        assert (status, "error: " in error) == (0, False)
        assert lists_healthy(listed)
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


@pytest.mark.usefixtures("not_rendered")
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


@pytest.mark.usefixtures("not_rendered")
def test_trials_whose_records_an_archive_has_twice_count_once(root):
    path = next((root / "results" / "archived").rglob("*.records.parquet"))
    table, buffer = pq.read_table(path), io.BytesIO()
    pq.write_table(pa.concat_tables([table, table]), buffer)
    attack(root, path, buffer.getvalue(), BRIEF)


@pytest.mark.parametrize(("name", "value"), [("predictions_mm", np.inf), ("inputs_mm", -1e30), ("labels_mm", np.nan)])
def test_coordinates_that_no_hand_has_are_no_warnings_of_numpy(root, name, value):
    path = next((root / "results" / "plain").rglob("examples.npz"))
    arrays, buffer = dict(np.load(path)), io.BytesIO()
    np.savez(buffer, **arrays | {name: np.full_like(arrays[name], value)})
    attack(root, path, buffer.getvalue(), ["html --out {out}/a.html", "figure hands --out {out}/a.svg"])


@pytest.mark.usefixtures("not_rendered")
@pytest.mark.parametrize(
    "command",
    [
        *("show", "log best", "curves", "diff best {key}", "compare other", "effects", "html --out {out}/a.html"),
        *("export table --format csv", "export tensorboard --out {out}/runs", "figure curves --out {out}/a.svg"),
        "list",
    ],
)
def test_each_command_warns_of_a_value_that_it_ignores(root, command):
    path = root / "results" / "plain" / "experiment.json"
    before = path.read_bytes()
    path.write_bytes(changed(path, ("data",), "5"))
    try:
        status, _, error = run(root, "plain", command)
    finally:
        path.write_bytes(before)
    expected = "warning: plain: 1 value ignored as invalid" if command == "list" else "warning: experiment.json: data"
    assert (status, error.count(expected)) == (0, 1)


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
        root = finished_experiment.storage_path.parent
        with pytest.raises(StorageError, match=r"trials/d/d has folders in folders.*remove it"):
            self.run(finished_experiment)
        assert run(root, "small_experiment", "show")[0] == 2
        assert "broken" in run(root, "small_experiment", "list")[1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large, HealthCheck.too_slow])
@given(data=st.data(), rng=st.randoms())
def test_a_damaged_file_ends_every_command_with_a_result_or_an_error_and_changes_nothing(root, data, rng):
    path = data.draw(st.sampled_from(files_of(root)), label="file")
    commands = data.draw(st.lists(st.sampled_from(COMMANDS), min_size=2, max_size=2, unique=True))
    attack(root, path, damaged(path, rng, root), commands)

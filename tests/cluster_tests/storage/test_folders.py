import json
import math
import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.storage import file_names
from cluster.storage.experiment_file import NoResultsError
from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.storage.trial_file import STATUSES, TrialFile
from tests.cluster_tests.storage.test_json_object import JSON_VALUES


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path):
    location = tmp_path / "x" if request.param == "local" else f"fsspec+memory:///{uuid.uuid4().hex}/x"
    return ExperimentFolder(Storage(location))


FINISHED = TrialFile(
    key="key",
    repetition=0,
    status="finished",
    options={"ü": [1, "–"]},
    best_epoch=3,
    metrics={"val": {"mean": {"distance": 0.1 + 0.2, "distance_before": 1}}},
)


class TestATrialsFile:
    @pytest.mark.parametrize(
        "content",
        [
            FINISHED,
            TrialFile(status="interrupted", epochs=2, description={"a": None}),
            TrialFile(status="failed", error="E", traceback="T", ended=1.5),
        ],
    )
    def test_is_read_as_it_was_written_with_all_digits(self, folder, content):
        trial = folder.trial("key/0")
        trial.write_trial(content)
        assert trial.read_trial() == content

    def test_is_for_people_too(self, folder):
        folder.trial("key/0").write_trial(FINISHED)
        assert '\n  "ü": [\n   1,\n   "–"\n  ]\n' in folder.storage.read("trials/key/0/trial.json").decode()

    @pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b'{"status": "fini', b"[" * 100_000])
    def test_that_is_missing_or_broken_is_that_of_a_pending_trial(self, folder, content):
        assert folder.trial("key/0").read_trial() == TrialFile()
        folder.storage.write("trials/key/0/trial.json", content)
        folder.storage.write("experiment.json", content)
        found = folder.trial("key/0").read_trial()
        assert found.problems
        assert found._replace(problems=()) == TrialFile()
        with pytest.raises(NoResultsError, match="is missing or broken"):
            folder.read_experiment()

    def test_keeps_what_is_valid_of_a_file_with_other_types(self, folder):
        invalid = {"key": 5, "seed": "5", "epochs": None, "pid": True, "options": []}
        content = json.loads(FINISHED.to_json()) | invalid | {"started": 7, "device": "cpu"}
        folder.storage.write("trials/key/0/trial.json", json.dumps(content).encode())
        found = folder.trial("key/0").read_trial()
        assert found._replace(problems=()) == FINISHED._replace(key=None, options={}, started=7, device="cpu")
        assert found.problems == (
            "key is not valid: expected `str | null`, got `int`",
            "seed is not valid: expected `int | null`, got `str`",
            "options is not valid: expected `object`, got `array`",
            "pid is not valid: expected `int | null`, got `bool`",
        )

    @pytest.mark.parametrize(
        ("content", "status"),
        [
            ({}, "interrupted"),
            *(({"status": status}, "interrupted") for status in ("running", "bogus", None, [1], "finished")),
            *(({"status": status}, status) for status in STATUSES if status != "finished"),
        ],
    )
    def test_tells_the_status(self, content, status):
        assert TrialFile.from_json(json.dumps(content)).status == status


def read_or_error(data, **how):
    try:
        return repr(TrialFile.from_json(data, **how)._replace(options={}, description={}, normalizer=None))
    except ValueError as error:
        return repr(error)


VALUES = JSON_VALUES | st.sampled_from([0, -1, 10**400, 1e300, math.inf, True, {"val": {}}, {"mean": {}}, "finished"])
PLACES = [("metrics", *inner) for inner in ((), ("val",), ("val", "mean"), ("val", "mean", "distance"), ("val", "A"))]
PLACES += [("description", "inner"), *((name,) for name in (*TrialFile._fields, "run"))]


class TestATrialsFileThatIsReadWithoutItsDescription:
    @pytest.mark.parametrize("content", [FINISHED, FINISHED._replace(runs=("beef",), description={"a": [1, {}]})])
    def test_is_that_of_the_whole_file_otherwise(self, content):
        found = TrialFile.from_json(content.to_json(), is_described=False)
        assert found == content._replace(options={}, description={}, normalizer=None)

    @given(st.sampled_from(PLACES), VALUES, st.none() | st.integers(0, 1500), st.binary(max_size=2))
    def test_is_the_same_for_any_edited_or_damaged_file(self, path, value, place, damage):
        content = json.loads(FINISHED._replace(runs=("beef",), description={"a": [1, {}]}).to_json())
        at = content
        for name in path[:-1]:
            at = at[name]
        at[path[-1]] = value
        data = json.dumps(content).encode()
        data = data if place is None else data[:place] + damage + data[place + 1 :]
        assert read_or_error(data, is_described=False) == read_or_error(data)

    @staticmethod
    def described(inner):
        content = FINISHED._replace(runs=("beef",)).to_json()
        return content.replace('"description": {}', f'"description": {{"a": {inner}}}')

    @pytest.mark.parametrize("inner", ["[" * 100_000, r'"\ud800"', r'"\q"', "1e999", "NaN", "9" * 400])
    def test_is_the_same_for_any_description(self, inner):
        text = self.described(inner)
        assert read_or_error(text, is_described=False) == read_or_error(text)

    def test_may_have_one_that_is_nested_too_deeply_to_be_read(self):
        text = self.described("[" * 60 + "]" * 60)
        assert TrialFile.from_json(text, is_described=False).status == "finished"
        with pytest.raises(ValueError, match="nested too deeply"):
            TrialFile.from_json(text)


def status(trial):
    return trial.status


class TestTrials:
    def test_are_those_that_have_a_file(self, folder):
        assert folder.read_trials(status) == {}
        for trial_id in ("b/1", "a/0", "a/10", "a/2"):
            folder.trial(trial_id).write("weights.pt", b"")
        folder.trial("a/2").write_trial(FINISHED)
        folder.trial("b/1").write_trial(FINISHED)
        folder.storage.write("trials/a/notes.txt", b"")
        folder.storage.write("trials/README", b"")
        statuses = {"a/0": "pending", "a/10": "pending", "a/2": "finished", "b/1": "finished"}
        assert folder.read_trials(status) == statuses
        # Trials that are not requested are not read.
        assert folder.read_trials(status, lambda trial_id: trial_id == "b/1") == {**statuses, "a/2": "pending"}


class TestTheOtherFiles:
    def test_are_read_as_they_were_written_and_removed(self, folder):
        trial = folder.trial("a/0")
        assert trial.read("weights.pt") is None
        trial.write("plots/epoch_00001.png", b"1")
        assert folder.trial("a/0").read("plots/epoch_00001.png") == b"1"
        trial.remove("plots/epoch_00001.png")
        trial.remove("plots/epoch_00001.png")
        assert trial.read("plots/epoch_00001.png") is None
        folder.write_table("summary.md", b"2")
        assert folder.storage.read("tables/summary.md") == b"2"

    def test_are_without_those_of_a_killed_writer_after_clearing(self, tmp_path):
        folder = ExperimentFolder(Storage(tmp_path))
        partial = ["trials/a/0/.trial.json.1.partial", "trials/a/0/plots/.epoch_00001.png.1.partial"]
        partial += [".experiment.json.1.partial", "tables/.trials.csv.1.partial"]
        for name in [*partial, "trials/a/0/trial.json", "tables/trials.csv"]:
            folder.storage.write(name, b"")
        folder.clear_partial_files()
        folder.trial("a/0").clear_partial_files()
        files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
        assert files == ["tables/trials.csv", "trials/a/0/trial.json"]

    def test_of_a_remote_trial_have_no_path_here(self, folder, tmp_path):
        trial = folder.trial("a/0")
        assert trial.local in (None, tmp_path / "x" / "trials" / "a" / "0")
        trial.clear_partial_files()
        folder.clear_partial_files()


def test_every_file_name_of_the_program_stands_in_the_modules_docstring():
    names = set(re.findall(r"^ +(\S+?)/? {2,}", file_names.__doc__, re.MULTILINE))
    assert names == {
        *("experiment.json", "trial.json", "records.parquet", "weights.pt", "examples.npz", "plots"),
        *("frames.parquet", "checkpoint.pt", "state.pt", "archive", "tables", "report.html", "hang.txt", ".lock"),
        *("training_frames", "runs", "race", "search"),
    }
    constants = {value for name, value in vars(FileNames).items() if name.isupper()}
    assert constants == names | {"trials", "lease"}  # these two are inside other lines

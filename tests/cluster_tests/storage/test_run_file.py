import json

import pytest

from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.storage.run_file import POSETUNE, SCRIPT, Commit, RunFile, different_origins

RUN = RunFile(
    started=1_790_000_000.5,
    versions={"python": "3.11.7", "torch": "2.13.0+cpu", "ray": None, "posetune": "0.5.0"},
    machine={"host": "here", "processor": "x86_64", "cpu_cores": 2},
    command=["sweep.py", "--lr", "ü"],
    git={SCRIPT: Commit("0123abc", dirty=True), POSETUNE: Commit("f" * 40, dirty=None)},
    code="8bc272896aad",
)


@pytest.fixture
def folder(tmp_path):
    return ExperimentFolder(Storage(tmp_path / "sweep"))


class TestARunFile:
    def test_is_read_as_it_was_written(self, folder):
        folder.write_run("0123abcd", RUN)
        assert folder.read_run("0123abcd") == RUN
        assert folder.read_runs() == {"0123abcd": RUN}

    @pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000])
    def test_that_is_broken_is_none(self, folder, content):
        folder.storage.write("runs/0123abcd.json", content)
        assert folder.read_run("0123abcd") is None
        assert folder.read_runs() == {}

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(("started", value) for value in ("now", -1, 1e18, float("nan"), float("inf"), 10**400)),
            *((name, value) for name in ("versions", "machine", "git") for value in ([], "text", 1)),
            *(("command", value) for value in ("sweep.py", [1], {})),
            ("code", 5),
            *(("git", {SCRIPT: value}) for value in ("abc", None, {}, {"commit": "x; rm -rf ."}, {"commit": 12345})),
        ],
    )
    def test_keeps_the_rest_if_a_part_is_not_valid(self, name, value):
        content = json.loads(RUN.to_json())
        content[name] = value
        missing = RunFile.of({key: item for key, item in json.loads(RUN.to_json()).items() if key != name})
        assert RunFile.of(content) == missing

    @pytest.mark.parametrize("run_id", ["../../secret", "/etc/passwd", "", "ABC", "a" * 65, None, 7])
    def test_has_an_id_that_is_not_a_path(self, folder, run_id):
        folder.storage.write("secret.json", b"{}")
        assert folder.read_run(run_id) is None

    def test_may_be_in_the_description_of_the_experiment_that_version_0_4_0_wrote(self, folder):
        plan = {"seeds": [1], "combinations": [{"key": "a", "options": {}}]}
        content = {"name": "sweep", "configs": {}, "options": [], "plan": plan}
        content |= {"run": "0123abcd", "versions": {"posetune": "0.4.0"}, "git": {"commit": "0123abc", "dirty": False}}
        folder.write_experiment(content)
        assert folder.read_runs() == {
            "0123abcd": RunFile(versions={"posetune": "0.4.0"}, git={"working_folder": Commit("0123abc", False)})
        }
        folder.write_run("0123abcd", RUN)
        assert folder.read_runs() == {"0123abcd": RUN}
        folder.write_experiment(content | {"run": "../x"})
        assert folder.read_runs() == {"0123abcd": RUN}


def test_origins_differ_in_what_numbers_depend_on():
    def changed(part, **facts):
        return RunFile.of({**json.loads(RUN.to_json()), part: {**getattr(RUN, part), **facts}})

    def with_script(commit):
        return RunFile.of({**json.loads(RUN.to_json()), "git": {SCRIPT: {"commit": commit, "dirty": False}}})

    assert different_origins([RUN, RUN]) == different_origins([RUN]) == different_origins([]) == ""
    assert different_origins([RUN, changed("versions", torch="2.14.0")]) == "torch 2.13.0+cpu and 2.14.0"
    assert different_origins([RUN, changed("versions", posetune="0.6.0")]) == (
        "PoseTune 0.5.0 (code 8bc272896aad) and 0.6.0 (code 8bc272896aad)"
    )
    assert different_origins([RUN, changed("machine", processor="aarch64"), RUN]) == "processor x86_64 and aarch64"
    assert different_origins([RUN, changed("versions", python="3.11.9", ray="3")]) == ""
    assert different_origins([RUN, changed("machine", host="there"), with_script("fedc")]) == ""
    assert different_origins([RUN, RunFile()]) == ""

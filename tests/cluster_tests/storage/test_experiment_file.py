import copy
import json

import pytest

from cluster.storage.experiment_file import ExperimentFile
from tests.cluster_tests.test_older_results import MADE

CONTENT = json.loads((MADE / "results" / "every_family" / "experiment.json").read_text(encoding="utf-8"))


def read(**changes):
    return ExperimentFile.from_json(json.dumps({**copy.deepcopy(CONTENT), **changes}))


class TestAnExperimentsFile:
    def test_of_an_old_version_is_valid(self):
        found = read()
        assert found.problems == []
        assert [combination.key for combination in found.plan.combinations] == [
            combination["key"] for combination in CONTENT["plan"]["combinations"]
        ]
        assert [entry.fingerprint for entry in found.data] == [entry["fingerprint"] for entry in CONTENT["data"]]
        assert found.configs == CONTENT["configs"]
        ((run_id, run),) = found.run_of_0_4_0.items()
        assert (run_id, run.versions, run.started) == (CONTENT["run"], CONTENT["versions"], CONTENT["started"])

    @pytest.mark.parametrize(
        ("name", "value", "problem"),
        [
            ("data", [{"name": "x"}], "data[0] is not valid: object missing required field `samples`"),
            (
                "data",
                [CONTENT["data"][0] | {"samples": "many"}],
                "data[0].samples is not valid: expected `int`, got `str`",
            ),
        ],
    )
    def test_lacks_what_is_not_valid_and_names_it(self, name, value, problem):
        found = read(**{name: value})
        assert found.problems == [problem]
        missing = ExperimentFile.from_json(json.dumps({key: item for key, item in CONTENT.items() if key != name}))
        assert getattr(found, name) == getattr(missing, name)
        assert found.plan == missing.plan

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"name": 1}, "name is not valid"),
            ({"configs": {"experiment_config": 1}}, r"configs\[\.\.\.\] is not valid"),
            ({"options": [{"paths": ["a"], "rows": [[1, 2]]}]}, "options has rows with more or fewer values"),
            ({"options": [{"paths": ["a"], "rows": [[1]]}] * 1_001}, "options are more than 1,000"),
            (
                {"options": [{"paths": ["a"], "rows": [[1]], "when": [[0, [0]]]}]},
                "on an option that does not come before",
            ),
            (
                {"options": [{"paths": ["a"], "rows": [[1]]}, {"paths": ["b"], "rows": [[1]], "when": [[0, [1]]]}]},
                "conditions of .* that name no row",
            ),
            ({"plan": {"seeds": [], "combinations": []}}, r"plan\.seeds is not valid"),
            ({"plan": {"seeds": [1], "combinations": [{"key": "../x", "options": {}}]}}, r"combinations\[0\]\.key"),
            ({"plan": {"seeds": [1], "combinations": [{"key": "a", "options": {"b": []}}]}}, r"options\[\.\.\.\]"),
            ({"plan": {"seeds": [1], "combinations": [{"key": "a", "options": {}}] * 2}}, "a key twice"),
            ({"plan": {"seeds": [1] * 1_001, "combinations": [{"key": "a", "options": {}}]}}, None),
        ],
    )
    def test_without_a_valid_plan_is_an_error_that_names_what_is_wrong(self, changes, problem, monkeypatch):
        monkeypatch.setattr("cluster.storage.experiment_file.MAX_TRIALS", 1_000)
        with pytest.raises(ValueError, match=problem or "plan has more than 1,000 trials"):
            read(**changes)

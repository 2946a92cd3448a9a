"""The user's own classes: found by name, with the place and a hash of their code."""

import importlib
import linecache
import sys

import pytest

from cluster.planning import own_code
from cluster.planning.own_code import definition, own_objects, source_hash
from posenet.models import CorrectorMLP
from tests.cluster_tests.small_experiment import LR, FailingMLP, NanLoss

CODE = '''from posenet.models import CorrectorMLP

class Base(CorrectorMLP):
    """{says}"""
    factor = {factor}

class Mine(Base):
    {comment}
    def correction(self, poses):
        return {times} * super().correction(poses)
'''


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes the code of a module and imports it anew, as the next start of a script does."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(**parts):
        (tmp_path / "mine.py").write_text(
            CODE.format(**{"factor": 1, "comment": "", "times": 1.0, "says": "A base class."} | parts)
        )
        sys.modules.pop("mine", None)
        linecache.clearcache()
        importlib.invalidate_caches()
        return importlib.import_module("mine").Mine

    yield write
    sys.modules.pop("mine", None)


class TestOwnObjects:
    def test_are_those_that_are_neither_posetunes_nor_torchs(self):
        names = ["torch.optim.adam.Adam", "posenet.models.corrector_mlp.CorrectorMLP", "HANDS17", "no.such.Model"]
        own = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in (FailingMLP, NanLoss)}
        assert own_objects([*names, *own, "os.path.join", "json.decoder.JSONDecoder"]) == own

    def test_have_a_file_and_a_line(self):
        assert definition(FailingMLP).startswith("tests/cluster_tests/small_experiment.py:")
        assert definition(NanLoss()) == definition(NanLoss)
        assert definition(type("Made", (), {"__module__": "nowhere"})) == "nowhere.Made"


class TestTheHashOfTheCode:
    @pytest.mark.parametrize(
        ("parts", "same"),
        [
            ({}, True),
            ({"comment": "# says why"}, True),
            ({"comment": "'A docstring.'"}, True),
            ({"says": "Another docstring."}, True),
            ({"times": 2.0}, False),
            ({"factor": 2}, False),
        ],
    )
    def test_changes_with_the_code_of_the_class_and_its_bases_and_not_with_texts(self, write, parts, same):
        before = source_hash(write())
        assert before is not None
        assert (source_hash(write(**parts)) == before) == same

    def test_is_unknown_without_source(self):
        assert source_hash(type("Made", (), {"__module__": "nowhere"})) is None


class TestAClassThatChangedUnderItsName:
    def test_trains_nothing_and_the_plan_says_so_and_what_to_do(self, small_experiment, write, capsys):
        options = {"model": [CorrectorMLP, write()], LR: [1e-3, 1e-2]}
        small_experiment.run(options=options)
        assert not small_experiment.experiment(options=options).plan().warnings

        options["model"] = [CorrectorMLP, write(times=2.0)]
        plan = small_experiment.experiment(options=options).plan()
        (warning,) = plan.warnings
        assert warning.startswith("the code of mine.Mine has changed since 2 trials were trained with it")
        assert "give the experiment another name, or remove it with posetune report rm" in warning
        assert not plan.to_train
        capsys.readouterr()
        small_experiment.run(options=options)
        assert warning in capsys.readouterr().err

    def test_has_the_same_key(self, small_experiment, write):
        keys = {small_experiment.key({"base_hyperparams.model": write(times=times)}) for times in (1.0, 2.0)}
        assert len(keys) == 1


def test_the_names_of_ten_thousand_combinations_are_looked_up_once(monkeypatch):
    looked_up = []
    monkeypatch.setattr(own_code, "_imported", looked_up.append)
    own_code.own_sources(f'{{"name":"a.B","lr":{i}}}' for i in range(10_000))
    assert looked_up == ["a.B"]

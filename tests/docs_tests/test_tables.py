"""The tables in the documents agree with the code."""

import inspect
import runpy

import pytest

from data_pipeline import distorters, normalizers
from data_pipeline.distorters import Distorter
from data_pipeline.normalizers import Normalizer
from posenet import models
from posenet.models import Corrector
from tests.support import ROOT, members

TABLES = runpy.run_path(str(ROOT / "docs" / "tables.py"))


def test_tables_are_what_the_code_says():
    assert (ROOT / "docs" / "tables.md").read_text() == TABLES["text"](), "run `python docs/tables.py`"


@pytest.mark.parametrize(
    ("module", "base"),
    [(distorters, Distorter), (normalizers, Normalizer), (models, Corrector)],
    ids=lambda value: value.__name__ if inspect.ismodule(value) else "",
)
def test_the_page_of_run_scripts_has_a_row_for_every_member_of_a_family(module, base):
    lines = (ROOT / "tune_runs" / "README.md").read_text().splitlines()
    missing = [m.__name__ for m in members(module, base) if not any(f"| `{m.__name__}" in line[:80] for line in lines)]
    assert missing == []

import importlib.util

import pytest

from tests.support import ROOT


@pytest.fixture(scope="session")
def script():
    """The script prepare_data.py as a module."""
    path = ROOT / "tune_runs" / "prepare_data.py"
    spec = importlib.util.spec_from_file_location("prepare_data", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def run(script, data_dir, capsys):
    """Runs the script in this process and returns exit status, stdout and stderr."""

    def run(*arguments):
        status = script.main([*map(str, arguments), "--data-dir", str(data_dir)])
        return status, *capsys.readouterr()

    return run

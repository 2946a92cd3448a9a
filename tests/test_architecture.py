"""The floors of the house, from the imports themselves."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the lowest to the highest.
FLOORS = ["data_pipeline", "posenet", "cluster", "tune_runs"]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))}


def floor_of(module):
    return FLOORS.index(module.partition(".")[0])


@cache
def imports(module):
    """Names of all modules that a module imports, at its top or within a function."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import does not show its floor"
            # What is imported from a package may be one of its modules.
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            names |= submodules or {node.module}
    return names


def own_imports(module):
    return imports(module) & MODULES.keys()


def packages_around(module):
    package = module.rpartition(".")[0]
    return {package} & MODULES.keys()


def reached_from(module, *, step):
    """All modules that can be reached from a module by steps, itself included."""
    reached, to_visit = set(), [module]
    while to_visit:
        module = to_visit.pop()
        if module not in reached:
            reached.add(module)
            to_visit += step(module)
    return reached


def imported_packages(module):
    return {name.partition(".")[0] for name in imports(module)}


def test_there_is_something_on_every_floor():
    assert {floor_of(module) for module in MODULES} == set(range(len(FLOORS)))
    assert own_imports("posenet.solver") >= {"posenet.errors", "posenet.evaluator", "data_pipeline.loader"}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_floor_and_those_below(module):
    above = {other for other in own_imports(module) if floor_of(other) > floor_of(module)}
    assert not above


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("tune_runs.")])
def test_a_script_imports_no_other_script(module):
    assert not {other for other in own_imports(module) if other.startswith("tune_runs")}


@pytest.mark.parametrize("module", MODULES)
def test_no_import_leads_back_to_where_it_started(module):
    leading_back = {other for other in own_imports(module) if module in reached_from(other, step=own_imports)}
    assert not leading_back


@pytest.mark.parametrize("floor", [floor for floor in FLOORS if floor != "tune_runs"])
def test_a_floor_opens_with_a_docstring_and_imports_nothing(floor):
    body = ast.parse((ROOT / floor / "__init__.py").read_text(encoding="utf-8")).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)
    assert isinstance(body[0].value, ast.Constant)
    assert isinstance(body[0].value.value, str)


def test_scripts_are_no_package():
    assert not list((ROOT / "tune_runs").rglob("__init__.py"))


def test_four_files_alone_import_ray():
    importing = [module for module in MODULES if "ray" in imported_packages(module)]
    assert importing == ["cluster.ray_nodes", "cluster.ray_runner", "cluster.ray_session", "cluster.ray_worker"]


def test_what_a_node_tells_of_itself_needs_nothing_but_python():
    tree = ast.parse(MODULES["cluster.node_facts"].read_text(encoding="utf-8"))
    at_the_top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in at_the_top if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in at_the_top if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_a_solver_knows_neither_ray_nor_folders():
    assert not imported_packages("posenet.solver") & {"ray", "pathlib", "os", "pyarrow"}


def test_what_reads_results_imports_neither_torch_nor_ray():
    # Importing a module runs the packages around it too. `report.py reproduce` trains, `figure --labels` reads poses:
    # what needs torch is imported when it is asked for, with an error that says so where torch is missing.
    need_torch = {"cluster.reproduction", "cluster.reports.prediction_files"}
    readers = reached_from(
        "tune_runs.report", step=lambda module: (own_imports(module) | packages_around(module)) - need_torch
    )
    assert "cluster.result_table" in readers
    assert {module for module in readers if imported_packages(module) & {"torch", "ray"}} == set()


def test_report_starts_without_torch_and_ray():
    """In a fresh process, where nothing else has imported them, third-party packages included."""
    program = f"""
import runpy, sys
runpy.run_path({str(ROOT / "tune_runs" / "report.py")!r}, run_name="report")
print(*sorted({{"torch", "ray", "cluster.result_table"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.split() == ["cluster.result_table"]

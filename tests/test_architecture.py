"""The layout of the code, checked from its imports."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter

import pytest

from tests.support import ROOT

# From the lowest to the highest.
FLOORS = ["data_pipeline", "posenet", "cluster", "tune_runs"]

# The packages that read results, and those that train.
READING = ("cluster.results", "cluster.figures", "cluster.reports")
TRAINING = ("cluster.planning", "cluster.trial", "cluster.executors")


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))}
PACKAGES = {module for module, path in MODULES.items() if path.name == "__init__.py"}


def floor_of(module):
    return FLOORS.index(module.partition(".")[0])


def folder_of(module):
    return module if module in PACKAGES else module.rpartition(".")[0]


def is_in(module, folders):
    return any(f"{module}.".startswith(f"{folder}.") for folder in folders)


@cache
def tree(module):
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def imports(module):
    """Names of all modules that a module imports, at the top or inside a function."""
    names = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import does not show its floor"
            # A name that is imported from a package may be one of its modules.
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            names |= submodules or {node.module}
    return names


def own_imports(module):
    return imports(module) & MODULES.keys()


def arrows() -> Iterator[tuple[str, str]]:
    """All pairs of a module and one that it imports."""
    return ((module, other) for module in MODULES for other in own_imports(module))


def packages_around(module):
    return {folder_of(module)} & PACKAGES


def reached_from(*modules, step):
    """All modules that can be reached from these by imports, including these."""
    reached, to_visit = set(), list(modules)
    while to_visit:
        module = to_visit.pop()
        if module not in reached:
            reached.add(module)
            to_visit += step(module)
    return reached


def imported_packages(module):
    return {name.partition(".")[0] for name in imports(module)}


def test_there_are_modules_on_every_floor_and_their_imports_are_seen():
    assert {floor_of(module) for module in MODULES} == set(range(len(FLOORS)))
    assert own_imports("posenet.solver") >= {"posenet.errors", "posenet.evaluator", "data_pipeline.loader"}


def test_a_module_imports_only_from_its_floor_and_those_below():
    assert [(module, other) for module, other in arrows() if floor_of(other) > floor_of(module)] == []


def test_a_script_imports_no_other_script():
    assert [(module, other) for module, other in arrows() if other.startswith("tune_runs")] == []


def test_no_import_leads_back_to_where_it_started():
    TopologicalSorter({module: own_imports(module) for module in MODULES}).prepare()


def test_imports_between_folders_of_cluster_run_one_way():
    folders = defaultdict(set)
    for module, other in arrows():
        if is_in(module, ["cluster"]) and is_in(other, ["cluster"]) and folder_of(module) != folder_of(other):
            folders[folder_of(module)].add(folder_of(other))
    assert len(folders) > 10
    TopologicalSorter(folders).prepare()


def test_what_reads_results_imports_nothing_that_trains():
    readers = [module for module in MODULES if is_in(module, READING)]
    reached = reached_from(*readers, step=own_imports)
    assert {module for module in reached if is_in(module, TRAINING)} == set()


def test_executors_alone_import_ray():
    importing = {folder_of(module) for module in MODULES if "ray" in imported_packages(module)}
    assert importing == {"cluster.executors"}


def test_a_trial_imports_no_report():
    reached = reached_from("cluster.trial.trainable", "cluster.executors.ray_worker", step=own_imports)
    assert {module for module in reached if is_in(module, ["cluster.reports"])} == set()


def test_every_folder_says_in_one_sentence_what_is_in_it():
    for package in PACKAGES:
        text = ast.get_docstring(tree(package))
        assert text, package
        assert "\n" not in text, package
        assert text.count(". ") == 0, package
        assert text.endswith("."), package


def test_a_folder_has_at_most_sixteen_modules():
    modules = [path.parent for path in MODULES.values() if path.name != "__init__.py"]
    assert {folder: modules.count(folder) for folder in set(modules) if modules.count(folder) > 16} == {}


@pytest.mark.parametrize("floor", [floor for floor in FLOORS if floor != "tune_runs"])
def test_a_floor_imports_nothing_by_itself(floor):
    assert len(tree(floor).body) == 1


def test_scripts_are_not_a_package():
    assert not list((ROOT / "tune_runs").rglob("__init__.py"))


def test_folders_of_tests_mirror_those_of_the_code():
    tests = ROOT / "tests"
    for floor in FLOORS:
        folders = {
            path.parent.relative_to(tests / f"{floor}_tests") for path in tests.glob(f"{floor}_tests/**/test_*.py")
        }
        assert {folder for folder in folders if not (ROOT / floor / folder).is_dir()} == set()


def test_what_a_node_tells_about_itself_needs_only_python():
    at_the_top = [
        node for node in tree("cluster.executors.node_facts").body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    names = {alias.name for node in at_the_top if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in at_the_top if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_a_solver_knows_neither_ray_nor_folders():
    assert not imported_packages("posenet.solver") & {"ray", "pathlib", "os", "pyarrow"}


def test_what_reads_results_imports_neither_torch_nor_ray():
    # Importing a module runs the packages around it too. `report.py reproduce` trains, `figure --labels` reads poses:
    # they import torch only when they are called, and the error says so if torch is missing.
    need_torch = {"cluster.reproduction", "cluster.reports.prediction_files"}
    readers = reached_from(
        "tune_runs.report", step=lambda module: (own_imports(module) | packages_around(module)) - need_torch
    )
    assert "cluster.results.results" in readers
    assert {module for module in readers if imported_packages(module) & {"torch", "ray"}} == set()


def imported_by(program: str) -> set[str]:
    """Returns the modules that a program imports in a fresh process, third-party packages included."""
    program += "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_report_starts_without_torch_and_ray():
    script = ROOT / "tune_runs" / "report.py"
    modules = imported_by(f"import runpy; runpy.run_path({str(script)!r}, run_name='report')")
    assert {"torch", "ray", "cluster.results.results"} & modules == {"cluster.results.results"}


@pytest.mark.slow
def test_a_worker_starts_without_exporters_and_matplotlib():
    modules = imported_by("import cluster.executors.ray_worker")
    assert "cluster.trial.trainable" in modules
    assert {module for module in modules if is_in(module, ["matplotlib", "cluster.reports"])} == set()


def test_all_text_reaches_the_terminal_through_one_function():
    """Except for the codes of a progress line, and a drawing in colours whose names were made visible."""
    commands = ("tune_runs.report", "tune_runs.predict", "tune_runs.prepare_data", "tune_runs.cluster_check")
    printing = [
        module
        for module in MODULES
        if not module.startswith("tune_runs") or module in commands
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert sorted(printing) == ["data_pipeline.words", *["tune_runs.report"] * 3]

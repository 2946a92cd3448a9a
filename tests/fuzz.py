"""Damages experiments at random, runs every command of `report.py` that only reads, and counts what goes wrong.

`python -m tests.fuzz --rounds N --seed S`: each round has one damaged experiment and a healthy one next to it.
"""

import argparse
import contextlib
import io
import json
import math
import os
import random
import shutil
import signal
import tempfile
import traceback
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.words import visible
from tests.cluster_tests.experiment_files import write_examples, write_experiment, write_frames, write_records
from tests.cluster_tests.results_files import write_fold_results, write_raced_results
from tests.cluster_tests.test_older_results import MADE
from tune_runs import report

HEALTHY = "other"
"""The experiment that is never damaged."""

COMMANDS = [
    *("show", "show --json", "show --intervals", "show --by subset", "show --by subject", "show --by joint"),
    *("log best", "log best --json", "curves", "diff best {key}", "compare other", "effects", "effects --json"),
    *("race --min-epochs 1", "race --min-epochs 1 --json", "methods"),
    *("clean", "rm", "html --out {out}/a.html", "show --folds"),
    *(f"export table --format {kind}" for kind in ("csv", "json", "latex", "markdown", "html")),
    *(f"export {kind} --out {{out}}/a.{end}" for kind in ("table", "trials") for end in ("parquet", "xlsx")),
    *("export trials --format csv", "export table --by sequence --format csv", "export effects --format csv"),
    *(f"figure {kind} --out {{out}}/a.svg" for kind in ("curves", "joints", "heatmap", "parallel", "histogram")),
    *(f"figure {kind} --out {{out}}/a.svg" for kind in ("success", "improvement", "distance", "time", "hands")),
    *("export tensorboard --out {out}/runs", "export pivot --rows lr --columns model --format csv", "list"),
]
"""Commands that only read: `{out}` is a folder that they may write to, and `{key}` the key of a combination."""

_PROBLEMS = (
    *("tracebacks", "unclean ends", "hangs", "files written elsewhere", "control characters printed"),
    "healthy experiments not listed",
)

_LIMIT_S = 60


def write_root(root):
    """Fills a folder with results in `results`: of this version, on folds, raced, in an archive, of an old version."""
    rng = np.random.default_rng(0)
    options = [({"lr": lr, "model": model}, [9.0 + lr, 8.5, None]) for lr in (0.1, 0.2) for model in ("A", "B")]
    for name in ("plain", "archived", HEALTHY):
        folder = write_experiment(root / "results" / name, options, n_repetitions=3)
        for trial_id in (f"{place:016x}/{repetition}" for place in range(4) for repetition in range(2)):
            write_records(folder, trial_id, [12.0, 10.0, 9.0], success=("worst", np.linspace(0, 1, 81), np.ones(81)))
        write_frames(folder, f"{0:016x}/0", *rng.uniform(5, 15, size=(2, 80)).astype(np.float32))
        write_examples(folder, f"{0:016x}/0")
        if name == "archived":
            folder.archive.add([f"{place:016x}/{repetition}" for place in range(2) for repetition in range(2)])
    write_fold_results(root / "results" / "folds", {0.1: [[9.0, 8.0], [7.0, 6.0]]}, [(10, 20), (30, 40)])
    write_raced_results(root / "results" / "raced")
    shutil.copytree(MADE / "results" / "every_family", root / "results" / "old")
    (root / "outside").mkdir()


def files_of(root):
    """The files of all experiments but the healthy one that a command may read."""
    endings = (".json", ".parquet", ".npz")
    found = (path for path in (root / "results").rglob("*") if path.name.endswith(endings))
    return sorted(path for path in found if not {HEALTHY, "tables"} & set(path.relative_to(root).parts))


def content(root):
    """Size and time of every path; links are not followed."""
    found = {}
    for folder, folders, names in os.walk(root):
        for path in (Path(folder, name) for name in (*folders, *names)):
            seen = path.lstat()
            found[path] = None if path.is_dir() else (seen.st_size, seen.st_mtime_ns)
    return found


TEXTS = ["", "../../outside/x", "{root}/outside/x", "..", "a\0b", "\ud800", "é" * 300, "<b>", "key", "val", "DEFAULT"]
TEXTS += ["\x1b[31m\x1b]0;x\x07", "\u202eabc", "a\rb\nc", "=1+1", "%d {x} $x$ \\x", "mean", "test", "finished", "best"]
NUMBERS = ["1e18", "1e308", "-1", "1e400", "NaN", "-Infinity", "1" + 400 * "0", "9" * 19, "0", "true", "null", "1e-320"]
JSON_TEXTS = [
    *map(json.dumps, TEXTS),
    *NUMBERS,
    *("[]", "{}", "[[]]", "[null]", '{"a": 1}', '["a", "b"]', '{"name": "a.b", "args": 1}', "[1, 2, 3]"),
    *("[" * depth + "]" * depth for depth in (60, 900, 10_000)),
    *('{"a":' * depth + "1" + "}" * depth for depth in (60, 900)),
]
VALUES = [None, 0, -1, 2**31 - 1, math.inf, math.nan, 1e308, 1e39, "", "x", "../x", [1], "[" * 10_000]
NAMES = ["key", "status", "n", "val_distance_mm", "a", "..", "\ud800", "", "name", "args", "mean", "test", "\x1b[31m"]


def damaged(path, rng, root):
    """Returns other content for a file."""
    data = path.read_bytes()
    if rng.random() < 0.3:
        return _changed_bytes(data, rng)
    try:
        if path.suffix == ".json":
            return _changed_json(data, rng, root)
        return _changed_table(data, rng, root) if path.suffix == ".parquet" else _changed_arrays(data, rng)
    except (ValueError, KeyError, OSError, RecursionError, pa.ArrowException):
        return _changed_bytes(data, rng)  # it was damaged before


def _places(content, path=()):
    """The path of every value inside a JSON value."""
    yield path
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in parts:
        yield from _places(value, (*path, key))


def _changed_json(data, rng, root):
    """Replaces or removes any value, or renames any key."""
    whole = {"": json.loads(data)}
    found = list(_places(whole[""]))
    # A long list has most of the places, and all of its items are alike.
    depth = rng.randint(0, max(map(len, found)))
    path = rng.choice([path for path in found if len(path) == depth])
    parent, last = whole, ""
    for part in path:
        parent, last = parent[last], part
    how = rng.choice(["replace", "replace", "replace", "remove", "rename"])
    raw = rng.choice(JSON_TEXTS).replace("{root}", str(root))
    if how == "rename" and isinstance(parent, dict) and path:
        parent[rng.choice(NAMES)] = parent.pop(last)
    elif how == "remove" and path:
        del parent[last]
    else:
        parent[last] = "@@"
    return json.dumps(whole[""]).replace('"@@"', raw).encode()


def _changed_bytes(data, rng):
    """Cuts the bytes, or changes one."""
    place = rng.randint(0, max(0, len(data) - 1))
    if rng.random() < 0.5:
        return data[:place]
    return data[:place] + bytes([rng.randint(0, 255)]) + data[place + 1 :]


def _changed_table(data, rng, root):
    """Gives a column other values or another type, changes JSON in it, repeats rows, or leaves the column out."""
    table = pq.read_table(io.BytesIO(data))
    name = rng.choice(table.column_names)
    n, place = len(table), table.column_names.index(name)
    column = table.column(name).to_pylist()
    value = rng.choice(VALUES)
    everywhere = rng.random() < 0.5
    how = rng.choice(["replace", "replace", "replace", "remove", "twice", "empty"])
    if how == "remove":
        table = table.drop_columns([name])
    elif how == "twice":
        table = pa.concat_tables([table, table])
    elif how == "empty":
        table = table.slice(0, 0)
    else:
        if name == "trial_json" and not everywhere:
            value = _changed_json(column[0], rng, root).decode()
        values = [value] * n if everywhere or not n else [value, *column[1:]]
        with contextlib.suppress(
            pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError
        ):  # not every value fits a column
            kind = None if everywhere and rng.random() < 0.5 else table.schema.field(name).type
            table = table.set_column(place, name, pa.array(values, kind))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _changed_arrays(data, rng):
    """Gives an array other values, another type or another shape, or leaves it out."""
    arrays = dict(np.load(io.BytesIO(data)))
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    how = rng.choice(["fill", "kind", "shape", "remove"])
    if how == "fill":
        with np.errstate(all="ignore"):
            arrays[name] = np.full_like(array, rng.choice([0, -1, 1e38, np.inf, np.nan]))
    elif how == "kind":
        arrays[name] = array.astype(rng.choice(["U8", "c16", "?", "i1", "f8", "M8[s]"]))
    elif how == "shape":
        arrays[name] = rng.choice([array[:0], array[..., :1], array[None], array.ravel()])
    else:
        del arrays[name]
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _misplace(path, rng, root):
    """Puts something else in the place of a file or folder, or something next to it; returns what, in words."""
    how = rng.choice(["nothing", "pipe", "link outside", "link to itself", "folder", "more folders", "more files"])
    if how == "more folders":
        folder = path.parent / "/".join(rng.choice([["d"] * 40, ["0"], ["trials"], ["\x1b[31m"], [f"{9:016x}", "0"]]))
        folder.mkdir(parents=True, exist_ok=True)
    elif how == "more files":
        name = rng.choice([".lock", "a.json", "x.trials.parquet", ".a.partial", "trial.json", "\x1b[31m", "0"])
        if not path.parent.joinpath(name).exists():
            path.parent.joinpath(name).write_bytes(rng.choice([b"", b"{}", path.read_bytes()]))
    else:
        path.unlink()
        if how == "pipe":
            os.mkfifo(path)
        elif how == "link outside":
            path.symlink_to(rng.choice([root / "outside" / "x", root / "outside", Path("/dev/zero")]))
        elif how == "link to itself":
            path.symlink_to(path)
        elif how == "folder":
            path.mkdir()
    return how


def run(root, name, command):
    """Runs a command on an experiment; returns its exit status, and what it printed to a terminal with UTF-8."""
    first, *others = command.format(out=root / "out", key=f"{1:016x}").split()
    arguments = [first, *([] if first == "list" else [name]), *others, "--storage-path", str(root / "results")]
    printed = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    (root / "out").mkdir()
    with contextlib.redirect_stdout(printed[0]), contextlib.redirect_stderr(printed[1]):
        try:
            status = report.main(arguments)
        except SystemExit as error:
            status = error.code
        finally:
            shutil.rmtree(root / "out")
    return status, *(stream.buffer.getvalue().decode() for stream in printed)


def is_clean(status, error):
    """Whether a command ended with a result, or with an error in words."""
    return status in (0, 2) and (status == 2) == ("error: " in error)


def lists_healthy(listed):
    """Whether `list` printed the state of the healthy experiment."""
    return [line.split()[1] for line in listed.splitlines() if line.startswith(f"{HEALTHY} ")] == ["unfinished"]


class _Hang(BaseException):
    """A command takes too long."""


def _stop(*_):
    raise _Hang


def _attack(root, name):
    """Runs each command on an experiment, and yields what goes wrong: the command, a kind of problem, details."""
    there = content(root)
    for command in COMMANDS:
        signal.alarm(_LIMIT_S)
        try:
            status, output, error = run(root, name, command)
            if not is_clean(status, error):
                yield command, "unclean ends", f"status {status}: {error}"
            if visible(output + error) != output + error:
                yield command, "control characters printed", repr(output + error)[:300]
            if command == "list" and not lists_healthy(output):
                yield command, "healthy experiments not listed", output
        except _Hang:
            yield command, "hangs", traceback.format_exc()
        except Exception:
            yield command, "tracebacks", traceback.format_exc()
        signal.alarm(0)
        now = content(root)
        if now != there:
            yield command, "files written elsewhere", f"{now.keys() ^ there.keys()}"
            there = now


def main():
    """Runs the rounds and prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    signal.signal(signal.SIGALRM, _stop)
    warnings.simplefilter("error", RuntimeWarning)  # numpy would print lines of its code
    counts = dict.fromkeys(_PROBLEMS, 0)
    with tempfile.TemporaryDirectory() as folder:
        healthy = Path(folder, "all")
        write_root(healthy)
        for number in range(args.rounds):
            rng = random.Random(args.seed * 1_000_000 + number)
            root = Path(folder, "round")
            name = rng.choice(["plain", "plain", "archived", "folds", "raced", "old"])
            for there in (name, HEALTHY):
                shutil.copytree(healthy / "results" / there, root / "results" / there)
            (root / "outside").mkdir()
            what = []
            for path in rng.sample(found := files_of(root), min(len(found), rng.choice([1, 1, 2, 4]))):
                if rng.random() < 0.2:
                    how = _misplace(path, rng, root)
                else:
                    path.write_bytes(damaged(path, rng, root))
                    how = "damage"
                what.append(f"{how} of {path.relative_to(root / 'results' / name)}")
            for command, problem, details in _attack(root, name):
                counts[problem] += 1
                print(f"\n{problem}: round {number}, `{command}` on {name}, {', '.join(what)}\n{details}", flush=True)
            shutil.rmtree(root)
    print(f"{args.rounds * len(COMMANDS):6,} commands")
    print("\n".join(f"{n:6,} {problem}" for problem, n in counts.items()))


if __name__ == "__main__":
    main()

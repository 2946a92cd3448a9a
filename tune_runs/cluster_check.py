"""Checks that sweeps can run on this machine or on a Ray cluster.

Run this first. It examines every node, and trains a small corrector for about
a second on every device, like an experiment. It ends with "ready" and exit
code 0, or with a list of what to repair and exit code 1. It removes its files.
"""

import argparse
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import argcomplete
from tabulate import tabulate

from data_pipeline.user_error import UserError, exit_status
from data_pipeline.words import count, say

if TYPE_CHECKING:  # functions import them when needed, because torch and Ray take seconds to load
    from cluster.executors.ray_nodes import CheckedNode
    from cluster.readiness import DataSize, DeviceResult

_EXAMPLES = """\
examples:
  check this machine
    posetune cluster-check
  check the Ray cluster that this machine belongs to, for sweeps on GPUs
    posetune cluster-check --address auto --gpus \\
        --storage-path /shared/results
"""

_UUID = re.compile(r"([0-9a-f]{8})(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


@dataclass
class Findings:
    """The results of the check.

    Attributes:
        problems: What to repair before a sweep, and how, each with the nodes that it concerns.
        notes: Remarks that need no action.
    """

    problems: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, problem: str, node: str | None = None) -> None:
        """Adds a problem. Several nodes may share it."""
        nodes = self.problems.setdefault(problem, [])
        if node is not None:
            nodes.append(node)

    def __str__(self) -> str:
        notes = [f"{_wrapped(note, 'note: ')}\n" for note in self.notes]
        if not self.problems:
            return "\n".join([*notes, "ready"])
        texts = [f"{', '.join(nodes)}: {problem}" if nodes else problem for problem, nodes in self.problems.items()]
        repairs = [_wrapped(text, f"{number:>3}. ") for number, text in enumerate(texts, 1)]
        return "\n".join([*notes, "To repair:", *repairs])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line `arguments`, by default the process's own, and returns the exit status."""
    parser = _parser()
    argcomplete.autocomplete(parser)
    args = parser.parse_args(arguments)
    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    findings = Findings()
    try:
        check(args, findings)
    except UserError as error:
        findings.add(str(error))
    say(findings)
    return 1 if findings.problems else 0


def check(args: argparse.Namespace, findings: Findings) -> None:
    """Runs all checks, prints tables, and adds to `findings`.

    Raises:
        UserError: If the check cannot continue.
    """
    began = time.monotonic()

    def report_progress(text: str) -> None:
        # Whole lines, because this may end up in the log of a job.
        say(f"[{time.monotonic() - began:3.0f} s] {text}", sys.stderr)

    report_progress("loading torch and Ray")
    from cluster.executors import ray_nodes, ray_session
    from cluster.executors.executor import Executor
    from cluster.executors.node_facts import versions
    from cluster.planning.config import local_path
    from cluster.planning.placement import PRETEND_GPUS
    from cluster.readiness import find_data, on_this_machine, try_devices
    from cluster.storage.filesystem import Storage

    data = find_data(local_path(args.data_dir), args.sets)
    local = Storage(args.storage_path).local
    storage_path = args.storage_path if local is None else str(local)
    address = Executor.of("ray", args.address, wait_for_nodes=False).address
    with ExitStack() as stack:
        if address is None:
            report_progress("starting Ray on this machine")
            stack.enter_context(on_this_machine(use_gpus=args.device != "cpu"))
        else:
            report_progress(f"connecting to the Ray cluster at {address}")
            if ray_session.asks_for_token(address) is False:
                findings.notes.append(_NO_TOKEN)
            stack.enter_context(ray_session.connected(address))
        if local is not None:
            stack.enter_context(_new_folders_removed(local))

        known = list(ray_nodes.nodes().values())
        use_gpus = args.device != "cpu" and any(node.gpus for node in known)
        pretended = use_gpus and address is not None and PRETEND_GPUS in os.environ
        report_progress(f"examining {count(len(known), 'node')}, and {storage_path} from each")
        nodes = ray_nodes.check_nodes(storage_path, count_gpus=args.device != "cpu" and not pretended)
        nodes.sort(key=lambda node: (not node.is_head, node.node.name))
        usable = [node for node in nodes if not node.problems]
        report_progress("training a small corrector on every device")
        tried = []
        for node, outcome in try_devices(usable, storage_path, use_gpus=use_gpus):
            report_progress(f"{node.node.name}, {outcome.device}: {'failed' if outcome.problem else 'trained'}")
            tried.append((node, outcome))

    say(f"\n{_node_table(nodes)}\n\n{_version_table(versions(), nodes)}")
    if tried:
        say(f"\n{_device_table(tried)}")
    say(f"\n{_storage_line(storage_path, nodes)}\n{_data_line(args.data_dir, data)}\n")
    _judge_nodes(nodes, data, findings)
    _judge_devices(nodes, tried, args.device, findings)
    if address is not None:
        _judge_cluster(nodes, findings)
    if pretended:
        findings.notes.append(f"{PRETEND_GPUS} is set: trials that are given a GPU train on the CPU.")


_NO_TOKEN = (
    "this cluster does not ask for a token: anyone who reaches its ports can run commands on all nodes as the user who "
    "started Ray. On a shared network, start all nodes with RAY_AUTH_MODE=token, as the files in cluster/launch/ do."
)


def _judge_nodes(nodes: Sequence["CheckedNode"], data: "DataSize", findings: Findings) -> None:
    from cluster.readiness import memory_problems

    for node in nodes:
        for problem in node.problems:
            findings.add(problem.removeprefix(f"{node.node.name}: "), node.node.name)
        for problem in memory_problems(node, data):
            findings.add(problem, node.node.name)


def _judge_devices(
    nodes: Sequence["CheckedNode"],
    tried: Sequence[tuple["CheckedNode", "DeviceResult"]],
    device: str | None,
    findings: Findings,
) -> None:
    for node, outcome in tried:
        if outcome.problem is not None:
            findings.add(f"a trial on {outcome.device} failed: {outcome.problem}", node.node.name)
    if device == "cuda" and not any(node.node.gpus for node in nodes):
        findings.add(
            "no node has a GPU according to Ray. Start the nodes that have GPUs with --num-gpus=…; on a single "
            "machine, install a driver and a torch for its GPU"
        )
    elif device == "cuda" and not any(node.node.gpus and node.node.cpus for node in nodes):
        findings.add(
            "no node has both a GPU and a CPU core according to Ray, but a trial takes one of each. Start the nodes "
            "that have GPUs with --num-cpus=…, one core for each GPU"
        )
    if not any(node.node.cpus for node in nodes):
        findings.add("no node has a CPU core for trials according to Ray. Start at least one node with --num-cpus=…")
    for node in nodes:
        cpus, gpus, seen = node.node.cpus, node.node.gpus, node.facts.get("gpus")
        if device != "cpu" and 0 < cpus < gpus:
            findings.add(
                f"each trial takes a CPU core, so only {cpus} of {gpus} GPUs would be used. Start the node with "
                f"--num-cpus={gpus} or more",
                node.node.name,
            )
        if isinstance(seen, int) and seen and not gpus:
            findings.notes.append(
                f"{node.node.name}: torch sees {seen} GPU(s), but Ray was started with none, so trials use none. If "
                f"you want to use them, start the node with --num-gpus={seen}."
            )
    distances = {outcome.distance_mm for _, outcome in tried if outcome.distance_mm is not None}
    if len(distances) > 1:
        findings.notes.append(
            "the same trial gave different numbers on some devices, as it does on different kinds of GPUs or "
            "processors. If numbers must be the same to the last bit, use devices of one kind."
        )


def _judge_cluster(nodes: Sequence["CheckedNode"], findings: Findings) -> None:
    for node in nodes:
        if node.has_driver and node.node.cpus:
            head = ", the head node," if node.is_head else ""
            findings.notes.append(
                f"trials also run on {node.node.name}{head} next to this process. To reserve its cores and memory "
                "for the run script, start Ray there with --num-cpus=0 --num-gpus=0."
            )


def _node_table(nodes: Sequence["CheckedNode"]) -> str:
    from data_pipeline.words import size_text

    rows = []
    for node in nodes:
        shm, seen = node.facts.get("shm_bytes"), node.facts.get("gpus")
        rows.append(
            [
                node.node.name,
                "yes" if node.is_head else "",
                node.node.cpus,
                node.node.gpus,
                "–" if seen is None else seen if isinstance(seen, int) else "no",
                size_text(node.store_bytes),
                "–" if shm is None else size_text(shm),
                "–" if not node.facts else "no" if node.facts["storage"] else "ok",
            ]
        )
    headers = ["node", "head", "CPUs", "GPUs", "torch\nsees", "object\nstore", "/dev/shm\nfree", "storage"]
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True)


def _version_table(ours: Mapping[str, str | None], nodes: Sequence["CheckedNode"]) -> str:
    theirs: dict[str, Mapping[str, str | None]] = {node.node.name: node.facts.get("versions", {}) for node in nodes}
    if all(found == ours for found in theirs.values()):
        theirs = {f"all of {count(len(nodes), 'node')}": ours}
    rows = [
        [name, *("–" if found.get(what) is None else found[what] for what in ours)]
        for name, found in {"this process": ours, **theirs}.items()
    ]
    return tabulate(rows, ["versions", *ours], tablefmt="simple", disable_numparse=True)


def _device_table(tried: Sequence[tuple["CheckedNode", "DeviceResult"]]) -> str:
    rows = []
    for node, outcome in sorted(tried, key=lambda pair: (pair[0].node.name, pair[1].device)):
        seconds = "failed" if outcome.seconds is None or outcome.problem else f"{outcome.seconds:.1f}"
        distance = "" if outcome.distance_mm is None else f"{outcome.distance_mm:.4f}"
        gpu = _UUID.sub(r"\1…", outcome.gpu or "")
        rows.append([node.node.name, outcome.device, gpu, seconds, distance])
    headers = ["node", "device", "GPU", "trial (s)", "error (mm)"]
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=("left",) * 3 + ("right",) * 2)


def _storage_line(storage_path: str, nodes: Sequence["CheckedNode"]) -> str:
    n_good = sum(bool(node.facts) and node.facts["storage"] is None for node in nodes)
    return _wrapped(f"{storage_path}, written and read from {n_good} of {count(len(nodes), 'node')}", "storage: ")


def _data_line(data_dir: str, data: "DataSize") -> str:
    from cluster.readiness import STORE_ROOM
    from data_pipeline.words import size_text

    if not data.names:
        return _wrapped(
            f"no datasets in {data_dir}, so the size of the object stores was not checked (--data-dir)", "data: "
        )
    return _wrapped(
        f"{size_text(data.n_bytes)} ({', '.join(data.names)}); each object store and /dev/shm should have "
        f"{STORE_ROOM:g} times that size",
        "data: ",
    )


def _wrapped(text: str, lead: str) -> str:
    return textwrap.fill(
        f"{lead}{text}",
        min(shutil.get_terminal_size().columns, 120),
        subsequent_indent=" " * len(lead),
        break_long_words=False,
        break_on_hyphens=False,  # so that options can be copied
    )


@contextmanager
def _new_folders_removed(folder: Path) -> Iterator[None]:
    """Removes the folder and its parents after the block, if they are new and empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        for path in missing:
            with suppress(OSError):
                path.rmdir()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="posetune cluster-check",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=26),
        allow_abbrev=False,
    )
    parser.add_argument(
        "--address",
        metavar="A",
        help="the Ray cluster: auto for the one that this machine belongs to, host:port, or ray://host:port "
        "(default: POSETUNE_ADDRESS, else RAY_ADDRESS, else only this machine)",
    )
    parser.add_argument(
        "--storage-path", default="results", metavar="P", help="folder or URI of the results (default: %(default)s)"
    )
    parser.add_argument("--data-dir", default="data", metavar="D", help="folder of the datasets (default: %(default)s)")
    parser.add_argument(
        "--sets",
        nargs="+",
        default=[],
        metavar="NAME",
        help="the datasets of one experiment; their size is compared with the object stores (default: the largest set "
        "of N_train, N_val and N_test)",
    )
    devices = parser.add_mutually_exclusive_group()
    devices.add_argument(
        "--gpus",
        dest="device",
        action="store_const",
        const="cuda",
        help="check for sweeps on GPUs; having none is an error",
    )
    devices.add_argument(
        "--cpu", dest="device", action="store_const", const="cpu", help="check for sweeps without GPUs"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

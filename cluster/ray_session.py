"""Ray itself: one of our own on this machine for as long as a run, or a cluster that runs already.

On a cluster, what a run leans on is looked at before anything is trained: that a trial fits on some node, that all
nodes have the same torch, Python and code, and that all see the folder for results. This file and `ray_runner.py` are
the only ones that import Ray.
"""

import logging
import os
import secrets
import signal
import socket
import stat
import sys
import sysconfig
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from cluster import node_facts
from cluster.config import ConfigError, ExperimentConfig
from cluster.devices import PRETEND_GPUS, Node, Placement, place_on
from cluster.signals import Preempted, Signals
from cluster.storage import Storage
from data_pipeline.user_error import UserError

_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a script keep their meaning
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the display is ours
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # who asks for no GPU is shown none by `cluster/devices.py`
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # records are ours: five files less for each trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # so is Ctrl-C
    "TUNE_GLOBAL_CHECKPOINT_S": "31536000",  # its snapshots are never used: a run begins from the trials' folders
    "RAY_NUM_REDIS_GET_RETRIES": "5",  # seconds until it is sure that a cluster does not answer, or not to us
}
os.environ.update(_ENVIRONMENT)

import ray  # noqa: E402 - it reads the environment when it is imported
from ray._private import ray_constants  # noqa: E402
from ray._private.accelerators import get_accelerator_manager_for_resource  # noqa: E402
from ray._private.authentication.authentication_token_setup import (  # noqa: E402
    maybe_enable_token_auth_if_token_available,
)
from ray._private.ray_logging import global_worker_stdstream_dispatcher  # noqa: E402
from ray._private.services import canonicalize_bootstrap_address_or_die  # noqa: E402
from ray._raylet import Config, GcsClient  # type: ignore[attr-defined] # noqa: E402
from ray.autoscaler.sdk import request_resources  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

_ROOT = Path(__file__).parents[1]
_AUTH_MODE = "RAY_AUTH_MODE"
_CLIENT = "ray://"
_REACH_S = 5.0
_ANSWER_S = 60.0
_NOTICE_S = 5.0
_LOOK_AGAIN_S = 2.0
_SAY_AGAIN_S = 60.0
_HEAD = "node:__internal_head__"

T = TypeVar("T")


class RayInUseError(UserError):
    """Ray was started in this process by someone else."""


class ClusterError(UserError):
    """A Ray cluster cannot be used; the text says what is wrong, with which node, and what to do."""


@contextmanager
def embedded(placement: Placement) -> Iterator[None]:
    """Runs a Ray of our own on this machine for the block; it listens on the loopback interface alone.

    Other users of the machine can neither read nor replace its files.

    Raises:
        RayInUseError: If the script has started Ray itself.
        ClusterError: If there is no place for its files.
    """
    _close_token_folder()
    with (
        _auth_mode_kept(),
        _loopback_alone(),
        _shown(placement.gpus),
        _initialised(
            address="local",  # never whatever cluster happens to run on this machine
            num_cpus=placement.n_slots * placement.cpus_per_trial,
            num_gpus=len(placement.gpus or ()),
            include_dashboard=False,
            _temp_dir=_private_folder(),
        ),
    ):
        yield


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connects to a cluster for the block; what trials need of our code and of the script's goes there with them.

    Args:
        address: `auto` for the cluster that runs on this machine, `host:port`, or `ray://host:port` from a machine that
            is not a part of the cluster.

    Raises:
        RayInUseError: If the script has started Ray itself.
        ClusterError: If there is no such cluster, or if it does not let this process in.
    """
    environment = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT or name == PRETEND_GPUS}
    packages = [str(_ROOT / name) for name in node_facts.PACKAGES]
    with ExitStack() as stack:
        stack.enter_context(_auth_mode_kept())
        stack.enter_context(_by_value(_modules_of_this_machine()))
        try:
            if address.startswith(_CLIENT):
                found = address
                _reach(address.removeprefix(_CLIENT))
                maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
            else:
                found = canonicalize_bootstrap_address_or_die(address)
                _reach(found)
                _show_token_if_asked(found)
            stack.enter_context(
                _initialised(address=found, runtime_env={"py_modules": packages, "env_vars": environment})
            )
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ClusterError(_why_not_connected(address, error)) from error
        yield


def asks_for_token(address: str) -> bool | None:
    """Tells whether a cluster lets nobody in without its token; None for `ray://`, where only its inside would tell.

    Raises:
        ClusterError: If there is no such cluster.
    """
    if address.startswith(_CLIENT):
        return None
    mode = os.environ.pop(_AUTH_MODE, None)
    Config.initialize("")
    try:
        found = canonicalize_bootstrap_address_or_die(address)
        _reach(found)
        with _stderr_silent():  # a page of C++
            GcsClient(address=found)
    except ray.exceptions.AuthenticationError:
        return True
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ClusterError(_why_not_connected(address, error)) from error
    finally:
        if mode is not None:
            os.environ[_AUTH_MODE] = mode
            Config.initialize("")
    return False


def place_on_cluster(config: ExperimentConfig, n_trials: int = 1) -> Placement:
    """Places trials on the cluster that this process is connected to.

    Raises:
        ConfigError: If a trial fits on no node.
    """
    return place_on(config, n_trials, list(nodes().values()))


def wait_for_node(config: ExperimentConfig, signals: Signals) -> None:
    """Waits, and says so, while there is no node that a trial fits on; an autoscaler is asked for one.

    Raises:
        Preempted: At SIGTERM.
    """
    said: float | None = None
    while True:
        try:
            place_on_cluster(config)
        except ConfigError as error:
            if signals.preempted.is_set():
                raise Preempted from None
            if said is None or time.monotonic() - said >= _SAY_AGAIN_S:
                print(f"waiting for a node: {error.problems[0].text}", file=sys.stderr, flush=True)
                said = time.monotonic()
            gpu = {} if config.devices[0].type == "cpu" else {"GPU": 1}
            request_resources(bundles=[{"CPU": config.cpus_per_trial, **gpu}])
            time.sleep(_LOOK_AGAIN_S)
        else:
            if said is not None:
                request_resources(bundles=[])  # from here on the trials themselves ask
            return


def nodes() -> dict[str, Node]:
    """Returns the nodes of the cluster that are there now, by their ids."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    hosts = Counter(node["NodeManagerHostname"] for node in alive)
    return {node["NodeID"]: _node(node, alone=hosts[node["NodeManagerHostname"]] == 1) for node in alive}


def _node(node: Mapping[str, Any], *, alone: bool) -> Node:
    host, resources = node["NodeManagerHostname"], node["Resources"]
    # Several on one machine are told apart by the beginning of Ray's name.
    name = host if alone else f"{host}/{node['NodeID'][:4]}"
    return Node(name, int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


@dataclass(frozen=True)
class Examined:
    """A node as it was found.

    Attributes:
        node_id: Ray's name for it.
        node: What it has.
        facts: What it tells of itself, see `node_facts.tell`; nothing where it did not answer.
        problems: Why trials cannot run on it as it is, and what to do.
        store_bytes: The size of its object store.
        is_head: Whether it is the cluster's head.
        has_driver: Whether this process runs on it.
    """

    node_id: str
    node: Node
    facts: Mapping[str, Any]
    problems: list[str]
    store_bytes: int
    is_head: bool
    has_driver: bool


def examine_nodes(storage_path: str, *, count_gpus: bool) -> list[Examined]:
    """Looks at all nodes of the cluster at the same time.

    Args:
        storage_path: The folder for results, absolute; this process writes a file to it that every node has to see.
        count_gpus: Look whether torch sees the GPUs that a node says it has.

    Raises:
        StorageError: If this process cannot use the folder for results.
    """
    storage = Storage(storage_path)
    probe = f".probe-{secrets.token_hex(8)}"
    ours = node_facts.versions()
    there = nodes()
    resources = {node["NodeID"]: node["Resources"] for node in ray.nodes()}
    storage.write(probe, b"")
    try:
        with _by_value([node_facts]):
            tell = ray.remote(num_cpus=0, max_retries=0)(node_facts.tell)
            answers = {
                tell.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote(
                    storage_path, probe, node_id, count_gpus=count_gpus
                ): node_id
                for node_id in there
            }
            ray.wait(list(answers), num_returns=len(answers), timeout=_ANSWER_S)
        examined = []
        for answer, node_id in answers.items():
            node = there[node_id]
            facts, problems = _answer(answer)
            if problems and _is_gone(node_id):
                continue  # a node may go at any time; another may have taken its place
            if facts:
                problems += _differences(ours, facts["versions"])
                problems += _storage_problems(storage, facts["storage"], f"{probe}-{node_id}")
                if count_gpus and node.gpus and facts["gpus"] != node.gpus:
                    problems.append(
                        f"Ray was told of {node.gpus} GPU(s), torch sees: {facts['gpus']}. Install a torch for this "
                        "GPU and its driver, or start the node with the right --num-gpus"
                    )
            examined.append(
                Examined(
                    node_id,
                    node,
                    facts,
                    [f"{node.name}: {problem}" for problem in problems],
                    store_bytes=int(resources[node_id].get("object_store_memory", 0)),
                    is_head=_HEAD in resources[node_id],
                    has_driver=node_id == ray.get_runtime_context().get_node_id(),
                )
            )
        return examined
    finally:
        for name in [probe, *(f"{probe}-{node_id}" for node_id in there)]:
            storage.remove(name)


def require_usable(nodes: Iterable[Examined]) -> None:
    """Raises what is wrong with any of them.

    Raises:
        ClusterError: If there is something.
    """
    problems = [problem for examined in nodes for problem in examined.problems]
    if problems:
        raise ClusterError("\n  ".join(["trials cannot run on this Ray cluster as it is:", *problems]))


def run_on_devices(
    work: Callable[[int], T], places: Sequence[tuple[str, int]], timeout_s: float
) -> Iterator[tuple[int, T | ClusterError]]:
    """Calls `work` once on each of some devices, all at the same time, each in a process of its own.

    Each process keeps its device until all are done, so that no two of them are given the same GPU.

    Args:
        work: Takes the number of its place.
        places: For each device the id of its node, and how many GPUs it takes: 1, or 0 for a CPU core.
        timeout_s: For all together.

    Yields:
        The number of a place, with what `work` returned there or with why it did not; in the order of their ends.
    """
    worker = ray.remote(max_restarts=0)(_Worker)
    shared = ray.put(work)
    workers = [
        worker.options(
            num_cpus=0 if gpus else 1,
            num_gpus=gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        ).remote()
        for node_id, gpus in places
    ]
    try:
        waiting = {worker.call.remote(shared, number): number for number, worker in enumerate(workers)}
        end = time.monotonic() + timeout_s
        while waiting:
            ended, _ = ray.wait(list(waiting), num_returns=1, timeout=max(0.0, end - time.monotonic()))
            if not ended:
                break
            number = waiting.pop(ended[0])
            try:
                yield number, ray.get(ended[0])
            except ray.exceptions.RayError as error:
                yield number, ClusterError(str(error).strip().splitlines()[-1])
        for number in waiting.values():
            yield number, ClusterError(f"it did not end in {timeout_s:.0f} s; is the device in use by another run?")
    finally:
        for worker in workers:
            ray.kill(worker)


class _Worker:
    """A process that does what it is given."""

    def call(self, work: Callable[[int], T], number: int) -> T:
        return work(number)


def _is_gone(node_id: str) -> bool:
    """Tells whether a node has left the cluster, or does so within some seconds: Ray needs them to notice."""
    end = time.monotonic() + _NOTICE_S
    while node_id in nodes():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def _answer(answer: Any) -> tuple[dict[str, Any], list[str]]:
    try:
        facts: dict[str, Any] = ray.get(answer, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return {}, [f"it did not answer for {_ANSWER_S:.0f} s"]
    except ray.exceptions.RayError as error:
        # Ray's text goes on with a stack.
        return {}, [f"it could not run anything: {str(error).strip().splitlines()[-1]}"]
    return facts, []


def _differences(ours: Mapping[str, str | None], theirs: Mapping[str, str | None]) -> list[str]:
    return [
        f"{name} is {theirs[name] or 'not installed'} there and {ours[name]} here, and numbers may differ between "
        "them; install the same on all nodes"
        for name in ours
        if theirs[name] != ours[name]
    ]


def _storage_problems(storage: Storage, problem: str | None, written: str) -> list[str]:
    if problem is None and storage.read(written) is None:
        problem = "this process does not see what the node wrote there"
    if problem is None:
        return []
    return [
        f"{storage.location} cannot hold the results: {problem}. Give a storage_path that is a folder which all nodes "
        "share, or one such as s3://bucket/results"
    ]


@contextmanager
def _initialised(**how: Any) -> Iterator[None]:
    """Runs the block with Ray, silent where our own display tells the same."""
    if ray.is_initialized():
        raise RayInUseError(
            "Ray runs in this process already, with settings of its own; call ray.shutdown() before run(), or "
            'run("inline")'
        )
    sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **how)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, sigterm)  # Ray has one of its own
    # A worker that is lost is told by our display; Ray and Tune would print a page each.
    global_worker_stdstream_dispatcher.remove_handler("ray_print_logs")
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _loopback_alone() -> Iterator[None]:
    """Has a Ray that is started in the block listen on the loopback interface alone."""
    # Ray has this for systems whose firewall would ask; the address that one may give is replaced.
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _private_folder() -> str:
    """Returns a place for Ray's files behind a folder of this user alone: Ray lets everyone read and replace them."""
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()).absolute() / f"ray-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise ClusterError(
                f"{folder} is where Ray's files of this user go, and it is not a folder of this user. Remove it, or "
                "name another place in RAY_TMPDIR"
            )
        folder.chmod(0o700)
    except OSError as error:
        raise ClusterError(
            f"{folder} cannot be made, where Ray's files go ({error.strerror}); name another place in RAY_TMPDIR"
        ) from error
    return str(folder / "ray")


def _close_token_folder() -> None:
    """Keeps the token that Ray makes for this user from others; Ray leaves it readable to them."""
    with suppress(OSError, RuntimeError):  # without a home Ray has no token there either
        folder = Path.home() / ".ray"
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)


@contextmanager
def _shown(gpus: tuple[int, ...] | None) -> Iterator[None]:
    """Shows a Ray that is started in the block these GPUs alone, counted as this process counts them."""
    if gpus is None:
        yield
        return
    manager = get_accelerator_manager_for_resource("GPU")
    name = manager.get_visible_accelerator_ids_env_var()
    before = os.environ.get(name)
    seen = manager.get_current_process_visible_accelerator_ids()
    manager.set_current_process_visible_accelerator_ids([seen[i] if seen else str(i) for i in gpus])
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


@contextmanager
def _by_value(modules: Iterable[ModuleType]) -> Iterator[None]:
    """Sends what these modules define as a whole in the block: other machines do not have their files."""
    modules = list(modules)
    for module in modules:
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            ray.cloudpickle.unregister_pickle_by_value(module)


def _modules_of_this_machine() -> list[ModuleType]:
    """Returns the loaded modules that are neither installed nor ours: those beside the run script."""
    libraries = [Path(path) for name, path in sysconfig.get_paths().items() if name in ("stdlib", "platstdlib")]
    elsewhere = [*libraries, *(_ROOT / name for name in node_facts.PACKAGES)]
    return [
        module
        for name, module in list(sys.modules.items())
        if name not in ("__main__", "__mp_main__") and getattr(module, "__name__", None) == name
        # Some of torch's have a file that is not one.
        for path in [Path(str(getattr(module, "__file__", None)))]
        if path.is_absolute()
        and not {"site-packages", "dist-packages"} & set(path.parts)
        and not any(path.is_relative_to(place) for place in elsewhere)
    ]


def _reach(address: str) -> None:
    """Raises an error at once where nobody listens; Ray tries for a long time."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except OSError as error:
        raise ConnectionError(f"{address} does not answer ({error.strerror or error})") from error


def _show_token_if_asked(address: str) -> None:
    """Has this process show its token if the cluster asks for one.

    Where it does not, a process that shows a token would ask all others for theirs, and be alone.
    """
    if _AUTH_MODE in os.environ:
        return
    try:
        with _stderr_silent():  # a page of C++
            GcsClient(address=address)
    except ray.exceptions.AuthenticationError:
        if not maybe_enable_token_auth_if_token_available(warn_if_disabled=False):
            raise


@contextmanager
def _auth_mode_kept() -> Iterator[None]:
    """Keeps what a cluster of the block asks for from being asked of the next one."""
    if _AUTH_MODE in os.environ:
        yield
        return
    try:
        yield
    finally:
        if os.environ.pop(_AUTH_MODE, None) is not None:
            Config.initialize("")


@contextmanager
def _stderr_silent() -> Iterator[None]:
    """Silences what libraries write past Python."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _why_not_connected(address: str, error: Exception) -> str:
    causes: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(str(cause).strip())
        cause = cause.__cause__
    text = "\n".join(causes)
    if "AuthToken" in text or "authentication" in text:
        return (
            f"the Ray cluster at {address} does not let this process in, for want of its token. Copy the head node's "
            "~/.ray/auth_token to the same place here, or name a file with it in RAY_AUTH_TOKEN_PATH"
        )
    return (
        f"there is no Ray cluster to use at {address}: {causes[0].splitlines()[0]}. Start one there "
        "(ray start --head), or leave the address out to use this machine alone"
    )

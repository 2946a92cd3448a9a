"""Starts Ray on this machine for a run, or connects to a running cluster.

This file must be imported before the other files that import Ray: it sets the environment that Ray reads on import.
"""

import gc
import logging
import os
import signal
import stat
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from cluster.executors import node_facts
from cluster.executors.head_watch import AGAIN, answers, head_watched
from cluster.planning.placement import PRETEND_GPUS, Placement
from data_pipeline.user_error import UserError, first_line

_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a script keep their meaning
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # PoseTune has its own display
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # `placement.py` hides GPUs from trials without one
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # PoseTune has its own records; this avoids five files per trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # PoseTune handles Ctrl-C
    "TUNE_MAX_PENDING_TRIALS_PG": "200",  # how many may wait for a worker at a time: 1 by default
    "TUNE_GLOBAL_CHECKPOINT_S": "31536000",  # its snapshots are not used: a run starts from the trials' folders
    "RAY_NUM_REDIS_GET_RETRIES": "5",  # seconds until a cluster counts as not answering
}
os.environ.update(_ENVIRONMENT)

import ray  # noqa: E402 - it reads the environment on import
from ray._private import ray_constants, worker  # noqa: E402
from ray._private.accelerators import get_accelerator_manager_for_resource  # noqa: E402
from ray._private.authentication.authentication_token_setup import (  # noqa: E402
    maybe_enable_token_auth_if_token_available,
)
from ray._private.node import Node  # noqa: E402
from ray._private.ray_logging import global_worker_stdstream_dispatcher  # noqa: E402
from ray._private.services import canonicalize_bootstrap_address_or_die  # noqa: E402
from ray._private.utils import get_dashboard_dependency_error  # noqa: E402
from ray._raylet import Config, GcsClient  # type: ignore[attr-defined] # noqa: E402

# It warns that a token is required, which is intended.
logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)

_ROOT = Path(__file__).parents[2]
_AUTH_MODE = "RAY_AUTH_MODE"
_CLIENT = "ray://"
_COMES_BACK_S = "RAY_gcs_rpc_server_reconnect_timeout_s"

# The path of a Unix socket may have 103 bytes on macOS, 107 on Linux.
_LONGEST_FOLDER = 103 - len("/ray/session_2026-11-24_21-53-19_563158_4194304/sockets/plasma_store")


class ClusterError(UserError):
    """Ray cannot be used; the text says what is wrong, on which node, and what to do."""


@contextmanager
def embedded(placement: Placement) -> Iterator[None]:
    """Runs Ray on this machine for the block; it listens only on the loopback interface.

    Other users of the machine can neither read nor replace its files.

    Raises:
        ClusterError: If the script has started Ray itself, if there is no place for Ray's files, or if Ray does not
            start.
        HeadLostError: If its head ends during the block.
    """
    _close_token_folder()
    folder = _private_folder()
    # Ray starts a worker for each core in advance. If all of them will train, they import at once what a trial needs.
    preloaded = ["cluster.executors.ray_worker"] if placement.cpus_per_trial == 1 else []
    with ExitStack() as stack:
        stack.enter_context(_auth_mode_kept())
        # Makes it listen only on the loopback interface. Ray has this switch for systems whose firewall would ask; an
        # address argument would be replaced.
        stack.enter_context(_replaced(ray_constants, "ENABLE_RAY_CLUSTER", False))
        for name in _unneeded_processes():
            stack.enter_context(_replaced(Node, name, lambda node, *arguments, **named: None))
        stack.enter_context(_shown(placement.gpus))
        try:
            _start(
                address="local",  # never a cluster that happens to run on this machine
                num_cpus=placement.n_slots * placement.cpus_per_trial,
                num_gpus=len(placement.gpus or ()),
                include_dashboard=False,
                _temp_dir=folder,
                _system_config={"preload_python_modules": preloaded},
            )
        except ClusterError:
            raise
        except Exception as error:  # Ray has no class for this
            raise ClusterError(
                f"Ray did not start on this machine: {first_line(error)}. The machine may be busy or short of memory; "
                f'Ray\'s logs are in {folder}/session_latest/logs. {AGAIN}; or use run("inline"), which needs no Ray'
            ) from error
        stack.enter_context(head_watched(_ended_process, 0.0, _end))
        yield


def _ended_process() -> str | None:
    """Returns which process of the Ray on this machine has ended, if one of those without which it does nothing."""
    node = worker._global_node
    processes = {} if node is None else node.all_processes
    for name in ("gcs_server", "raylet"):
        if any(info.process.poll() is not None for info in processes.get(name, ())):
            return f"the process {name} of Ray has ended: it was killed, or the machine ran out of memory"
    return None


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connects to a cluster for the block; PoseTune's code and the script's modules are sent there.

    Args:
        address: `auto` for the cluster that runs on this machine, `host:port`, or `ray://host:port` from a machine
            outside the cluster.

    Raises:
        ClusterError: If the script has started Ray itself, or if the cluster does not exist or rejects this process.
        HeadLostError: If the cluster's head is lost during the block.
    """
    found = address
    environment = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT or name == PRETEND_GPUS}
    packages = [str(_ROOT / name) for name in node_facts.PACKAGES]
    with ExitStack() as stack:
        stack.enter_context(_auth_mode_kept())
        stack.enter_context(by_value(_modules_of_this_machine()))
        try:
            if address.startswith(_CLIENT):
                _reach(address.removeprefix(_CLIENT))
                maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
            else:
                found = canonicalize_bootstrap_address_or_die(address)
                _reach(found)
                _show_token_if_asked(found)
            _start(address=found, runtime_env={"py_modules": packages, "env_vars": environment})
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ClusterError(_why_not_connected(address, found, error)) from error
        if address.startswith(_CLIENT):
            stack.callback(_end)
        else:
            stack.enter_context(head_watched(partial(_silence, address, found), _patience_s(), _end))
        yield


def _silence(address: str, found: str) -> str | None:
    """Returns why the head of a cluster does not answer; None if it does."""
    try:
        answers(found)
    except OSError as error:
        return f"the head of the Ray cluster at {address} does not answer ({error.strerror or error})"
    return None


def _patience_s() -> float:
    """Returns how long the head of a cluster may not answer: half as long as Ray gives it to come back."""
    return 0.5 * float(os.environ.get(_COMES_BACK_S, "60"))


def asks_for_token(address: str) -> bool | None:
    """Returns whether a cluster requires its token; None for `ray://`, where this can be checked only from inside.

    Raises:
        ClusterError: If there is no such cluster.
    """
    if address.startswith(_CLIENT):
        return None
    mode = os.environ.pop(_AUTH_MODE, None)
    Config.initialize("")
    found = address
    try:
        found = canonicalize_bootstrap_address_or_die(address)
        _reach(found)
        with _stderr_silent():  # a page of C++
            GcsClient(address=found)
    except ray.exceptions.AuthenticationError:
        return True
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ClusterError(_why_not_connected(address, found, error)) from error
    finally:
        if mode is not None:
            os.environ[_AUTH_MODE] = mode
            Config.initialize("")
    return False


def _start(**how: Any) -> None:
    """Starts Ray or connects to it; silences messages that PoseTune's display also shows."""
    if ray.is_initialized():
        raise ClusterError(
            "Ray already runs in this process with other settings; call ray.shutdown() before run(), or use "
            'run("inline")'
        )
    sigterm = signal.getsignal(signal.SIGTERM)
    # Ray would install a handler at once, which ends the process while Ray starts, and its C++ core one at the end.
    with _same_modules(), _replaced(ray._private.utils, "set_sigterm_handler", lambda handler: None):
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **how)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, sigterm)
    # The display reports lost workers; Ray and Tune would print a page for each.
    global_worker_stdstream_dispatcher.remove_handler("ray_print_logs")
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _end() -> None:
    """Ends Ray, or the connection to it.

    Tune leaves objects of Ray in cycles. If another thread released one while Ray ends, Ray would end this process.
    """
    gc.collect()
    ray.shutdown()


def _unneeded_processes() -> list[str]:
    """Returns the methods of Ray's `Node` that start processes which a Ray for one run does not need.

    It has one node, so it needs no autoscaler; nothing reads its logs; and `include_dashboard=False` only hides the
    dashboard. Each of the three is a Python process, which takes a second of a processor and 100 MB.
    """
    names = ["start_monitor", "start_log_monitor"]
    if get_dashboard_dependency_error() is not None:  # with ray[default], another process keeps looking for the server
        names.append("start_api_server")
    return names


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replaces an attribute of Ray for the block."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _private_folder() -> str:
    """Returns a place for Ray's files in a private folder of this user: Ray lets everyone read and replace them."""
    named = os.environ.get("RAY_TMPDIR")
    folder = Path(named or tempfile.gettempdir()).absolute() / f"ray-{os.getuid()}"
    if len(os.fsencode(folder)) > _LONGEST_FOLDER:
        if named:
            raise ClusterError(
                f"{named}, from RAY_TMPDIR, is too long for Ray's sockets: the path may have at most "
                f"{_LONGEST_FOLDER - len(folder.name) - 1} bytes. Set another one"
            )
        folder = Path("/tmp") / folder.name  # Slurm and macOS may give each job a long TMPDIR
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise ClusterError(
                f"{folder} is the place of Ray's files, but it is not a folder of this user. Remove it, or set another "
                "place in RAY_TMPDIR"
            )
        folder.chmod(0o700)
    except OSError as error:
        raise ClusterError(
            f"{folder}, the place of Ray's files, cannot be made ({error.strerror}); set another place in RAY_TMPDIR"
        ) from error
    return str(folder / "ray")


def _close_token_folder() -> None:
    """Makes the folder of Ray's token private: Ray leaves the token readable for other users."""
    with suppress(OSError, RuntimeError):  # without a home Ray has no token there either
        folder = Path.home() / ".ray"
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)


@contextmanager
def _shown(gpus: tuple[int, ...] | None) -> Iterator[None]:
    """Shows a Ray that starts in the block only these GPUs, numbered as in this process."""
    if gpus is None:
        yield
        return
    manager = get_accelerator_manager_for_resource("GPU")
    name = manager.get_visible_accelerator_ids_env_var()
    seen = manager.get_current_process_visible_accelerator_ids()
    with _restored(name):
        manager.set_current_process_visible_accelerator_ids([seen[i] if seen else str(i) for i in gpus])
        yield


@contextmanager
def _same_modules() -> Iterator[None]:
    """Makes workers of a Ray that starts in the block look for modules where this process does."""
    # Not the folders of this Python: another Python that a worker starts would find the wrong modules.
    own = [Path(prefix) for prefix in (sys.prefix, sys.base_prefix)]
    paths = [path for path in sys.path if path and not any(Path(path).is_relative_to(prefix) for prefix in own)]
    with _restored("PYTHONPATH"):
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        yield


@contextmanager
def _restored(name: str) -> Iterator[None]:
    """Restores a variable of the environment after the block."""
    before = os.environ.get(name)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


@contextmanager
def by_value(modules: Iterable[ModuleType]) -> Iterator[None]:
    """Pickles the content of these modules by value in the block: other machines do not have their files."""
    modules = list(modules)
    for module in modules:
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            ray.cloudpickle.unregister_pickle_by_value(module)


def _modules_of_this_machine() -> list[ModuleType]:
    """Returns the loaded modules that are neither installed nor part of PoseTune: those next to the run script."""
    libraries = [Path(path) for name, path in sysconfig.get_paths().items() if name in ("stdlib", "platstdlib")]
    elsewhere = [*libraries, *(_ROOT / name for name in node_facts.PACKAGES)]
    return [
        module
        for name, module in list(sys.modules.items())
        if name not in ("__main__", "__mp_main__") and getattr(module, "__name__", None) == name
        # Some modules of torch have a `__file__` that does not exist.
        for path in [Path(str(getattr(module, "__file__", None)))]
        if path.is_absolute()
        and not {"site-packages", "dist-packages"} & set(path.parts)
        and not any(path.is_relative_to(place) for place in elsewhere)
    ]


def _reach(address: str) -> None:
    """Raises an error immediately if nothing listens at the address; Ray would try for a long time."""
    if not address.rpartition(":")[2].isdecimal():
        raise ValueError("it has no port; write host:port")
    try:
        answers(address)
    except OSError as error:
        raise ConnectionError(f"nothing answers there ({error.strerror or error})") from error


def _show_token_if_asked(address: str) -> None:
    """Makes this process present its token if the cluster requires one.

    If it does not, a process with a token would require one from all others, and could not connect.
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
    """Restores the authentication mode after the block, so the next cluster is not asked for the same."""
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
    """Silences what libraries write directly to the standard error stream."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _why_not_connected(address: str, found: str, error: Exception) -> str:
    """Returns the text of an error at connecting to `address`, which Ray looks for at `found`."""
    if found != address:
        address = f"{address} (for Ray that is {found})"
    causes: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(str(cause).strip())
        cause = cause.__cause__
    text = "\n".join(causes)
    if "AuthToken" in text or "authentication" in text:
        return (
            f"the Ray cluster at {address} rejects this process, which does not have its token. Copy the head node's "
            "~/.ray/auth_token to the same place here, or set RAY_AUTH_TOKEN_PATH to a file with it"
        )
    if causes[0].startswith("Version mismatch"):
        return (
            f"the Ray cluster at {address} has another version of Ray or Python than this process; both must be "
            f"exactly the same. {' '.join(causes[0].split())}. Install the same versions here and there"
        )
    reason, *more = causes[0].splitlines()
    if reason.endswith(":") and more:  # a traceback of the server follows, whose last line says what happened
        reason = f"{reason} {more[-1].strip()}"
    return (
        f"there is no usable Ray cluster at {address}: {reason.rstrip('.')}. Start one there "
        "(ray start --head), or omit the address to use only this machine"
    )

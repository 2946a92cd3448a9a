"""Ray itself: one of our own on this machine for as long as a run, or a cluster that runs already.

Only this file, `ray_nodes.py`, `ray_runner.py` and `ray_worker.py` import Ray; this one is the first, since it sets the
environment that Ray reads when it is imported.
"""

import logging
import os
import signal
import socket
import stat
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from cluster.executors import node_facts
from cluster.planning.placement import PRETEND_GPUS, Placement
from data_pipeline.user_error import UserError

_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a script keep their meaning
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the display is ours
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # who asks for no GPU is shown none by `cluster/planning/placement.py`
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

# What it warns of, that a token is asked for, is as it should be.
logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)

_ROOT = Path(__file__).parents[2]
_AUTH_MODE = "RAY_AUTH_MODE"
_CLIENT = "ray://"
_REACH_S = 5.0

# The name of a Unix socket has up to 103 bytes on macOS, 107 on Linux.
_LONGEST_FOLDER = 103 - len("/ray/session_2026-11-24_21-53-19_563158_4194304/sockets/plasma_store")


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
        stack.enter_context(by_value(_modules_of_this_machine()))
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


@contextmanager
def _initialised(**how: Any) -> Iterator[None]:
    """Runs the block with Ray, silent where our own display tells the same."""
    if ray.is_initialized():
        raise RayInUseError(
            "Ray runs in this process already, with settings of its own; call ray.shutdown() before run(), or "
            'run("inline")'
        )
    sigterm = signal.getsignal(signal.SIGTERM)
    with _same_modules():
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
    named = os.environ.get("RAY_TMPDIR")
    folder = Path(named or tempfile.gettempdir()).absolute() / f"ray-{os.getuid()}"
    if len(os.fsencode(folder)) > _LONGEST_FOLDER:
        if named:
            raise ClusterError(
                f"{named}, from RAY_TMPDIR, is too long for a place of Ray's sockets: a path may have "
                f"{_LONGEST_FOLDER - len(folder.name) - 1} bytes. Name another one"
            )
        folder = Path("/tmp") / folder.name  # Slurm and macOS may give each job a long TMPDIR
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
    seen = manager.get_current_process_visible_accelerator_ids()
    with _restored(name):
        manager.set_current_process_visible_accelerator_ids([seen[i] if seen else str(i) for i in gpus])
        yield


@contextmanager
def _same_modules() -> Iterator[None]:
    """Has workers of a Ray that is started in the block look for modules where this process does."""
    # Python itself adds its own folders; another one that a worker starts would find the wrong ones.
    own = [Path(prefix) for prefix in (sys.prefix, sys.base_prefix)]
    paths = [path for path in sys.path if path and not any(Path(path).is_relative_to(prefix) for prefix in own)]
    with _restored("PYTHONPATH"):
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        yield


@contextmanager
def _restored(name: str) -> Iterator[None]:
    """Gives a variable of the environment its value back after the block."""
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
    if causes[0].startswith("Version mismatch"):
        return (
            f"the Ray cluster at {address} has another version of Ray or Python than this process, and both have to "
            f"agree to the last number. {' '.join(causes[0].split())}. Install the same ones here and there"
        )
    return (
        f"there is no Ray cluster to use at {address}: {causes[0].splitlines()[0]}. Start one there "
        "(ray start --head), or leave the address out to use this machine alone"
    )

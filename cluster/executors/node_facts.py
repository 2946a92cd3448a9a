"""Collects the facts of a cluster's node: versions, GPUs, storage.

This module is sent to the node by value and imports only Python's own modules at its top, so it also works on a node
where something is missing or has another version.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
from pathlib import Path
from typing import Any

PACKAGES = ("cluster", "posenet", "data_pipeline")


def versions() -> dict[str, str | None]:
    """Returns the versions that must be the same on all nodes; None for what is not installed."""
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "torch": _version("torch"),
        "ray": _version("ray"),
        "PoseTune": code_version(),
    }


def collect_facts(storage_path: str, probe: str, node_id: str, *, count_gpus: bool) -> dict[str, Any]:
    """Returns the facts of the node on which this process runs.

    Args:
        storage_path: The folder for results.
        probe: The name of a file in it, which this process must see; it writes a file of its own next to it.
        node_id: The node.
        count_gpus: Count the GPUs that torch sees, which needs the import of torch.
    """
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "versions": versions(),
        "gpus": _gpus() if count_gpus else None,
        "storage": _try_storage(storage_path, probe, node_id),
        "shm_bytes": shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else None,
    }


def _version(package: str) -> str | None:
    try:
        # After a + the version names the hardware that it was built for.
        return importlib.metadata.version(package).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def code_version() -> str | None:
    """Returns a hash of PoseTune's code as this process would import it; None if the code is not found."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            return None
        root = Path(next(iter(found.submodule_search_locations)))
        # CSV tables are a part of the code.
        for path in sorted([*root.rglob("*.py"), *root.rglob("*.csv")]):
            digest.update(f"{package}/{path.relative_to(root).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _gpus() -> int | str:
    # Ray may hide all GPUs from a task that asks for none; torch should see those that the node was started with.
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"):
        if os.environ.get(name) == "":
            del os.environ[name]
    try:
        import torch
    except Exception as error:
        return f"torch cannot be imported: {error}"
    return torch.accelerator.device_count()


def _try_storage(storage_path: str, probe: str, node_id: str) -> str | None:
    """Returns why this node cannot use the folder for results; None if it can."""
    try:
        from cluster.storage.filesystem import Storage

        storage = Storage(storage_path)
        if storage.read(probe) is None:
            return "it does not see the file that this process wrote there"
        storage.write(f"{probe}-{node_id}", b"")
    except Exception as error:
        return str(error)
    return None

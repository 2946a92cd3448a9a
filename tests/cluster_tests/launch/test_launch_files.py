"""The launch files for machines with ssh, Kubernetes and Docker."""

import copy
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.support import ROOT

LAUNCH = ROOT / "cluster" / "launch"

# ---------------------------------------------------------------------------------------------- machines with ssh


@pytest.fixture(scope="module")
def ssh_cluster() -> dict[str, Any]:
    return yaml.safe_load((LAUNCH / "ssh_cluster.yaml").read_text())


def as_ray_up_reads_it(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ray_up_takes_the_ssh_cluster_and_keeps_all_its_workers(ssh_cluster):
    prepared = as_ray_up_reads_it(ssh_cluster)
    nodes = prepared["available_node_types"]["local.cluster.node"]
    assert nodes["min_workers"] == nodes["max_workers"] == len(ssh_cluster["provider"]["worker_ips"])


@pytest.mark.slow
def test_ray_up_finds_a_misspelt_key_of_the_ssh_cluster(ssh_cluster):
    import click

    unseen = []
    for place in [(), ("auth",), ("provider",)]:
        for key in at(ssh_cluster, place):
            wrong = copy.deepcopy(ssh_cluster)
            rename(at(wrong, place), key)
            # Without `provider` Ray raises a KeyError.
            with suppress(jsonschema.ValidationError, click.ClickException, KeyError, SystemExit):
                as_ray_up_reads_it(wrong)
                unseen.append((*place, key))
    assert unseen == []


def test_ssh_machines_start_ray_with_options_it_has(ssh_cluster):
    starts = [command for kind in ("head", "worker") for command in ssh_cluster[f"{kind}_start_ray_commands"]]
    found = [
        re.findall(r"(--[\w-]+)", command.split("ray start", 1)[1]) for command in starts if "ray start" in command
    ]
    assert len(found) == 2
    for options in found:
        assert set(options) <= {f"--{name}" for name in ray_start_options()}


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_ssh_machines_ask_for_the_token_and_send_no_usage_statistics(ssh_cluster, kind):
    start = ssh_cluster[f"{kind}_start_ray_commands"][-1]
    exported = dict(word.split("=") for word in shlex.split(start.split("export ")[1].split(";")[0]))
    assert exported["RAY_AUTH_MODE"] == "token"
    assert exported["RAY_USAGE_STATS_ENABLED"] == "0"
    assert "~/.ray/auth_token" in ssh_cluster["file_mounts"]


def test_the_head_of_ssh_machines_has_no_place_for_trials_and_the_autoscaler_that_knows_them(ssh_cluster):
    start = ssh_cluster["head_start_ray_commands"][-1]
    assert {"--head", "--num-cpus=0", "--num-gpus=0"} <= set(shlex.split(start))
    assert "RAY_enable_autoscaler_v2=0" in start


def test_commands_for_ssh_machines_are_valid_shell(ssh_cluster):
    commands = [c for key, value in ssh_cluster.items() if key.endswith("_commands") for c in value]
    assert len(commands) >= 6
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)


# ----------------------------------------------------------------------------------------------------- Kubernetes

# The fields of KubeRay 1.7's ray.io/v1, from its API reference, but for some that are for its operators alone. The pods
# in it are checked against Kubernetes' own schema.
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}


def closed(required: list[str], **fields: Any) -> dict[str, Any]:
    """Returns the schema of an object that has these fields and no others."""
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


TEXT, COUNT, YES_NO, POD = (
    {"type": "string"},
    {"type": "integer", "minimum": 0},
    {"type": "boolean"},
    {"type": "object"},
)
GROUP = {"template": POD, "rayStartParams": STRINGS, "resources": STRINGS, "labels": STRINGS}
RAY_JOB = closed(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=closed(["name"], name=TEXT, namespace=TEXT, labels=STRINGS, annotations=STRINGS),
    spec=closed(
        ["entrypoint", "rayClusterSpec"],
        activeDeadlineSeconds=COUNT,
        backoffLimit=COUNT,
        entrypoint=TEXT,
        entrypointNumCpus={"type": "number"},
        entrypointNumGpus={"type": "number"},
        entrypointResources=TEXT,
        jobId=TEXT,
        managedBy=TEXT,
        metadata=STRINGS,
        preRunningDeadlineSeconds=COUNT,
        runtimeEnvYAML=TEXT,
        shutdownAfterJobFinishes=YES_NO,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        submitterConfig=closed([], backoffLimit=COUNT),
        submitterPodTemplate=POD,
        suspend=YES_NO,
        ttlSecondsAfterFinished=COUNT,
        rayClusterSpec=closed(
            ["rayVersion", "headGroupSpec", "workerGroupSpecs"],
            rayVersion=TEXT,
            authOptions=closed(["mode"], mode={"enum": ["disabled", "token"]}, secretName=TEXT),
            enableInTreeAutoscaling=YES_NO,
            headGroupSpec=closed(
                ["template", "rayStartParams"],
                **GROUP,
                enableIngress=YES_NO,
                serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
            ),
            workerGroupSpecs={
                "type": "array",
                "items": closed(
                    ["groupName", "template", "rayStartParams"],
                    **GROUP,
                    groupName=TEXT,
                    replicas=COUNT,
                    minReplicas=COUNT,
                    maxReplicas=COUNT,
                    idleTimeoutSeconds=COUNT,
                    numOfHosts=COUNT,
                ),
            },
        ),
    ),
)
# Below these, any names are allowed.
FREE_NAMES = {"rayStartParams", "requests", "limits"}
HEAD = ("spec", "rayClusterSpec", "headGroupSpec")
WORKER = ("spec", "rayClusterSpec", "workerGroupSpecs", 0)
SUBMITTER = ("spec", "submitterPodTemplate")
TEMPLATES = [(*HEAD, "template"), (*WORKER, "template"), SUBMITTER]


@pytest.fixture(scope="module")
def ray_job() -> dict[str, Any]:
    # A copy in which YAML aliases are separate objects.
    job = yaml.safe_load((LAUNCH / "kubernetes_rayjob.yaml").read_text())
    return copy_without_sharing(job)


@pytest.fixture(scope="module")
def storage() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((LAUNCH / "kubernetes_storage.yaml").read_text()))


def check_kubernetes(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.37", strict=True)


def check_ray_job(job: dict[str, Any]) -> None:
    jsonschema.validate(job, RAY_JOB)
    for place in TEMPLATES:
        check_kubernetes({"apiVersion": "v1", "kind": "PodTemplate", "template": at(job, place)})


@pytest.mark.slow
def test_the_ray_job_has_only_fields_that_kuberay_and_kubernetes_know(ray_job):
    check_ray_job(ray_job)


@pytest.mark.slow
def test_a_misspelt_field_anywhere_in_the_ray_job_is_found(ray_job):
    unseen = [place for place in names(ray_job) if not is_found(check_ray_job, ray_job, place)]
    assert unseen == []


@pytest.mark.slow
def test_the_storage_has_only_fields_that_kubernetes_knows_and_a_misspelt_one_is_found(storage):
    assert [document["kind"] for document in storage] == ["PersistentVolumeClaim", "PersistentVolumeClaim", "Pod"]
    for document in storage:
        check_kubernetes(document)
        assert [place for place in names(document) if not is_found(check_kubernetes, document, place)] == []


def test_ray_knows_all_start_parameters_of_the_ray_job(ray_job):
    for group in (HEAD, WORKER):
        assert set(at(ray_job, group)["rayStartParams"]) <= ray_start_options()


def test_the_ray_job_has_a_token_ends_its_cluster_and_is_started_again(ray_job):
    spec = ray_job["spec"]
    assert spec["rayClusterSpec"]["authOptions"]["mode"] == "token"
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["backoffLimit"] > 0


def test_the_ray_job_has_the_version_of_ray_that_the_requirements_pin(ray_job):
    pinned = re.search(r"^ray\[client,tune\]==(\d+\.\d+)\.\*$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)[
        1
    ]
    assert ray_job["spec"]["rayClusterSpec"]["rayVersion"].startswith(f"{pinned}.")


def test_the_head_of_the_ray_job_has_no_place_for_trials(ray_job):
    assert at(ray_job, HEAD)["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in at(ray_job, HEAD)["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert "nvidia.com/gpu" in at(ray_job, WORKER)["template"]["spec"]["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize("group", [HEAD, WORKER], ids=["head", "worker"])
def test_rays_object_store_fits_into_shm_and_shm_into_the_memory_of_the_pod(ray_job, group):
    pod = at(ray_job, group)["template"]["spec"]
    (container,) = pod["containers"]
    (name,) = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
    (shm,) = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == name]
    assert shm["medium"] == "Memory"
    store = int(at(ray_job, group)["rayStartParams"]["object-store-memory"])
    assert store < gibibytes(shm["sizeLimit"]) * 2**30
    assert gibibytes(shm["sizeLimit"]) < gibibytes(container["resources"]["limits"]["memory"])


def test_every_claim_of_the_pods_is_in_the_storage_and_writable_by_all(ray_job, storage):
    claims = {document["metadata"]["name"]: document["spec"] for document in storage if "Claim" in document["kind"]}
    volumes = [volume for pod in pods(ray_job, storage) for volume in pod.get("volumes", [])]
    assert {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v} == set(claims)
    assert all(claim["accessModes"] == ["ReadWriteMany"] for claim in claims.values())


def test_no_pod_may_do_more_than_it_needs(ray_job, storage):
    for pod in pods(ray_job, storage):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            assert container["resources"]["requests"] == container["resources"]["limits"]


def test_all_pods_have_the_same_image(ray_job, storage):
    assert len({container["image"] for pod in pods(ray_job, storage) for container in pod["containers"]}) == 1


def test_credentials_come_from_a_secret_and_no_file_holds_one(ray_job, storage):
    for pod in pods(ray_job, storage):
        for container in pod["containers"]:
            for variable in container.get("env", []):
                assert not re.search("KEY|SECRET|TOKEN|PASSWORD", variable["name"])
    for group in (HEAD, WORKER):
        (container,) = at(ray_job, group)["template"]["spec"]["containers"]
        assert [list(source) for source in container["envFrom"]] == [["secretRef"]]


@pytest.mark.parametrize("group", [HEAD, WORKER], ids=["head", "worker"])
def test_a_stopped_pod_leaves_trials_more_than_the_25_s_they_may_need_to_save(ray_job, group):
    pod = at(ray_job, group)["template"]["spec"]
    hook = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    wait_s = int(re.search(r"timeout (\d+)", hook[-1])[1])
    assert 30 <= wait_s <= pod["terminationGracePeriodSeconds"] - 15
    subprocess.run(["bash", "-n", *hook[1:]], check=True)


@pytest.mark.slow
def test_the_stop_hook_of_the_head_ends_the_script_and_waits_for_it(ray_job, tmp_path):
    (tmp_path / "tune_runs").mkdir()
    (tmp_path / "tune_runs" / "minimal_example.py").write_text(
        "import signal, sys, time\n"
        "def stop(*_):\n"
        "    time.sleep(2)\n"
        "    print('saved', flush=True)\n"
        "    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('running', flush=True)\n"
        "time.sleep(60)\n"
    )
    hook = at(ray_job, HEAD)["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    script = re.fullmatch("exec python (tune_runs/.*)", ray_job["spec"]["entrypoint"])[1]
    # The hook finds the script by its name; here the name is unique among all processes.
    name = f"python tune_runs/{secrets.token_hex(8)}"
    command = ["bash", "-c", f"exec -a '{name}' {sys.executable} {script}"]
    started = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert started.stdout.readline() == "running\n"
        subprocess.run([part.replace("python tune_runs/", name) for part in hook], check=True, timeout=30)
        assert started.wait(timeout=5) == 75
        assert started.stdout.read() == "saved\n"
    finally:
        started.kill()
        started.wait()
        started.stdout.close()


# --------------------------------------------------------------------------------------------------------- Docker


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    from dockerfile_parse import DockerfileParser

    parser = DockerfileParser(str(LAUNCH / "Dockerfile"))
    return [(step["instruction"], step["value"]) for step in parser.structure if step["instruction"] != "COMMENT"]


def values(instructions: list[tuple[str, str]], name: str) -> list[str]:
    return [value for instruction, value in instructions if instruction == name]


@pytest.mark.slow
def test_hadolint_has_nothing_to_say_of_the_dockerfile():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, LAUNCH / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_as_a_numbered_user_who_is_not_root(instructions):
    # Kubernetes' runAsNonRoot rejects a name.
    assert values(instructions, "USER")[-1] == "${UID}"
    (uid,) = [value for value in values(instructions, "ARG") if value.startswith("UID=")]
    assert int(uid.removeprefix("UID=")) > 0


def test_pid_1_of_the_image_passes_signals_to_the_script(instructions):
    # The JSON form, because a shell would not pass SIGTERM on.
    (entrypoint,), (command,) = values(instructions, "ENTRYPOINT"), values(instructions, "CMD")
    assert yaml.safe_load(entrypoint) == ["tini", "--"]
    interpreter, script = yaml.safe_load(command)
    assert interpreter == "python"
    assert (ROOT / script).is_file()


def test_what_the_image_copies_is_there_and_not_ignored(instructions):
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    sources = [source for value in values(instructions, "COPY") for source in value.split()[:-1]]
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignore
    assert {"data_pipeline", "posenet", "cluster", "tune_runs"} <= set(sources)


def test_a_change_of_code_leaves_the_layer_of_requirements_alone(instructions):
    copies = values(instructions, "COPY")
    assert copies[0].split()[:-1] == ["requirements.txt", "requirements-report.txt"]
    names_of_steps = [name for name, _ in instructions]
    assert "RUN" in names_of_steps[names_of_steps.index("COPY") + 1 : names_of_steps.index("COPY") + 2]


def test_the_image_holds_no_secret(instructions):
    text = "\n".join(value for name, value in instructions if name in ("ARG", "ENV", "RUN"))
    assert not re.search("TOKEN|SECRET|PASSWORD|ACCESS_KEY", text, re.IGNORECASE)


@pytest.mark.parametrize(
    ("device", "installs"),
    [
        ("cuda", ["--no-cache-dir --requirement requirements.txt ray[default]"]),
        (
            "cpu",
            [
                "--no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==",
                "--no-cache-dir --requirement requirements.txt ray[default]",
            ],
        ),
        ("gpu", None),
    ],
)
def test_the_image_has_torch_for_the_device_that_was_asked_for(instructions, device, installs):
    (step,) = [value for value in values(instructions, "RUN") if "--requirement" in value]
    script = f'pip() {{ shift; echo "$*"; }}\n{step}'
    done = subprocess.run(
        ["sh", "-c", script], cwd=ROOT, env={"DEVICE": device, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    if installs is None:
        assert (done.returncode, done.stderr) == (1, "DEVICE is gpu; allowed: cuda, cpu\n")
    else:
        assert done.returncode == 0
        lines = done.stdout.splitlines()
        assert len(lines) == len(installs)
        for line, expected in zip(lines, installs, strict=True):
            assert line.startswith(expected)


# --------------------------------------------------------------------------------------------------------- README


def test_every_file_that_the_page_names_is_there():
    page = (LAUNCH / "README.md").read_text()
    named = set(re.findall(r"\b(?:cluster/launch|tune_runs|docs)/[\w./-]*\w", page))
    assert len(named) > 3
    missing = {name for name in named if not (ROOT / name).exists()} - {"tune_runs/my_script.py"}
    assert missing == set()


# -------------------------------------------------------------------------------------------------------- helpers


def ray_start_options() -> set[str]:
    from ray.scripts.scripts import start

    return {option.lstrip("-") for parameter in start.params for option in parameter.opts}


def at(document: Any, place: tuple[str | int, ...]) -> Any:
    for step in place:
        document = document[step]
    return document


def rename(mapping: dict[str, Any], key: str) -> None:
    mapping[f"{key}x"] = mapping.pop(key)


def copy_without_sharing(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: copy_without_sharing(value) for key, value in document.items()}
    return [copy_without_sharing(value) for value in document] if isinstance(document, list) else document


def names(document: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yields the place of every field whose name has a meaning."""
    if isinstance(document, dict):
        for key, value in document.items():
            if place[-1:] != () and place[-1] in FREE_NAMES:
                return
            yield (*place, key)
            yield from names(value, (*place, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from names(value, (*place, index))


def is_found(check: Any, document: dict[str, Any], place: tuple[str | int, ...]) -> bool:
    """Returns whether `check` rejects the document with a misspelt field at this place."""
    wrong = copy.deepcopy(document)
    rename(at(wrong, place[:-1]), str(place[-1]))
    try:
        check(wrong)
    except (jsonschema.ValidationError, KeyError, kubernetes_validate.SchemaNotFoundError):
        return True
    return False


def pods(job: dict[str, Any], storage: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [at(job, place)["spec"] for place in TEMPLATES] + [storage[-1]["spec"]]


def gibibytes(quantity: str) -> int:
    assert quantity.endswith("Gi")
    return int(quantity.removesuffix("Gi"))

"""cluster.yaml and the RayJobs are what Ray, KubeRay and Kubernetes read, and open nothing."""

import copy
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml

from raypo import config as configs

ROOT = Path(__file__).resolve().parents[2]
KUBERAY = ROOT / "jobs/kuberay"
JOBS = ("pipeline", "smoke")
KUBERNETES = "1.34"
SHARED = "/mnt/raypo"


@pytest.fixture
def launcher():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture(params=JOBS)
def job(request):
    return yaml.safe_load((KUBERAY / f"{request.param}.yaml").read_text())


def groups(job):
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def check_job(job):
    """As KubeRay's API would take it; Kubernetes' part by Kubernetes' own schemas."""
    schema = yaml.safe_load((ROOT / "tests/sanity/rayjob.schema.yaml").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(job, schema, cls=jsonschema.Draft202012Validator)
    for group in groups(job):
        template = {"apiVersion": "v1", "kind": "PodTemplate", "template": group["template"]}
        kubernetes_validate.validate(template, KUBERNETES, strict=True)


def test_cluster_file_satisfies_rays_own_schema(launcher):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(launcher))


def test_the_launcher_has_a_head_without_work_and_gpu_workers_that_come_and_go(launcher):
    head = launcher["available_node_types"][launcher["head_node_type"]]
    (workers,) = (
        each
        for name, each in launcher["available_node_types"].items()
        if name != launcher["head_node_type"]
    )
    assert head["resources"] == {"CPU": 0}
    assert workers["min_workers"] == 0 < workers["max_workers"] <= launcher["max_workers"]
    assert 0 < launcher["idle_timeout_minutes"] <= 30
    assert head["node_config"]["ImageId"] == workers["node_config"]["ImageId"]


def test_the_launcher_opens_no_port_and_asks_for_a_token(launcher):
    (start,) = (each for each in launcher["head_start_ray_commands"] if "--head" in each)
    assert "--dashboard-host=127.0.0.1" in start
    assert launcher["provider"]["security_group"]["IpPermissions"] == []
    assert any("RAY_AUTH_MODE=token" in each for each in launcher["setup_commands"])
    assert "~/.ray/auth_token" in launcher["file_mounts"]


def test_what_is_copied_to_the_machines_is_the_code_and_only_that(launcher):
    # Patterns without a leading slash match everywhere: `data` would leave out raypo/data.
    excluded = {each for each in launcher["rsync_exclude"] if not each.startswith("/")}
    files = [file.relative_to(ROOT) for file in (ROOT / "raypo").rglob("*.py")]
    names = {part for file in files for part in file.parts}
    assert not names & excluded
    assert {".venv", ".git", "/runs", "/data"} <= set(launcher["rsync_exclude"])


def test_the_launchers_commands_are_shell(launcher):
    for key in [key for key in launcher if key.endswith("commands")]:
        for command in launcher[key]:
            checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
            assert checked.returncode == 0, checked.stderr


def test_manifests_are_what_kuberay_and_kubernetes_read(job):
    check_job(job)
    claim = yaml.safe_load((KUBERAY / "storage.yaml").read_text())
    kubernetes_validate.validate(claim, KUBERNETES, strict=True)
    mounted = {"name": "raypo", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}
    for group in groups(job):
        assert mounted in group["template"]["spec"]["volumes"]
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "raypo", "mountPath": SHARED} in container["volumeMounts"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda job: job["spec"].update(entryPoint="raypo"),
        lambda job: job["spec"].update(ttlSecondsAfterFinished="60"),
        lambda job: job["spec"].update(submissionMode="Job"),
        lambda job: job["spec"].pop("shutdownAfterJobFinishes"),
        lambda job: groups(job)[0]["rayStartParams"].update({"num-cpus": 0}),
        lambda job: groups(job)[1].pop("groupName"),
        lambda job: groups(job)[1].update(maxReplica=2),
        lambda job: groups(job)[0]["template"]["spec"]["containers"][0].update(imag="raypo"),
        lambda job: groups(job)[1]["template"]["spec"].update(tolerations=[{"key": 1}]),
    ],
)
def test_a_mistake_in_a_manifest_is_found(job, spoil):
    spoilt = copy.deepcopy(job)
    spoil(spoilt)
    with pytest.raises(jsonschema.ValidationError):
        check_job(spoilt)


def test_rays_autoscaler_sees_a_head_without_cores_and_workers_from_none(job):
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )

    cluster = {
        "metadata": {"name": "raypo", "namespace": "default"},
        "spec": job["spec"]["rayClusterSpec"],
    }
    seen = _derive_autoscaling_config_from_ray_cr(cluster)
    types = seen["available_node_types"]
    head = types.pop(seen["head_node_type"])
    assert head["resources"]["CPU"] == 0
    ((name, workers),) = types.items()
    assert workers["min_workers"] == 0 < workers["max_workers"]
    assert workers["resources"].get("GPU", 0) == (1 if name == "gpu" else 0)


def test_manifests_open_nothing_outside_and_ask_for_a_token(job):
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "enableIngress" not in cluster["headGroupSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    for group in groups(job):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert "hostNetwork" not in pod
        for container in pod["containers"]:
            assert "ports" not in container
            assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_manifests_and_image_have_the_ray_of_this_environment(job):
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__
    dockerfile = (KUBERAY / "Dockerfile").read_text()
    assert f"BASE=rayproject/ray:{ray.__version__}-py311-gpu" in dockerfile


def test_the_cluster_pipeline_parses_and_uses_storage_that_all_machines_share(launcher):
    file = ROOT / "jobs/configs/pipeline_gpu.yaml"
    config = configs.load_config(configs.PipelineConfig, file)
    machines = launcher["available_node_types"]["gpu_worker"]["max_workers"]
    for training in (config.sft, config.align):
        assert 0 < training.cluster.workers * training.cluster.gpus_per_worker <= machines
    assert 0 < config.evaluate.engine.engines * config.evaluate.engine.gpus_per_engine <= machines
    assert 0 < config.evaluate.scorer.workers * config.evaluate.scorer.gpus_per_worker <= machines
    assert str(config.output).startswith(SHARED)
    files = [*config.prepare.interactions, *config.prepare.items]
    assert all(file.startswith(SHARED) for file in files)
    assert any(SHARED in each for each in launcher["worker_setup_commands"])

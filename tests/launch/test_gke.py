# SPDX-License-Identifier: BSD-3-Clause
import copy
import math
import re
import tomllib

import pytest
import yaml

from mlimages_jax import settings
from mlimages_jax.distributed import preemption
from tests.launch.stand_ins import LAUNCH, ROOT, StandIns
from tests.support.small_run import load_config

GKE = LAUNCH / "gke"
MANIFESTS = ["tpu_jobset.yaml", "gpu_jobset.yaml"]
RESOURCES = {"tpu_jobset.yaml": "google.com/tpu", "gpu_jobset.yaml": "nvidia.com/gpu"}
CHIPS_PER_HOST = {"tpu-v5-lite-podslice": 4}  # machine type ct5lp-hightpu-4t

# The part of jobset.x-k8s.io/v1alpha2 and batch/v1 that the manifests use. A dict lists all keys
# that may occur ("*": any name), those with ! must; a list holds items of one kind; a set, all
# values allowed.
NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
RESOURCE = {"*": int}
CONTAINER = {
    "name!": NAME,
    "image!": str,
    "command!": [str],
    "args!": [str],
    "ports": [{"containerPort!": int}],
    "resources!": {"requests!": RESOURCE, "limits!": RESOURCE},
    "volumeMounts": [{"name!": NAME, "mountPath!": str}],
}
POD = {
    "restartPolicy!": {"Never"},  # required beside a podFailurePolicy
    "terminationGracePeriodSeconds!": int,
    "serviceAccountName": str,
    "nodeSelector!": {"*": str},
    "tolerations": [{"key": str, "operator": {"Exists", "Equal"}, "effect": {"NoSchedule"}}],
    "containers!": [CONTAINER],
    "volumes": [{"name!": NAME, "emptyDir": {"medium": {"Memory"}}}],
}
RULE = {
    "action!": {"FailJob", "Ignore", "Count"},
    "onExitCodes": {"containerName": NAME, "operator!": {"In", "NotIn"}, "values!": [int]},
    "onPodConditions": [{"type!": {"DisruptionTarget"}, "status!": {"True"}}],
}
JOB = {
    "parallelism!": int,
    "completions!": int,
    "completionMode!": {"Indexed"},
    "backoffLimit!": int,
    "podFailurePolicy!": {"rules!": [RULE]},
    "template!": {"spec!": POD},
}
JOBSET = {
    "apiVersion!": {"jobset.x-k8s.io/v1alpha2"},
    "kind!": {"JobSet"},
    "metadata!": {"name!": NAME, "annotations": {"*": str}},
    "spec!": {
        "network": {"enableDNSHostnames": bool, "publishNotReadyAddresses": bool},
        "failurePolicy!": {
            "maxRestarts!": int,
            "restartStrategy!": {"Recreate", "BlockingRecreate"},
            "rules!": [
                {
                    "name!": re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"),
                    "action!": {
                        "FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts",
                    },
                    "onJobFailureReasons": [
                        {"PodFailurePolicy", "BackoffLimitExceeded", "DeadlineExceeded"}
                    ],
                    "onJobFailureMessagePatterns": [str],
                }
            ],
        },
        "replicatedJobs!": [{"name!": NAME, "replicas!": int, "template!": {"spec!": JOB}}],
    },
}  # fmt: skip


def problems(value, model, where=""):
    """What of a manifest does not fit the model, each with its place."""
    if isinstance(model, dict):
        if not isinstance(value, dict):
            return [f"{where}: not a mapping"]
        models = {key.rstrip("!"): inner for key, inner in model.items()}
        required = [key[:-1] for key in model if key.endswith("!")]
        found = [f"{where}.{key}: missing" for key in required if key not in value]
        for key, inner in value.items():
            if key in models or "*" in models:
                found += problems(inner, models.get(key, models.get("*")), f"{where}.{key}")
            else:
                found.append(f"{where}.{key}: unknown")
        return found
    if isinstance(model, list):
        if not isinstance(value, list) or not value:
            return [f"{where}: not a list with items"]
        places = [(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return [line for item, place in places for line in problems(item, model[0], place)]
    if isinstance(model, set):
        fits = value in model
    elif isinstance(model, re.Pattern):
        fits = isinstance(value, str) and bool(model.fullmatch(value)) and len(value) <= 63
    else:
        fits = type(value) is model
    return [] if fits else [f"{where}: {value!r}"]


@pytest.fixture(params=MANIFESTS)
def name(request):
    return request.param


@pytest.fixture
def jobset(name):
    return yaml.safe_load((GKE / name).read_text())


def only_job(jobset):
    [job] = jobset["spec"]["replicatedJobs"]
    return job, job["template"]["spec"]


def container(jobset):
    [found] = only_job(jobset)[1]["template"]["spec"]["containers"]
    return found


def test_manifests_fit_the_model(jobset):
    assert problems(jobset, JOBSET) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda job: job.pop("backoffLimit"), ".backoffLimit: missing"),
        (lambda job: job.update(parallelism="4"), ".parallelism: '4'"),
        (lambda job: job.update(paralelism=4), ".paralelism: unknown"),
        (lambda job: job["podFailurePolicy"]["rules"][0].update(action="F"), "[0].action: 'F'"),
        (lambda job: job["template"]["spec"].update(restartPolicy="A"), "restartPolicy: 'A'"),
        (lambda job: job["template"]["spec"].update(containers=[]), "not a list with items"),
    ],
)
def test_the_model_is_strict(jobset, change, problem):
    broken = copy.deepcopy(jobset)
    change(only_job(broken)[1])
    [found] = problems(broken, JOBSET)
    assert found.endswith(problem)


def test_counts_agree(jobset, name):
    job, spec = only_job(jobset)
    hosts = spec["parallelism"]
    assert spec["completions"] == hosts
    resources = container(jobset)["resources"]
    chips = resources["limits"][RESOURCES[name]]
    assert resources["requests"] == resources["limits"]
    if name == "tpu_jobset.yaml":
        selector = spec["template"]["spec"]["nodeSelector"]
        topology = selector["cloud.google.com/gke-tpu-topology"]
        assert chips == CHIPS_PER_HOST[selector["cloud.google.com/gke-tpu-accelerator"]]
        assert math.prod(int(side) for side in topology.split("x")) == chips * hosts
    else:
        assert job["replicas"] == 1  # JOB_COMPLETION_INDEX counts within one Job
        assert f"--num_processes={hosts}" in container(jobset)["args"]
        [coordinator] = [a for a in container(jobset)["args"] if "coordinator_address" in a]
        whole = jobset["metadata"]["name"]
        port = container(jobset)["ports"][0]["containerPort"]
        assert coordinator == f"--coordinator_address={whole}-{job['name']}-0-0.{whole}:{port}"


def test_exit_codes_decide_what_happens(jobset):
    """1 fails the JobSet; 75 and disruptions restart it uncounted; all else restarts it counted."""
    _, spec = only_job(jobset)
    rules = spec["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["FailJob"] * 3
    assert [rule.get("onExitCodes", {}).get("values") for rule in rules] == [
        [1], [preemption.EXIT_CODE], None,
    ]  # fmt: skip
    assert all(
        rule["onExitCodes"]["containerName"] == container(jobset)["name"] for rule in rules[:2]
    )
    assert spec["backoffLimit"] == 0
    policy = jobset["spec"]["failurePolicy"]
    # As the Job controller words it: ... failed with exit code 75 matching FailJob rule at index 1
    exited = (
        "Container train for pod x/y failed with exit code {} matching FailJob rule at index {}"
    )
    messages = {
        "person": exited.format(1, 0),
        "saved": exited.format(75, 1),
        "disrupted": "Pod x/y has condition DisruptionTarget matching FailJob rule at index 2",
    }
    actions = {kind: _action(policy, "PodFailurePolicy", text) for kind, text in messages.items()}
    assert actions == {
        "person": "FailJobSet",
        "saved": "RestartJobSetAndIgnoreMaxRestarts",
        "disrupted": "RestartJobSetAndIgnoreMaxRestarts",
    }
    crashed = _action(policy, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    assert crashed == "RestartJobSet"
    assert policy["maxRestarts"] > 0


def _action(policy, reason, message):
    """As JobSet chooses: the first rule that fits, or RestartJobSet."""
    for rule in policy["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [])
        if reason in rule["onJobFailureReasons"] and (
            not patterns or any(re.search(pattern, message) for pattern in patterns)
        ):
            return rule["action"]
    return "RestartJobSet"


def test_the_container_runs_the_program_with_its_arguments(jobset, tmp_path):
    stand_ins = StandIns(tmp_path / "stand_ins")
    stand_ins.add("python", "")
    run = container(jobset)
    odd = [*run["args"], "--config.resize=((20000, 299, 128),)"]
    result = stand_ins.run(*run["command"], *odd, JOB_COMPLETION_INDEX="3")
    assert result.returncode == 0, result.stderr
    last = [] if "TPU" in result.args[2].upper() else ["--process_id=3"]
    assert stand_ins.calls("python") == [["-m", "mlimages_jax.main", *odd, *last]]


def test_flags_of_the_manifests_are_flags_of_the_program(jobset):
    main = (ROOT / "mlimages_jax/main.py").read_text()
    defined = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', main))
    text = " ".join([*container(jobset)["command"], *container(jobset)["args"]])
    used = set(re.findall(r"--([a-z_]+)[.=]", text))
    assert used <= defined
    known = settings.flatten(load_config("pretrain"))
    assert set(re.findall(r"--config\.([\w.]+)=", text)) <= known.keys()


def test_placeholders_are_all_named_in_the_guide(name):
    guide = (ROOT / "docs/launch.md").read_text()
    placeholders = set(re.findall(r"REPLACE_\w+", (GKE / name).read_text())) - {"REPLACE_"}
    assert placeholders == set(re.findall(r"s\|(REPLACE_\w+)\|", guide))


def test_the_image_is_made_of_what_exists():
    dockerfile = (GKE / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    assert set(re.search(r"ACCELERATOR=(\w+) .*or (\w+)", dockerfile).groups()) <= extras
    for sources in re.findall(r"^COPY (.+) \./?$", dockerfile, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split())
    version = re.search(r"FROM python:3\.(\d+)", dockerfile)[1]
    assert int(version) >= int(project["requires-python"].rpartition(".")[2])

"""The Helm chart, as Helm renders it (section 8.2 of the contract)."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import binaries
from harness.conformance.marks import requirement
from harness.conformance.outcomes import could_not_run, not_applicable
from harness.conformance.recording import check
from harness.errors import MissingPrerequisite
from harness.lab.paths import cache_directory
from harness.progress import Progress

ROOT = Path(__file__).parents[2]
AGENT = ROOT / "agent"
NAME = "eks-pod-identity-agent"
LEAST = {"clusterName": "pod-identity-lab", "env": {"AWS_REGION": "eu-west-1"}}
"""What has no default."""
LONG_NAME = "eks-pod-identity-agent-custom-test-truncate-123213213121321121-this-part-should-be-truncated"
"""The name with which AWS tests its own chart."""

Objects = Mapping[tuple[str, str], Any]
"""Kind and name → object."""
Render = Callable[..., Objects]


@pytest.fixture(autouse=True)
def _ours(pytestconfig: pytest.Config) -> None:
    """Leave the chart of somebody else's agent alone: it is not here."""
    if pytestconfig.getoption("--subject") == "upstream":
        not_applicable("subject", "the chart in agent/chart is that of this repository's agent")


@pytest.fixture(scope="session")
def helm() -> Path:
    """Helm: the machine's, or one built from its Go module."""
    if own := shutil.which("helm"):
        return Path(own)
    try:
        with Progress() as progress:
            return binaries.ensure(cache_directory(), progress, [binaries.HELM])["helm"]
    except MissingPrerequisite as error:
        could_not_run("prerequisite", f"no helm on PATH, and it cannot be built: {error}")


@pytest.fixture
def template(helm: Path, tmp_path: Path) -> Callable[[Mapping[str, Any]], subprocess.CompletedProcess[str]]:
    """Run ``helm template`` with values."""

    def run(values: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(dict(values)))
        command = [helm, "template", NAME, AGENT / "chart", "--namespace", "kube-system", "--values", file]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def render(template: Callable[[Mapping[str, Any]], subprocess.CompletedProcess[str]]) -> Render:
    """Return the objects of the chart with values beside the least."""

    def run(**values: Any) -> Objects:
        done = template({**LEAST, **values})
        assert done.returncode == 0, done.stderr
        documents = [document for document in yaml.safe_load_all(done.stdout) if document]
        return {(document["kind"], document["metadata"]["name"]): document for document in documents}

    return run


def server(objects: Objects, name: str = NAME) -> dict[str, Any]:
    """Return the agent's container of a DaemonSet."""
    (container,) = objects["DaemonSet", name]["spec"]["template"]["spec"]["containers"]
    return container


@requirement("AGT-802", "AGT-803", "AGT-804", "AGT-805", "AGT-806", "AGT-808", "AGT-810", "AGT-811", "AGT-812")
def test_the_chart_is_the_manifest_with_values(render: Render) -> None:
    """With the values of ``deploy/daemonset.yaml`` it renders that file, but for the labels that Helm wants."""
    (manifest,) = yaml.safe_load_all((AGENT / "deploy" / "daemonset.yaml").read_text())

    rendered = copy.deepcopy(render(metrics={"enabled": True})["DaemonSet", NAME])

    labels = rendered["metadata"]["labels"]
    assert manifest["metadata"]["labels"].items() <= labels.items()
    manifest["metadata"]["labels"] = labels
    assert rendered == manifest


@requirement("AGT-809")
def test_the_pod_has_no_api_token_by_default(render: Render) -> None:
    """Nor a ServiceAccount; the DaemonSet is all there is."""
    objects = render()
    pod = objects["DaemonSet", NAME]["spec"]["template"]["spec"]

    assert list(objects) == [("DaemonSet", NAME)]
    assert (pod["automountServiceAccountToken"], "serviceAccountName" in pod) == (False, False)


@requirement("AGT-813")
def test_metrics_are_there_only_if_wanted(render: Render) -> None:
    """Off: no listener, annotations, port or Service. On: all of them, and a ServiceMonitor if that is wanted too."""
    off, on = render(), render(metrics={"enabled": True, "serviceMonitor": {"enabled": True}})

    template = off["DaemonSet", NAME]["spec"]["template"]
    check("AGT-813", expected=None, observed=template["metadata"].get("annotations"), what="annotations, off")
    check("AGT-813", expected=[2703], observed=[port["containerPort"] for port in server(off)["ports"]], what="off")
    check("AGT-813", expected=True, observed="--disable-metrics" in server(off)["args"], what="listener, off")
    check("AGT-813", expected=["DaemonSet"], observed=[kind for kind, _ in off], what="objects, off")
    annotations = on["DaemonSet", NAME]["spec"]["template"]["metadata"]["annotations"]
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": "2705"}
    check("AGT-813", expected=scraped, observed=annotations, what="annotations, on")
    check("AGT-813", expected=[2703, 2705], observed=[port["containerPort"] for port in server(on)["ports"]], what="on")
    kinds = {"DaemonSet", "Service", "ServiceMonitor"}
    check("AGT-813", expected=kinds, observed={kind for kind, _ in on}, what="objects, on")
    selector = on["Service", NAME]["spec"]["selector"].items()
    labels = on["DaemonSet", NAME]["spec"]["template"]["metadata"]["labels"].items()
    check("AGT-813", expected="the agent's pods", observed=sorted(selector), holds=selector <= labels)


@requirement("AGT-814")
def test_values_of_aws_s_chart_work(render: Render) -> None:
    """Under their names and in their forms; a command is a text there."""
    objects = render(
        agent={
            "additionalArgs": {"-v": "trace"},
            "advertiseProxyPort": True,
            "command": "['/go-runner', '/eks-pod-identity-agent', 'server']",
            "probePort": 2704,
        },
        init={"additionalArgs": {"-v": "trace"}},
        image={"override": "registry.example/agent:1", "pullPolicy": "Always"},
        podLabels={"team": "a"},
        nodeSelector={"disk": "ssd"},
    )
    pod = objects["DaemonSet", NAME]["spec"]["template"]["spec"]
    container, (init,) = server(objects), pod["initContainers"]

    assert container["command"] == ["/go-runner", "/eks-pod-identity-agent", "server"]
    assert container["args"][4:6] == ["--probe-port", "2704"]
    assert container["args"][-2:] == init["args"] == ["-v", "trace"]
    assert [port["containerPort"] for port in container["ports"]] == [80, 2704]
    assert (container["image"], init["image"]) == ("registry.example/agent:1", "registry.example/agent:1")
    assert container["imagePullPolicy"] == "Always"
    assert objects["DaemonSet", NAME]["spec"]["template"]["metadata"]["labels"]["team"] == "a"
    assert pod["nodeSelector"] == {"disk": "ssd"}


@requirement("AGT-814")
@pytest.mark.parametrize(
    ("entry", "name", "path", "bottlerocket"),
    [
        (
            "hybrid",
            "eks-pod-identity-agent-custom-test-truncate-123213213121-hybrid",
            "/eks-hybrid/.aws",
            "DoesNotExist",
        ),
        (
            "hybrid-bottlerocket",
            "eks-pod-identity-agent-custom-test-truncate-hybrid-bottlerocket",
            "/var/eks-hybrid/.aws",
            "Exists",
        ),
    ],
)
def test_hybrid_nodes_have_daemonsets_of_their_own(
    render: Render, entry: str, name: str, path: str, bottlerocket: str
) -> None:
    """With a name that is too long for its suffix, and the node's credentials in a file."""
    objects = render(daemonsets={entry: {"create": True}}, nameOverride=LONG_NAME, fullnameOverride=LONG_NAME)
    names = [found for _, found in objects]
    assert sorted(names) == sorted(
        ["eks-pod-identity-agent-custom-test-truncate-123213213121321121", name],
    )
    daemon_set = objects["DaemonSet", name]
    pod = daemon_set["spec"]["template"]["spec"]
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    operators = {expression["key"]: expression["operator"] for expression in term["matchExpressions"]}

    assert server(objects, name)["args"][-2:] == ["--rotate-credentials", "true"]
    assert pod["volumes"] == [{"name": "aws-credentials", "hostPath": {"path": path, "type": "Directory"}}]
    assert server(objects, name)["volumeMounts"] == [
        {"name": "aws-credentials", "mountPath": "/root/.aws", "readOnly": True}
    ]
    assert (operators["eks.amazonaws.com/compute-type"], operators["os.bottlerocket.aws/variant"]) == (
        "In",
        bottlerocket,
    )
    assert daemon_set["spec"]["selector"]["matchLabels"].items() <= (
        daemon_set["spec"]["template"]["metadata"]["labels"].items()
    )


@requirement("AGT-815")
def test_flags_can_repeat_and_environment_has_its_full_form(render: Render) -> None:
    """``agent.args`` is a list, and ``extraEnv`` takes what a Pod takes."""
    entry = {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    args = ["-b", "169.254.170.23", "-b", "fd00:ec2::23"]

    container = server(render(agent={"args": args}, extraEnv=[entry]))

    assert container["args"][-4:] == args
    assert container["env"] == [{"name": "AWS_REGION", "value": "eu-west-1"}, entry]


@requirement("AGT-817")
def test_everything_carries_one_version() -> None:
    """Package, chart, image and changelog."""
    version = tomllib.loads((AGENT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((AGENT / "chart" / "Chart.yaml").read_text())
    values = yaml.safe_load((AGENT / "chart" / "values.yaml").read_text())
    images = set(re.findall(r"image: \S+:(\S+)", (AGENT / "deploy" / "daemonset.yaml").read_text()))
    code = re.findall(r'__version__ = "(.+)"', (AGENT / "podid_agent" / "__init__.py").read_text())
    released = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert {chart["version"], chart["appVersion"], values["image"]["tag"], *images, *code} == {version}
    # Until the first release the changelog has none.
    assert released[:1] in ([], [version])


@requirement("AGT-817")
def test_everything_in_the_image_exists_for_both_architectures() -> None:
    """Each locked package has a wheel for any machine, or one each for x86-64 and arm64, and the base is Debian's."""
    names = set(re.findall(r"^([a-z0-9-]+)==", (AGENT / "requirements.txt").read_text(), re.MULTILINE))
    locked = {package["name"]: package for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    lacking = [
        (name, machine)
        for name in sorted(names)
        for machine in ("x86_64", "aarch64")
        if not any(re.search(f"-(?:any|manylinux[^-]*{machine})\\.", wheel["url"]) for wheel in locked[name]["wheels"])
    ]

    assert names
    assert lacking == []


@requirement("AGT-921")
def test_verifying_tokens_takes_two_urls_and_a_directory(render: Render) -> None:
    """With ``agent.cacheKey: pod-uid`` the pod has a token of an account that may read these, and nothing else."""
    objects = render(agent={"cacheKey": "pod-uid"})
    pod = objects["DaemonSet", NAME]["spec"]["template"]["spec"]
    container = server(objects)
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    (subject,) = objects["ClusterRoleBinding", NAME]["subjects"]

    check("AGT-921", expected=[{"name": "jwks-cache", "emptyDir": {}}], observed=pod["volumes"])
    check("AGT-921", expected={"jwks-cache": "/var/lib/eks-pod-identity-agent"}, observed=mounts)
    account = (pod["automountServiceAccountToken"], pod["serviceAccountName"])
    check("AGT-921", expected=(True, NAME), observed=account, what="account")
    rules = objects["ClusterRole", NAME]["rules"]
    check("AGT-921", expected=[{"nonResourceURLs": ["/version", "/openid/v1/jwks"], "verbs": ["get"]}], observed=rules)
    bound = (objects["ClusterRoleBinding", NAME]["roleRef"]["name"], subject["name"], subject["namespace"])
    check("AGT-921", expected=(NAME, NAME, "kube-system"), observed=bound, what="binding")
    flags = container["args"]
    check("AGT-921", expected="pod-uid", observed=flags[flags.index("--cache-key") + 1], what="flag")


@requirement("AGT-814")
@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"clusterName": ""}, "clusterName must name the cluster"),
        ({"env": {}}, "env.AWS_REGION must name the region"),
        ({"agent": {"cacheKey": "pod"}}, 'agent.cacheKey is "pod"; it must be token or pod-uid'),
    ],
)
def test_values_that_cannot_work_are_refused(
    template: Callable[[Mapping[str, Any]], subprocess.CompletedProcess[str]], values: Mapping[str, Any], text: str
) -> None:
    """Before anything is installed, in words that name the value."""
    done = template({**LEAST, **values})

    assert done.returncode != 0
    assert text in done.stderr

"""deploy/k8s, checked without a cluster: valid, complete and the same system as compose.yaml."""

from __future__ import annotations

import base64
import copy
import ipaddress
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import kubernetes_validate
import pytest
import yaml

from harness.runtime.compose import ROOT
from tests.support.http_servers import AnsweringServer, Request

pytestmark = pytest.mark.unit

Resource = dict[str, Any]

FOLDER = ROOT / "deploy" / "k8s"
RELEASE = "1.34"
COMPOSE: dict[str, Resource] = yaml.load((ROOT / "compose.yaml").read_text(), yaml.CSafeLoader)["services"]
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
RESOURCES: list[Resource] = [
    resource
    for name in KUSTOMIZATION["resources"]
    for resource in yaml.load_all((FOLDER / name).read_text(), yaml.CSafeLoader)
]
SCHEMAS = {
    path.stem: jsonschema_rs.validator_for(json.loads(path.read_text())) for path in FOLDER.glob("schemas/*.json")
}
OURS = ("inventory-service", "user-service", "order-service", "event-service", "orchestrator-service")
BY_OPERATORS = re.compile(r"^(\w+-db-app|rabbitmq-default-user)$")
REFUSED = (jsonschema_rs.ValidationError, kubernetes_validate.ValidationError)
FREE = {"matchLabels", "parameters"}
OPERATORS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "cnpg-system"}}}


def of(kind: str) -> dict[str, Resource]:
    return {found["metadata"]["name"]: found for found in RESOURCES if found["kind"] == kind}


def validate(resource: Resource) -> None:
    """Raise one of REFUSED for an invalid resource.

    The parts that an operator copies to its pods are checked against the Kubernetes schema of a pod.
    """
    if resource["kind"] in SCHEMAS:
        SCHEMAS[resource["kind"]].validate(resource)
        handed = {name: resource["spec"].get(name, {}) for name in ("affinity", "resources")}
        container = {"name": "any", "resources": handed["resources"]}
        pod = {"affinity": handed["affinity"], "containers": [container]}
        resource = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any"}, "spec": pod}
    kubernetes_validate.validate(resource, RELEASE, strict=True)


def fields(value: Any, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every field, except the free names within FREE."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if isinstance(key, str) and not FREE & {*path}:
            yield (*path, key)
        yield from fields(inner, *path, key)


def get_at(value: Any, path: Iterable[str | int]) -> Any:
    for key in path:
        value = value[key]
    return value


def is_refused(resource: Resource) -> bool:
    try:
        validate(resource)
    except REFUSED:
        return True
    return False


def pods() -> Iterator[tuple[str, Resource]]:
    for kind in ("Deployment", "Job"):
        for name, resource in of(kind).items():
            yield name, resource["spec"]["template"]["spec"]


def containers() -> Iterator[Resource]:
    for _, pod in pods():
        yield from (*pod["containers"], *pod.get("initContainers", []))


def environment(name: str) -> dict[str, Resource]:
    pod = of("Deployment")[name]["spec"]["template"]["spec"]
    return {variable["name"]: variable for variable in pod["containers"][0]["env"]}


def allowed_callers(name: str) -> dict[int, set[str]]:
    """Return the apps that a policy allows, by port."""
    found: dict[int, set[str]] = {}
    for rule in of("NetworkPolicy")[name]["spec"]["ingress"]:
        for port in rule["ports"]:
            labels = (peer.get("podSelector", {}).get("matchLabels", {}) for peer in rule.get("from", []))
            found.setdefault(port["port"], set()).update(each["app"] for each in labels if "app" in each)
    return found


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda r: f"{r['kind']} {r['metadata']['name']}")
def test_resource_is_valid(resource: Resource) -> None:
    validate(resource)


@pytest.mark.parametrize("kind", sorted({resource["kind"] for resource in RESOURCES}))
@pytest.mark.negative_control
def test_misspelt_field_is_found(kind: str) -> None:
    broken = copy.deepcopy(next(iter(of(kind).values())))
    broken.setdefault("spec", {})["nmae"] = "x"
    with pytest.raises(REFUSED):
        validate(broken)


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_operator_schema_checks_each_field_name_and_type(kind: str) -> None:
    resource = next(iter(of(kind).values()))
    assert not is_refused(resource)
    paths = [path for path in fields(resource) if path != ("kind",)]  # `kind` selects the schema
    assert len(paths) > 20
    for *above, last in paths:
        misspelt, mistyped = copy.deepcopy(resource), copy.deepcopy(resource)
        holder = get_at(misspelt, above)
        holder[f"{last}s"] = holder.pop(last)
        get_at(mistyped, above)[last] = [get_at(mistyped, above)[last]]
        assert is_refused(misspelt), (*above, last)
        assert is_refused(mistyped), (*above, last)


@pytest.mark.parametrize(
    ("kind", "path", "wrong"),
    [
        ("Cluster", ("instances",), "3"),
        ("Cluster", ("instances",), 0),
        ("Cluster", ("imageCatalogRef", "major"), "16"),
        ("Cluster", ("postgresql", "parameters", "max_connections"), 200),
        ("Cluster", ("postgresql", "synchronous", "number"), 0),
        ("Cluster", ("postgresql", "synchronous", "method"), "all"),
        ("RabbitmqCluster", ("replicas",), "3"),
        ("RabbitmqCluster", ("rabbitmq", "additionalConfig"), "#" * 2001),
        ("RabbitmqCluster", ("affinity", "podAntiAffinity"), [{}]),
        ("RabbitmqCluster", ("resources", "limits", "memory"), "1GB"),
    ],
)
@pytest.mark.negative_control
def test_value_that_an_operator_refuses_is_found(kind: str, path: tuple[str, ...], wrong: object) -> None:
    broken = copy.deepcopy(next(iter(of(kind).values())))
    get_at(broken["spec"], path[:-1])[path[-1]] = wrong
    assert is_refused(broken)


def test_kustomization_lists_exactly_the_existing_files() -> None:
    assert {f"{path.stem}.yaml" for path in FOLDER.glob("*.yaml")} == {
        *KUSTOMIZATION["resources"],
        "kustomization.yaml",
    }
    for generator in KUSTOMIZATION["configMapGenerator"]:
        for file in generator.get("files", []):
            assert (FOLDER / file.rpartition("=")[2]).resolve().is_file(), file


def test_every_reference_has_a_target() -> None:
    maps = {made["name"]: made for made in KUSTOMIZATION["configMapGenerator"]}
    literals = {line.partition("=")[0] for line in maps["ticketremaster"]["literals"]}
    secrets = set(re.findall(r"(?m)^(\w+)=$", (FOLDER / "secrets.env.example").read_text()))
    for container in containers():
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            if reference := source.get("configMapKeyRef"):
                assert reference["name"] == "ticketremaster"
                assert reference["key"] in literals, reference
            if (reference := source.get("secretKeyRef")) and not BY_OPERATORS.match(reference["name"]):
                assert reference["name"] == KUSTOMIZATION["secretGenerator"][0]["name"]
                assert reference["key"] in secrets or reference["optional"], reference
    mounted = {v["configMap"]["name"] for _, pod in pods() for v in pod["volumes"] if "configMap" in v}
    assert mounted == maps.keys() - {"ticketremaster"}


def test_tags_of_built_images_are_in_one_place() -> None:
    built = {service["image"] for service in COMPOSE.values() if "build" in service}
    used = {container["image"] for container in containers()}
    assert {image["name"] for image in KUSTOMIZATION["images"]} == used & built
    assert {image for image in used - built if ":" not in image} == set()
    assert used - built <= {service["image"] for service in COMPOSE.values()}


@pytest.mark.parametrize("name", OURS)
def test_service_is_the_same_as_in_compose(name: str) -> None:
    described, [container] = COMPOSE[name], of("Deployment")[name]["spec"]["template"]["spec"]["containers"]
    shared = dict(described["environment"])
    shared.pop("STAFF_PASSWORD", None)  # a cluster gets its first staff account from `add_staff`
    assert environment(name).keys() == shared.keys()
    for variable, value in shared.items():
        given = environment(name)[variable].get("value")
        assert given is None or given.removesuffix("-rw") == value, variable
    assert (container["image"], container["command"]) == (described["image"], described["command"])
    assert [str(port["containerPort"]) for port in container["ports"]] == described["expose"]
    assert [str(port["port"]) for port in of("Service")[name]["spec"]["ports"]] == described["expose"]


def test_web_client_is_the_same_as_in_compose() -> None:
    described = COMPOSE["web-client"]
    [container] = of("Deployment")["web-client"]["spec"]["template"]["spec"]["containers"]
    assert environment("web-client").keys() == described["environment"].keys()
    assert environment("web-client")["PORT"]["value"] == described["environment"]["PORT"]
    assert (container["image"], container["command"]) == (described["image"], described["command"])
    assert described["ports"] == [f"127.0.0.1:3000:{container['ports'][0]['containerPort']}"]
    assert "DEMO_INBOX_URL=" in KUSTOMIZATION["configMapGenerator"][0]["literals"], "no demo accounts in production"


def test_gateway_is_the_same_as_in_compose() -> None:
    pod = of("Deployment")["api-gateway"]["spec"]["template"]["spec"]
    given = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
    different = {
        "KONG_STATUS_LISTEN": "0.0.0.0:8100",
        "KONG_PREFIX": "/prefix",
    }  # because probes arrive from outside the pod
    behind = {"KONG_TRUSTED_IPS": None, "KONG_REAL_IP_HEADER": "X-Forwarded-For", "KONG_REAL_IP_RECURSIVE": "on"}
    rendered = COMPOSE["gateway-config"]["environment"].keys()  # Kustomize renames a changed secret or map instead
    described = {n: value for n, value in COMPOSE["api-gateway"]["environment"].items() if n not in rendered}
    assert given == described | different | behind
    [renderer] = pod["initContainers"]
    assert {variable["name"] for variable in renderer["env"]} == COMPOSE["gateway-config"]["environment"].keys()
    assert renderer["command"][:4] == COMPOSE["gateway-config"]["command"][:4]


def test_gateway_trusts_no_proxy_by_default() -> None:
    literals = dict(line.split("=", 1) for line in KUSTOMIZATION["configMapGenerator"][0]["literals"])
    assert all(ipaddress.ip_network(each).is_loopback for each in literals["TRUSTED_PROXIES"].split(","))
    assert of("Service")["api-gateway"]["spec"]["externalTrafficPolicy"] == "Local"


def test_finished_job_is_deleted_before_the_next_apply() -> None:
    described = (ROOT / "docs/scaling.md").read_text()
    [deleted] = re.findall(r"delete job --ignore-not-found ([^`]+)", described)
    assert set(deleted.replace("\\", " ").split()) == of("Job").keys()
    assert {job["spec"]["ttlSecondsAfterFinished"] for job in of("Job").values()} == {60}


@pytest.mark.parametrize("name", [*OURS, "api-gateway", "web-client"])
def test_deployment_is_probed_scaled_spread_and_disruption_safe(name: str) -> None:
    [container] = of("Deployment")[name]["spec"]["template"]["spec"]["containers"]
    assert {"startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "resources"} <= container.keys()
    assert of("Deployment")[name]["spec"]["template"]["spec"]["topologySpreadConstraints"]
    scale = of("HorizontalPodAutoscaler")[name]["spec"]
    assert scale["scaleTargetRef"]["name"] == name
    assert scale["minReplicas"] >= 2
    assert "replicas" not in of("Deployment")[name]["spec"], "each apply would reset the autoscaler's value"
    assert of("PodDisruptionBudget")[name]["spec"]["maxUnavailable"] == 1


def test_no_container_is_root_writes_to_its_image_or_gains_rights() -> None:
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["automountServiceAccountToken"] is False, name
    for container in containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("name", OURS)
def test_database_allows_only_its_own_service(name: str) -> None:
    database = COMPOSE[name]["environment"]["DB_HOST"]
    assert allowed_callers(database) == {5432: {name, f"{database}-schema"}, 8000: set()}
    [_, inner] = of("NetworkPolicy")[database]["spec"]["ingress"]
    own = {"podSelector": {"matchLabels": {"cnpg.io/cluster": database}}}
    assert inner["from"] == [own, OPERATORS]


def test_policies_allow_exactly_the_callers_of_compose() -> None:
    calls: dict[str, dict[int, set[str]]] = {name: {} for name in OURS}
    for caller, described in COMPOSE.items():
        if "fake" not in caller:
            for value in map(str, described.get("environment", {}).values()):
                for called, port in re.findall(r"([a-z]+-service):(\d+)", value):
                    who = "api-gateway" if caller == "gateway-config" else caller
                    if who != called:
                        calls[called].setdefault(int(port), set()).add(who)
    assert {name: allowed_callers(name) for name in OURS} == calls
    brokers = {name for name in OURS if "RABBITMQ_HOST" in COMPOSE[name]["environment"]}
    assert allowed_callers("rabbitmq")[5672] == brokers
    assert allowed_callers("api-gateway") == {8000: set()}
    assert allowed_callers("web-client") == {3000: set()}
    default = of("NetworkPolicy")["nobody"]["spec"]
    assert default == {"podSelector": {}, "policyTypes": ["Ingress"]}, "the default policy denies all other calls"


def list_outgoing(name: str) -> set[tuple[str, int]]:
    """Return the pods and ports that a service may call."""
    found = set()
    for rule in of("NetworkPolicy")[f"{name}-egress"]["spec"]["egress"]:
        for peer in rule["to"]:
            labels = peer.get("podSelector", {}).get("matchLabels", {})
            found |= {(label, port["port"]) for label in labels.values() for port in rule["ports"]}
    return found


@pytest.mark.parametrize("name", [*OURS, "api-gateway"])
def test_pod_can_call_only_what_allows_it(name: str) -> None:
    called = {(other, port) for other in OURS for port, callers in allowed_callers(other).items() if name in callers}
    if name in OURS:
        called.add((COMPOSE[name]["environment"]["DB_HOST"], 5432))
        called |= {("rabbitmq", 5672)} if "RABBITMQ_HOST" in COMPOSE[name]["environment"] else set()
    assert list_outgoing(name) == called


def test_only_user_calls_the_internet_and_every_pod_is_limited() -> None:
    limited = of("NetworkPolicy")["dns"]["spec"]
    [selected] = limited["podSelector"]["matchExpressions"]
    assert set(selected["values"]) == {*OURS, "api-gateway", "web-client"}
    assert limited["policyTypes"] == ["Egress"]
    open_to = {
        policy
        for policy, found in of("NetworkPolicy").items()
        for rule in found["spec"].get("egress", [])
        for peer in rule["to"]
        if "ipBlock" in peer
    }
    assert open_to == {"user-service-egress"}


def test_only_the_monitoring_namespace_reads_metrics() -> None:
    policy = of("NetworkPolicy")["monitoring"]["spec"]
    [rule] = policy["ingress"]
    assert policy["podSelector"] == {}
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert [port["port"] for port in rule["ports"]] == ["http", 9187, 15692]
    for name in OURS:
        [container] = of("Deployment")[name]["spec"]["template"]["spec"]["containers"]
        assert container["readinessProbe"]["httpGet"]["port"] == "http", "/metrics and /health share a port"


@pytest.mark.parametrize("name", OURS)
def test_pools_of_all_replicas_fit_into_their_database(name: str) -> None:
    [pool] = [line.partition("=")[2] for line in KUSTOMIZATION["configMapGenerator"][0]["literals"] if "POOL" in line]
    most = of("HorizontalPodAutoscaler")[name]["spec"]["maxReplicas"] + 1  # one more while rolling
    cluster = of("Cluster")[COMPOSE[name]["environment"]["DB_HOST"]]["spec"]
    assert most * int(pool) <= int(cluster["postgresql"]["parameters"]["max_connections"]) - 20
    assert cluster["instances"] > cluster["postgresql"]["synchronous"]["number"] > 0
    assert cluster["postgresql"]["synchronous"]["dataDurability"] == "required", "without a standby a commit waits"


def test_queues_are_quorum_queues_over_three_nodes() -> None:
    assert of("RabbitmqCluster")["rabbitmq"]["spec"]["replicas"] == 3
    topology = json.loads((ROOT / "services/rabbitmq/definitions.json").read_text())
    assert {queue["arguments"]["x-queue-type"] for queue in topology["queues"]} == {"quorum"}
    assert of("Job")["rabbitmq-topology"]["spec"]["template"]["spec"]["containers"][0]["command"][3] == "3"


@pytest.mark.parametrize(("running", "status", "imports"), [(2, 1, 0), (3, 0, 1)])
def test_topology_is_imported_after_all_nodes_run(running: int, status: int, imports: int, tmp_path: Path) -> None:
    """A stub for RabbitMQ's management API runs `running` of three nodes."""
    known = f"Basic {base64.b64encode(b'me:secret').decode()}"
    nodes = json.dumps([{"running": number < running} for number in range(3)]).encode()

    def answer(request: Request) -> tuple[int, bytes]:
        return 200 if request.headers["Authorization"] == known else 401, b"" if request.body else nodes

    file = tmp_path / "definitions.json"
    file.write_text("{}")
    with AnsweringServer(answer) as server:
        command = [sys.executable, str(FOLDER / "import_topology.py"), server.origin, "3", str(file)]
        env = {"RABBITMQ_USER": "me", "RABBITMQ_PASS": "secret"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    imported = [request.body for request in server.requests if request.body]
    assert (done.returncode, imported) == (status, [b"{}"] * imports), done.stderr


def test_the_broker_has_the_same_version_as_in_compose() -> None:
    (cluster,) = [found for found in RESOURCES if found["kind"] == "RabbitmqCluster"]
    assert cluster["spec"]["image"] == COMPOSE["rabbitmq"]["image"]

"""The Dockerfile, compose files and .env.example, checked without a container engine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker.utils.build import exclude_paths

from harness.runtime import compose, variables
from harness.runtime.compose import ROOT
from harness.runtime.process import wait_for
from services.chassis.errors import ConfigurationError
from services.chassis.settings import BrokerSettings, DatabaseSettings, Env
from services.user.settings import Settings as UserSettings
from tests.support.http_servers import AnsweringServer
from tests.support.service_settings import key_environment

pytestmark = pytest.mark.unit

DOCKERFILE = (ROOT / "services" / "Dockerfile").read_text()
SHIPPED = ("service", "fake", "client")
NAMES = sorted(
    (path.name for path in ROOT.glob("compose*.yaml")), key=len
)  # compose.yaml first, because the others override it
FILES = {name: yaml.safe_load((ROOT / name).read_text()) for name in NAMES}
SERVICES: dict[str, dict[str, Any]] = FILES["compose.yaml"]["services"]
COMPILERS = re.compile(r"gcc|g\+\+|build-essential|-dev\b|clang|cargo|\bmake\b")


@dataclass(frozen=True)
class Stage:
    """One stage of the Dockerfile."""

    base: str
    name: str
    text: str


def stages(dockerfile: str) -> dict[str, Stage]:
    """Return every stage by its name."""
    instructions = re.sub(r"(?m)^\s*#.*\n", "", dockerfile)
    parts = re.findall(r"(?ms)^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", instructions)
    return {name: Stage(base, name, text) for base, name, text in parts}


def full_text(name: str) -> str:
    """Return the text of a stage and of all its base stages."""
    found = stages(DOCKERFILE)
    text = ""
    while stage := found.get(name):
        text, name = stage.text + text, stage.base
    return text


# ── Dockerfile


@pytest.mark.parametrize("name", [*SHIPPED, "tests"])
def test_image_runs_as_a_numeric_user_that_is_not_root(name: str) -> None:
    [*_, user] = re.findall(r"(?m)^USER (\S+)$", full_text(name))
    assert int(user) > 0


@pytest.mark.parametrize("name", SHIPPED)
def test_image_has_a_health_check_no_compiler_and_no_test(name: str) -> None:
    text = full_text(name)
    assert "\nHEALTHCHECK " in text
    assert not COMPILERS.search(text)
    assert "apt-get" not in text
    copied = re.findall(r"(?m)^COPY (?:--\S+ )?(\S+)", text)
    assert "." not in copied
    assert not [path for path in copied if path.startswith(("tests", "harness", "requirements-dev"))]


def test_silent_name_server_costs_a_service_two_seconds() -> None:
    """resolv.conf(5): the time is `timeout` × `attempts` for each name server."""
    options = dict(option.split(":") for option in re.findall(r'RES_OPTIONS="(.*)"', full_text("service"))[0].split())
    assert int(options["timeout"]) * int(options["attempts"]) <= 2


def test_packages_are_hashed_wheels_from_a_separate_stage() -> None:
    found = stages(DOCKERFILE)
    for stage in found.values():
        for command in re.findall(r"pip .*install.*", stage.text):
            assert "--require-hashes" in command
            assert "--only-binary :all:" in command
            assert ("--no-binary" in command) == (stage.name == "wheels-of-tests"), "no compiler for a service"
            assert stage.name.startswith("wheels")
    assert all("wheels" not in found[name].base for name in (*SHIPPED, "tests"))


def test_the_suites_are_the_last_stage() -> None:
    assert list(stages(DOCKERFILE))[-1] == "tests"


def test_bases_are_pinned_and_no_file_comes_from_elsewhere() -> None:
    found = stages(DOCKERFILE)
    assert {stage.base for stage in found.values()} - found.keys() == {"python:3.13-slim-trixie"}
    assert "\nADD " not in DOCKERFILE


def test_build_context_is_an_allow_list_without_secrets() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert not allowed & {".", ".env", ".git", ".venv", ".run", "reports"}
    for copied in re.findall(r"(?m)^COPY (?!--from)(?:--\S+ )?(\S+)", DOCKERFILE):
        assert copied == "." or copied.split("/")[0].replace("requirements.lock", "requirements*") in allowed | {
            "requirements*", "requirements-dev.lock"
        }, copied  # fmt: skip


SECRETS = [".env", "secrets.env", "secrets.env.bak", "prod.env", ".env.local", "tls.pem", "tls.key"]


@pytest.mark.parametrize("folder", ["", "harness", "deploy/k8s", "services/user", "fakes"])
def test_no_secret_enters_the_build_context(folder: str, tmp_path: Path) -> None:
    examples = {".env.example", "harness/runtime/native.env", "deploy/k8s/secrets.env.example"}
    code = {"services/user/app.py", "tests/conftest.py"}
    for path in {*examples, *code, *(f"{folder}/{name}".lstrip("/") for name in SECRETS)}:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    taken = {path for path in exclude_paths(str(tmp_path), patterns) if (tmp_path / path).is_file()}
    assert taken == examples | code


def test_pip_is_removed_from_the_interpreter_of_an_image(tmp_path: Path) -> None:
    site = "lib/python3.13/site-packages"
    for path in ("bin/pip", "bin/pip3.13", f"{site}/pip", f"{site}/setuptools", "lib/python3.13/ensurepip"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "bin/python3.13").touch()
    (tmp_path / "lib/python3.13/os.py").touch()
    for name in SHIPPED:
        [removal] = re.findall(r"(?m)^RUN (rm -rf .*)$", full_text(name))
        subprocess.run(["sh", "-c", removal.replace("/usr/local", str(tmp_path))], check=True)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not any(path.glob("*"))} == {
        "bin/python3.13", "lib/python3.13/os.py", site
    }  # fmt: skip


# ── compose.yaml and its overrides


def test_every_image_is_built_from_one_existing_stage() -> None:
    built: dict[str, Any] = {}
    for described in (
        service for file in FILES.values() for service in file["services"].values() if "build" in service
    ):
        assert described["build"]["target"] in stages(DOCKERFILE)
        assert built.setdefault(described["image"], described["build"]) == described["build"]
    for described in SERVICES.values():
        if folder := described.get("build", {}).get("args", {}).get("SERVICE"):
            assert (ROOT / "services" / folder).is_dir()


@pytest.mark.parametrize("file", sorted(FILES.keys() - {"compose.yaml"}))
def test_override_changes_only_existing_services(file: str) -> None:
    assert FILES[file]["services"].keys() <= SERVICES.keys()


@pytest.mark.parametrize("file", FILES)
def test_ports_are_published_once_and_on_the_loopback(file: str) -> None:
    published = [port for service in FILES[file]["services"].values() for port in service.get("ports", [])]
    assert [port for port in published if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)] == []
    assert len({port.split(":")[1] for port in published}) == len(published)


@pytest.mark.parametrize("name", [name for name, found in SERVICES.items() if "profiles" not in found])
def test_process_restarts_is_checked_and_waits_for_its_needs(name: str) -> None:
    described = SERVICES[name]
    if name == "gateway-config":
        assert described["restart"] == "on-failure"
        return
    assert described["restart"] == "unless-stopped"
    assert described["healthcheck"]["test"][0] == "CMD"
    for needed, need in described.get("depends_on", {}).items():
        expected = "service_completed_successfully" if needed == "gateway-config" else "service_healthy"
        assert need == {"condition": expected}


@pytest.mark.parametrize("name", [name for name in SERVICES if name.endswith("-db")])
def test_database_is_healthy_after_its_last_script(name: str) -> None:
    scripts = sorted(v.split(":")[1::-1] for v in SERVICES[name]["volumes"] if "/docker-entrypoint-initdb.d/" in v)
    assert scripts[-1][1] == "./services/chassis/init_complete.sql"
    [made] = re.findall(r"CREATE SCHEMA IF NOT EXISTS (\w+);", (ROOT / scripts[-1][1]).read_text())
    assert f"'{made}'::regnamespace" in SERVICES[name]["healthcheck"]["test"][-1]
    assert "-h 127.0.0.1" in SERVICES[name]["healthcheck"]["test"][-1], (
        "the socket accepts connections while the scripts still run"
    )


def test_changed_gateway_settings_recreate_the_gateway() -> None:
    renderer, gateway = (SERVICES[name]["environment"] for name in ("gateway-config", "api-gateway"))
    assert renderer.items() <= gateway.items()


def test_gateway_caches_addresses_for_a_few_seconds() -> None:
    gateway = SERVICES["api-gateway"]["environment"]
    assert 1 <= int(gateway["KONG_DNS_VALID_TTL"]) <= 10
    assert 1 <= int(gateway["KONG_DNS_STALE_TTL"]) <= 10


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (None, False)])
def test_gateway_health_check_reads_its_status_api(status: int | None, healthy: bool) -> None:
    listen = SERVICES["api-gateway"]["environment"]["KONG_STATUS_LISTEN"].replace(":", "/")
    [cmd, *command] = SERVICES["api-gateway"]["healthcheck"]["test"]
    assert listen in command[-1]
    with AnsweringServer(lambda _: (status or 0, b"")) as server:
        port = server.port if status else 1  # no process listens there
        command[-1] = command[-1].replace(listen, f"127.0.0.1/{port}")
        done = subprocess.run(command, capture_output=True, check=False, timeout=10)
    assert (cmd, done.returncode == 0) == ("CMD", healthy)
    assert [request.path for request in server.requests] == (["/status/ready"] if status else [])


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (file, name)
        for file in FILES
        for name, service in FILES[file]["services"].items()
        if compose.PROBE.search(str(service.get("healthcheck")))
    ],
)
def test_health_check_ignores_the_proxy_of_the_environment(file: str, name: str) -> None:
    with AnsweringServer() as server:
        [_cmd, *command] = FILES[file]["services"][name]["healthcheck"]["test"]
        command[-1] = re.sub(r"http://localhost:\d+", server.origin, command[-1])
        proxies = {"http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1", "no_proxy": ""}
        subprocess.run([sys.executable, *command[1:]], env=os.environ | proxies, check=True, timeout=10)


@pytest.mark.claim("repository/development-override", "development/changes-are-served")
def test_development_runs_the_same_commands_and_mounts_the_same_tree() -> None:
    for name, override in FILES["compose.dev.yaml"]["services"].items():
        if "command" in override:
            assert override["command"] == ["python", "/reload.py", *SERVICES[name]["command"]]
            assert "./harness/dev/reload.py:/reload.py:ro" in override["volumes"]
            for source in (volume.split(":")[0] for volume in override["volumes"]):
                assert (ROOT / source).exists()
    reloaded = {name for name, override in FILES["compose.dev.yaml"]["services"].items() if "command" in override}
    assert reloaded == {name for name in SERVICES if name.endswith("-service")}


@pytest.mark.claim("testing/pytest-in-containers")
def test_suites_start_only_with_their_profile() -> None:
    assert SERVICES["tests"]["profiles"] == ["tests"]
    assert SERVICES["tests"]["command"] == ["pytest"]
    assert SERVICES["tests"]["build"]["target"] == "tests"
    stage = DOCKERFILE.partition("FROM base AS tests")[2]
    assert "COPY --from=wheels-of-tests /venv /venv" in stage
    assert "tests" not in compose.load(ROOT / "compose.yaml", variables.resolve({}, {}, frozenset()))


@pytest.mark.parametrize(("complete", "complaint"), [(True, ""), (False, r"set \w+ in \.env")])
def test_compose_accepts_all_files_and_requires_secrets(complete: bool, complaint: str, tmp_path: Path) -> None:
    command = ["docker", "compose"] if _has_plugin() else ["docker-compose"]
    if not shutil.which(command[0]):
        pytest.skip("docker compose is not installed")
    env = tmp_path / "env"
    env.write_text(variables.render_example(ROOT / ".env.example") if complete else (ROOT / ".env.example").read_text())
    files = [part for name in FILES for part in ("-f", str(ROOT / name))]
    given = [*command, *files, "--env-file", str(env), "config", "-q"]
    done = subprocess.run(given, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == complete, done.stderr
    assert re.search(complaint, done.stderr)


def _has_plugin() -> bool:
    return (
        bool(shutil.which("docker"))
        and not subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    )


# ── secrets


def test_filled_example_has_all_secrets_and_comments() -> None:
    example = (ROOT / ".env.example").read_text()
    filled = variables.render_example(ROOT / ".env.example")
    assert [line for line in filled.splitlines() if line.startswith("#")] == [
        line for line in example.splitlines() if line.startswith("#")
    ]
    values = dict(line.split("=", 1) for line in filled.splitlines() if line and not line.startswith("#"))
    compose.load(ROOT / "compose.yaml", values)
    assert values != dict(
        line.split("=", 1) for line in variables.render_example(ROOT / ".env.example").splitlines() if "=" in line
    )


@pytest.mark.parametrize("placeholder", ["change_me", "CHANGEME", "your_db_pass", "sk_test_..."])
@pytest.mark.parametrize("name", ["DB_PASS", "RABBITMQ_PASS", "PRIVATE_KEY", "SMU_API_KEY", "STRIPE_SECRET_KEY"])
def test_placeholder_stops_the_start(name: str, placeholder: str) -> None:
    names = ["DB_HOST", "DB_NAME", "DB_USER", "DB_PASS", "RABBITMQ_HOST", "RABBITMQ_USER", "RABBITMQ_PASS"]
    names += ("STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "SMU_API_KEY")
    values = dict.fromkeys(names, "x" * 32) | key_environment("user-service")
    values |= {"SMU_API_URL": "http://smu", "STRIPE_API_BASE": "http://stripe", "USER_SERVICE_URL": "http://user"}

    def read(given: dict[str, str]) -> None:
        for settings in (DatabaseSettings, BrokerSettings, UserSettings):
            settings.read(Env(given))

    read(values)
    with pytest.raises(ConfigurationError, match=f"{name} still holds its placeholder"):
        read(values | {name: placeholder})


@pytest.mark.parametrize("placeholder", ["change_me", "CHANGEME", "your_broker_pass", "guest..."])
@pytest.mark.parametrize("name", ["RABBITMQ_USER", "RABBITMQ_PASS"])
def test_placeholder_stops_the_broker_before_it_writes(name: str, placeholder: str, tmp_path: Path) -> None:
    for tool in ("sed", "tr"):  # these tools cannot write files
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    env = {"PATH": str(tmp_path), "RABBITMQ_USER": "me", "RABBITMQ_PASS": "x" * 32} | {name: placeholder}
    script = str(ROOT / "services" / "rabbitmq" / "start.sh")
    done = subprocess.run(["/bin/sh", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"configuration: {name} still holds its placeholder: put a real value there\n"


# ── reload


@pytest.mark.claim("repository/development-override", "development/changes-are-served")
def test_changed_file_restarts_the_command(tmp_path: Path) -> None:
    log, source = tmp_path / "log", tmp_path / "it.py"
    source.write_text("import sys, time\nprint('one', flush=True)\nsys.exit(1)\n")
    with log.open("wb") as out:
        command = [sys.executable, str(ROOT / "harness" / "dev" / "reload.py"), sys.executable, "it.py"]
        watching = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=subprocess.DEVNULL)
    assert wait_for(lambda: log.read_text() == "one\n", seconds=10)
    source.write_text("import signal\nprint('another', flush=True)\nsignal.pause()\n")
    assert wait_for(lambda: log.read_text() == "one\nanother\n", seconds=10)
    watching.send_signal(signal.SIGTERM)
    assert watching.wait(10) == 0


STARTS_AS_ROOT = {name for name, service in SERVICES.items() if service["image"].startswith(("postgres", "rabbitmq"))}


@pytest.mark.parametrize("name", SERVICES.keys() - {"tests"})
def test_container_gains_no_right_and_writes_only_to_volumes(name: str) -> None:
    described = SERVICES[name]
    assert described["cap_drop"] == ["ALL"]
    assert described["security_opt"] == ["no-new-privileges:true"]
    assert described["read_only"] is True
    assert "/tmp" in described["tmpfs"]  # noqa: S108 - the folder of the container
    assert described["logging"]["options"].keys() == {"max-size", "max-file"}, "its log cannot fill the disk"
    assert ("cap_add" in described) == (name in STARTS_AS_ROOT)
    assert not described.get("privileged")


def test_folders_in_memory_belong_to_the_user_of_their_server() -> None:
    """A tmpfs belongs to root. The process begins as root, so it can give the folder away."""
    start = (ROOT / "services" / "rabbitmq" / "start.sh").read_text()
    for name in STARTS_AS_ROOT:
        own = [folder for folder in SERVICES[name]["tmpfs"] if folder.startswith("/var")]
        script = start if name == "rabbitmq" else SERVICES[name]["entrypoint"][-1]
        assert own
        assert all(re.search(rf"chown .*{re.escape(folder)}", script) for folder in own)


def test_gateway_and_fakes_share_no_network_with_a_database() -> None:
    networks = {name: set(SERVICES[name]["networks"]) for name in SERVICES.keys() - {"tests"}}
    assert {name for name, own in networks.items() if own == {"front", "back"}} == {
        "user-service",
        "event-service",
        "orchestrator-service",
    }
    hidden = STARTS_AS_ROOT | {"inventory-service", "order-service"}
    assert {name for name, own in networks.items() if own == {"back"}} == hidden

"""Any unsupported configuration stops the start of the fake Kong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from fakes.kong import __main__ as command
from fakes.kong.declarative import ConfigError, load
from services.gateway import render
from tests.unit.fakes.kong_gateway import plugin, render_config

pytestmark = pytest.mark.unit


@pytest.fixture
def config() -> dict[str, Any]:
    return render_config(SimpleNamespace(server_port=1))


def unknown_plugin(config: dict[str, Any]) -> None:
    config["plugins"].append({"name": "key-auth", "config": {}})


def unknown_plugin_field(config: dict[str, Any]) -> None:
    plugin(config, "cors")["allow_all"] = True


def unknown_route_field(config: dict[str, Any]) -> None:
    config["services"][0]["routes"][0]["hosts"] = ["a.example"]


def unknown_top_level(config: dict[str, Any]) -> None:
    config["certificates"] = []


def unknown_upstream(config: dict[str, Any]) -> None:
    config["services"][0]["host"] = "user-service"


def target_twice(config: dict[str, Any]) -> None:
    config["upstreams"][0]["targets"] *= 2


def probes_of_one_state(config: dict[str, Any]) -> None:
    config["upstreams"][0]["healthchecks"] = {"active": {"healthy": {"interval": 1}}}


def weight(config: dict[str, Any]) -> None:
    config["upstreams"][0]["targets"][0]["weight"] = 10


def unsupported_value(config: dict[str, Any]) -> None:
    plugin(config, "rate-limiting")["policy"] = "redis"


def stripped_path(config: dict[str, Any]) -> None:
    del config["services"][0]["routes"][0]["strip_path"]


def tokens_in_urls(config: dict[str, Any]) -> None:
    del plugin(config["services"][2]["routes"][0], "jwt")["uri_param_names"]


def route_twice(config: dict[str, Any]) -> None:
    config["services"][1]["routes"].append({"name": "again", "paths": ["/api/"], "strip_path": False})


def service_twice(config: dict[str, Any]) -> None:
    config["services"].append(config["services"][0] | {"routes": []})


def plugin_twice(config: dict[str, Any]) -> None:
    config["plugins"].append(config["plugins"][0])


def other_lua(config: dict[str, Any]) -> None:
    plugin(config, "pre-function")["access"][0] += "kong.log('more')"


def unknown_consumer(config: dict[str, Any]) -> None:
    plugin(config["services"][2]["routes"][0], "jwt")["anonymous"] = "stranger"


def limit_without_header(config: dict[str, Any]) -> None:
    del plugin(config, "rate-limiting")["header_name"]


def lower_limit_for_longer_period(config: dict[str, Any]) -> None:
    plugin(config, "rate-limiting")["hour"] = 1


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (unknown_plugin, "key-auth"),
        (unknown_plugin_field, "allow_all"),
        (unknown_route_field, "hosts"),
        (unknown_top_level, "certificates"),
        (unknown_upstream, "no host 'user-service' but upstreams"),
        (target_twice, "target of user-service.upstream given more than once"),
        (probes_of_one_state, "probes for both states or for none"),
        (weight, "weight"),
        (unsupported_value, "redis"),
        (stripped_path, "strip_path"),
        (tokens_in_urls, "uri_param_names"),
        (route_twice, "path given more than once"),
        (service_twice, "service given more than once"),
        (plugin_twice, "plugin at global scope given more than once"),
        (other_lua, "the Lua of access is not the one"),
        (unknown_consumer, "'stranger' is unknown"),
        (limit_without_header, "needs header_name"),
        (lower_limit_for_longer_period, "must not have a lower one"),
    ],
)
def test_unsupported_configuration_stops_the_start(edit, complaint, config, tmp_path, capsys):
    edit(config)
    file = tmp_path / "kong.yml"
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=complaint):
        load(file)
    assert command.main({"KONG_DECLARATIVE_CONFIG": str(file)}) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_unrendered_template_stops_the_start():
    with pytest.raises(ConfigError):
        load(render.TEMPLATE)


def test_missing_variable_is_named(capsys):
    assert command.main({}) == 1
    assert "KONG_DECLARATIVE_CONFIG is not set" in capsys.readouterr().err

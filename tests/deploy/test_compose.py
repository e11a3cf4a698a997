"""The compose file: its shape, what it refers to, and that its parts fit together."""

import re
from ipaddress import ip_network
from typing import Any

import jsonschema
import pytest

from insula.settings import Settings
from tests.deploy.files import DEPLOY, ROOT, compose, environment_example, seconds

TEXT = (DEPLOY / "compose.yaml").read_text("utf-8")
FILE = compose()
SERVICES = FILE["services"]
NODES = [name for name, service in SERVICES.items() if service.get("image") == "insula"]

STRINGS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
DURATION = {"type": "string", "pattern": r"^\d+(s|m)$"}
HEALTHCHECK = {
    "type": "object",
    "properties": {
        "test": STRINGS,
        "interval": DURATION,
        "timeout": DURATION,
        "retries": {"type": "integer", "minimum": 1},
        "disable": {"type": "boolean"},
    },
    "additionalProperties": False,
}
SERVICE = {
    "type": "object",
    "required": ["image", "restart"],
    "properties": {
        "image": {"type": "string", "pattern": r"^[a-z]+(:\d+)?$"},
        "build": {
            "type": "object",
            "required": ["context", "dockerfile"],
            "properties": {"context": {"type": "string"}, "dockerfile": {"type": "string"}},
            "additionalProperties": False,
        },
        "restart": {"enum": ["unless-stopped", "always", "on-failure", "no"]},
        "init": {"type": "boolean"},
        "read_only": {"type": "boolean"},
        "user": {"type": "string", "pattern": r"^\d+:\d+$"},
        "cap_drop": STRINGS,
        "security_opt": STRINGS,
        "tmpfs": STRINGS,
        "pids_limit": {"type": "integer"},
        "mem_limit": {"type": "string", "pattern": r"^\d+[mg]$"},
        "shm_size": {"type": "string", "pattern": r"^\d+[mg]$"},
        "stop_grace_period": DURATION,
        "stop_signal": {"enum": ["SIGTERM", "SIGINT"]},
        "command": STRINGS,
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "volumes": STRINGS,
        "ports": STRINGS,
        "healthcheck": HEALTHCHECK,
        "depends_on": {
            "anyOf": [
                STRINGS,
                {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "required": ["condition"],
                        "properties": {
                            "condition": {
                                "enum": ["service_healthy", "service_started"],
                            }
                        },
                        "additionalProperties": False,
                    },
                },
            ]
        },
    },
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "required": ["name", "services", "volumes"],
    "properties": {
        "name": {"type": "string"},
        "services": {"type": "object", "additionalProperties": SERVICE, "minProperties": 1},
        "volumes": {"type": "object", "additionalProperties": {"type": ["null", "object"]}},
        "networks": {"type": "object"},
    },
    "patternProperties": {"^x-": {}},
    "additionalProperties": False,
}


def test_it_has_the_shape_of_what_we_use() -> None:
    jsonschema.validate(FILE, SCHEMA)


def test_there_are_two_nodes_a_worker_and_what_they_stand_on() -> None:
    assert [SERVICES[name]["command"] for name in NODES] == [["serve"], ["serve"], ["worker"]]
    assert set(SERVICES) == {*NODES, "proxy", "postgres", "nats"}


def named(service: dict[str, Any]) -> list[str]:
    return [mount.split(":")[0] for mount in service.get("volumes", ())]


def test_every_volume_that_is_mounted_is_declared_and_the_reverse() -> None:
    mounted = {name for service in SERVICES.values() for name in named(service)}
    files = {name for name in mounted if name.startswith(".")}
    assert mounted - files == set(FILE["volumes"])
    assert all((DEPLOY / name).is_file() for name in files)


@pytest.mark.parametrize("name", NODES)
def test_each_node_has_a_folder_of_its_own_and_shares_the_files(name: str) -> None:
    own, shared = SERVICES[name]["volumes"]
    assert own == f"{name}:/data"
    assert shared == "files:/data/files"


@pytest.mark.parametrize("name", NODES)
def test_a_node_runs_without_rights_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["user"] != "0:0"
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not any("unconfined" in option for option in service["security_opt"])


def test_what_is_depended_on_is_there_and_can_say_that_it_is_healthy() -> None:
    for service in SERVICES.values():
        needed = service.get("depends_on", {})
        assert set(needed) <= set(SERVICES)
        if isinstance(needed, dict):
            for other, how in needed.items():
                if how["condition"] == "service_healthy":
                    assert "healthcheck" in SERVICES[other]


def test_addresses_name_services_and_ports_that_are_there() -> None:
    environment = SERVICES["node-1"]["environment"]
    assert re.search(r"@postgres:5432/insula$", environment["INSULA_DATABASE_URL"])
    assert environment["INSULA_CLUSTER_URL"].endswith("@nats:4222")
    assert all(SERVICES[name]["environment"] == environment for name in NODES)
    assert SERVICES["postgres"]["environment"]["POSTGRES_DB"] == "insula"
    assert SERVICES["proxy"]["ports"] == ["127.0.0.1:8080:8080"]


def test_the_proxy_is_trusted_by_its_network() -> None:
    subnet = FILE["networks"]["default"]["ipam"]["config"][0]["subnet"]
    trusted = SERVICES["node-1"]["environment"]["INSULA_TRUSTED_PROXIES"]
    assert ip_network(trusted) == ip_network(subnet)


def test_secrets_come_from_the_environment_and_stand_in_the_example() -> None:
    asked = set(re.findall(r"\$\{(\w+)", TEXT))
    assert asked <= set(environment_example())
    required = set(re.findall(r"\$\{(\w+):\?", TEXT))
    assert required == {
        "POSTGRES_PASSWORD",
        "NATS_PASSWORD",
        "INSULA_ADMIN_KEY",
        "INSULA_SECRET_KEYS",
    }
    assert all(not environment_example()[name] for name in required)
    plain = re.sub(r"\$\{[^}]*\}", "", TEXT)
    assert not re.search(r"(PASSWORD|KEY): *\w", plain)


@pytest.mark.parametrize("name", NODES)
def test_a_node_is_given_the_time_it_takes_to_drain_and_to_stop(name: str) -> None:
    service = SERVICES[name]
    drain = float(service["environment"]["INSULA_DRAIN_SECONDS"])
    assert seconds(service["stop_grace_period"]) >= drain + 5 + 5


def test_every_setting_that_is_given_is_one_of_ours() -> None:
    known = {f"INSULA_{name.upper()}" for name in Settings.model_fields}
    given = set(SERVICES["node-1"]["environment"])
    given |= {name for name in environment_example() if name.startswith("INSULA_")}
    assert given <= known


def test_the_image_is_built_from_files_that_are_there() -> None:
    build = SERVICES["node-1"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()

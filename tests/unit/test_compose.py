"""docker-compose.yml is checked by Docker where it is there, and by hand everywhere: what it names must exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from choreo import Settings
from choreo.cli.load import load_services
from choreo.errors import ConfigurationError
from services.shop import services as shop

CHECKOUT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text("utf-8"))
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
CHOREO = {name: one for name, one in CONTAINERS.items() if "build" in one}
SERVERS = {name: one for name, one in CONTAINERS.items() if "build" not in one}
DOCKERFILE = (CHECKOUT / "deploy" / "Dockerfile").read_text("utf-8")


def has_docker_compose() -> bool:
    docker = shutil.which("docker")
    return (
        bool(docker)
        and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not has_docker_compose(), reason="docker compose is not installed here")
def test_docker_compose_accepts_it() -> None:
    run = subprocess.run(
        ["docker", "compose", "--profile", "orders", "config", "--quiet"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_every_service_of_the_shop_has_its_container() -> None:
    commands = [one["command"] for one in CHOREO.values() if "entrypoint" not in one]
    assert all(command[0] == "run" for command in commands)
    started = [service for command in commands for service in load_services(command[1:])]
    assert sorted(service.name for service in started) == sorted(service.name for service in shop)


def test_entrypoints_name_modules_that_exist() -> None:
    modules = [one["entrypoint"][2] for one in CHOREO.values() if "entrypoint" in one]
    assert modules
    for module in modules:
        assert callable(import_module(module).main)


@pytest.mark.parametrize("name", CHOREO)
def test_settings_are_ones_that_choreo_reads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = CHOREO[name]["environment"]
    for variable, value in environment.items():
        assert isinstance(value, str), f"{variable} must be quoted: YAML reads {value!r}"
        assert variable.removeprefix("CHOREO_").lower() in Settings.model_fields
        monkeypatch.setenv(variable, value)
    settings = Settings()
    hosts = [settings.log, settings.registry]
    assert [re.split(r"[:/]+", host)[1] in CONTAINERS for host in hosts] == [True, True]
    assert settings.creates_topics


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_a_container_waits_for_exists_and_says_when_it_is_healthy(name: str) -> None:
    for other, how in CONTAINERS[name].get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert CONTAINERS[other]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", SERVERS)
def test_servers_are_pinned_and_listen_on_this_machine_only(name: str) -> None:
    assert re.search(r":\d+\.\d+\.\d+$", SERVERS[name]["image"])
    assert all(port.startswith("127.0.0.1:") for port in SERVERS[name]["ports"])


@pytest.mark.parametrize("name", CONTAINERS)
def test_volumes_are_declared(name: str) -> None:
    used = {volume.partition(":")[0] for volume in CONTAINERS[name].get("volumes", [])}
    assert used <= set(COMPOSE["volumes"])


def test_kafka_advertises_what_the_containers_and_this_machine_use() -> None:
    environment = CONTAINERS["kafka"]["environment"]
    advertised = dict(one.split("://") for one in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    listening = dict(one.split("://:") for one in environment["KAFKA_LISTENERS"].split(","))
    assert {name: where.partition(":")[2] for name, where in advertised.items()}.items() <= listening.items()
    assert f"kafka://{advertised['INSIDE']}" in {one["environment"]["CHOREO_LOG"] for one in CHOREO.values()}
    assert CONTAINERS["kafka"]["ports"] == [f"127.0.0.1:{listening['OUTSIDE']}:{listening['OUTSIDE']}"]
    assert set(listening) == {
        one.partition(":")[0] for one in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")
    }


def test_the_image_has_all_it_needs_and_is_no_root() -> None:
    copied = [source for line in DOCKERFILE.splitlines() if line.startswith("COPY") for source in line.split()[1:-1]]
    assert {"choreo", "services", "schemas", "uv.lock"} <= set(copied)
    assert [source for source in copied if not (CHECKOUT / source).exists()] == []
    assert re.search(r"^FROM python:3\.\d+-slim", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^USER choreo$", DOCKERFILE, re.MULTILINE)


def test_a_typo_in_a_service_would_be_seen() -> None:
    with pytest.raises(ConfigurationError):
        load_services(["services.shop:paymnets"])

"""compose.yaml is a Compose file, and names settings and commands that exist."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from server.cli import commands
from server.config import Settings

FILE = Path(__file__).parent.parent / "compose.yaml"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


def test_it_follows_the_compose_specification() -> None:
    """The schema is the Compose project's own, as the package check-jsonschema ships it."""
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_it_has_every_part(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert {"postgres", "valkey", "migrate", "server", "worker", "simulator"} <= set(services)
    assert services["server"]["deploy"]["replicas"] == services["worker"]["deploy"]["replicas"] == 2
    for name in ("postgres", "valkey", "simulator", "server", "worker"):
        assert services[name]["healthcheck"]["test"], name


def test_every_setting_it_names_is_accepted(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        environment = {
            key: value for key, value in service.get("environment", {}).items() if key.startswith("FREEHOLD_")
        }
        # The one interpolated value that is not a password.
        environment = {
            key: value.replace("${FREEHOLD_AWS_MODE:-simulator}", "simulator") for key, value in environment.items()
        }
        Settings.from_environment(environment)
        assert name in ("postgres", "valkey", "simulator") or environment, name


def test_every_command_it_runs_exists(compose: dict[str, Any]) -> None:
    ours = [service for service in compose["services"].values() if service.get("image") == "freehold"]
    named = [service["command"] for service in ours if service.get("command", [""])[0] == "freehold"]
    named += [
        test[1:] for service in ours if (test := service.get("healthcheck", {}).get("test", ["", ""]))[1] == "freehold"
    ]
    assert named
    for _, command, *options in named:
        found = commands.commands[command]
        known = {flag for parameter in found.params if isinstance(parameter, click.Option) for flag in parameter.opts}
        assert set(options) <= known, command

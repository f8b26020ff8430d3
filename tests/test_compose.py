"""compose.yaml is a Compose file, and names settings and commands that exist."""

import re
import shlex
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


def interpolated(value: str, environment: dict[str, str]) -> str:
    """The value as Compose passes it on: `${NAME-default}` and `${NAME:-default}`."""

    def replace(match: re.Match[str]) -> str:
        name, colon, default = match.groups()
        found = environment.get(name)
        return default if found is None or (colon and not found) else found

    return re.sub(r"\$\{(\w+)(:?)-([^}]*)\}", replace, value)


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [({}, "http://simulator:4566"), ({"FREEHOLD_AWS_MODE": "real", "FREEHOLD_AWS_ENDPOINT_URL": ""}, None)],
    ids=["simulator", "real"],
)
def test_every_setting_it_names_is_accepted(
    compose: dict[str, Any], environment: dict[str, str], endpoint: str | None
) -> None:
    for name in ("migrate", "server", "worker", "cli"):
        passed = {
            key: interpolated(value, environment) for key, value in compose["services"][name]["environment"].items()
        }
        assert Settings.from_environment(passed).aws_endpoint_url == endpoint, name


def test_the_commands_of_its_header_are_complete() -> None:
    header = FILE.read_text().split("name: freehold")[0].replace("\\\n#", "")
    found = re.findall(r"cli freehold (.+)", header)
    assert len(found) == 2
    for line in found:
        # Parses the words, down to required options, without running anything.
        group, *words = shlex.split(line)
        sub = commands.commands[group]
        assert isinstance(sub, click.Group)
        sub.commands[words[0]].make_context(words[0], words[1:])


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

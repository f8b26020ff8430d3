"""compose.yaml is a Compose file, and what it runs starts, is found healthy and works together, without Docker."""

import asyncio
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from server.cli import commands
from server.config import Settings
from server.embedded.ports import free_port
from tests.running import CLEAN, FREEHOLD, Api
from tests.server.waiting import until

FILE = Path(__file__).parent.parent / "compose.yaml"
SIMULATOR_PORT, SERVER_PORT = "4566", "8000"
# As another container would: of the loopback network, only 127.0.0.1 reaches what listens on its default address.
NEIGHBOUR = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
READY_SECONDS = 60


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


def interpolated(value: str, environment: Mapping[str, str]) -> str:
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


def of_the_header() -> list[list[str]]:
    """The words behind `freehold` of each command that the header tells the operator to run."""
    header = FILE.read_text().split("name: freehold")[0].replace("\\\n#", "")
    return [shlex.split(line) for line in re.findall(r"cli freehold (.+)", header)]


def test_the_commands_of_its_header_are_complete() -> None:
    found = of_the_header()
    assert len(found) == 2
    for group, *words in found:
        # Parses the words, down to required options, without running anything.
        sub = commands.commands[group]
        assert isinstance(sub, click.Group)
        sub.commands[words[0]].make_context(words[0], words[1:])


def client_of_the_readme() -> str:
    (program,) = re.findall(r"```python\n(.*?)```", (FILE.parent / "README.md").read_text(), re.DOTALL)
    return str(program)


@dataclass
class Parts:
    """Runs what compose.yaml runs, on this machine.

    The names of containers and their ports become addresses of the loopback network; all else is as the file has it.
    """

    services: dict[str, Any]
    settings: Settings
    data_dir: Path
    simulator_port: str
    server_port: str

    def environment(self, name: str) -> dict[str, str]:
        given: dict[str, str] = self.services[name].get("environment", {})
        passed = {key: interpolated(value, {}) for key, value in given.items()}
        for key in ("database_url", "worker_database_url", "owner_database_url", "redis_url"):
            if (variable := f"FREEHOLD_{key.upper()}") in passed:
                passed[variable] = self.settings.require(key)
        if "FREEHOLD_AWS_ENDPOINT_URL" in passed:
            assert passed["FREEHOLD_AWS_ENDPOINT_URL"] == f"http://simulator:{SIMULATOR_PORT}"
            passed["FREEHOLD_AWS_ENDPOINT_URL"] = f"http://{NEIGHBOUR}:{self.simulator_port}"
        if "FREEHOLD_HOST" in passed:
            passed["FREEHOLD_PORT"] = self.server_port
        return CLEAN | passed

    def here(self, words: list[str]) -> list[str]:
        """The words of a command of a container, for this machine."""
        program, *rest = words
        found = {"python": [sys.executable], "freehold": [*FREEHOLD]}[program] + rest
        replaced = {"/data": str(self.data_dir), SIMULATOR_PORT: self.simulator_port, SERVER_PORT: self.server_port}
        for before, after in replaced.items():
            found = [re.sub(rf"(?<!\w){before}\b", after, word) for word in found]
        return found

    def check(self, name: str) -> list[str]:
        """The health check of a service, if it has one."""
        kind, *words = self.services[name].get("healthcheck", {"test": ["CMD"]})["test"]
        assert kind == "CMD"
        return self.here(words) if words else []

    @asynccontextmanager
    async def running(self, name: str) -> AsyncIterator[None]:
        """A service that is healthy, for as long as the block runs."""
        process = await asyncio.create_subprocess_exec(
            *self.here(self.services[name]["command"]), env=self.environment(name)
        )
        try:

            async def healthy() -> bool:
                assert process.returncode is None, f"{name} ended with {process.returncode}"
                return (await self.run(name, self.check(name)))[0] == 0

            await until(healthy, within=READY_SECONDS)
            yield
            assert process.returncode is None, f"{name} ended with {process.returncode}"
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()

    async def run(self, name: str, words: list[str]) -> tuple[int | None, str]:
        """Run a command with the environment of a service to its end; its exit status and what it printed."""
        process = await asyncio.create_subprocess_exec(
            *words,
            env=self.environment(name),
            stdout=asyncio.subprocess.PIPE,
            # What a health check says of what is not ready yet is nobody's to read.
            stderr=asyncio.subprocess.DEVNULL if words == self.check(name) else None,
        )
        out, _ = await process.communicate()
        return process.returncode, out.decode()


async def test_what_it_runs_works_together(compose: dict[str, Any], empty: Settings, tmp_path: Path) -> None:
    parts = Parts(compose["services"], empty, tmp_path, str(free_port()), str(free_port()))
    code, out = await parts.run("migrate", parts.here(compose["services"]["migrate"]["command"]))
    assert (code, out[:30]) == (0, "The database is at revision 00"), out
    async with AsyncExitStack() as stack:
        for name in ("simulator", "server", "worker"):
            await stack.enter_async_context(parts.running(name))
        printed = [await parts.run("cli", [*FREEHOLD, *words]) for words in of_the_header()]
        assert [code for code, _ in printed] == [0, 0], printed
        api = Api(f"http://{NEIGHBOUR}:{parts.server_port}", token=printed[1][1].strip())
        accounts = (await api.ask("{ accounts { nodes { id } } }"))["accounts"]["nodes"]
        await asyncio.gather(*(api.events(account["id"]) for account in accounts))
        assert await api.ask("{ tenancy { name state } }") == {"tenancy": {"name": "local", "state": "ACTIVE"}}
        program, address = client_of_the_readme(), f"ws://{NEIGHBOUR}:{parts.server_port}/graphql"
        words = [sys.executable, "-c", program, address, printed[1][1].strip(), accounts[0]["id"]]
        code, out = await parts.run("cli", words)
        assert (code, out.splitlines()[-1].split()[1]) == (0, "COMPLETED")


def test_every_part_of_ours_is_run(compose: dict[str, Any]) -> None:
    ours = {name for name, service in compose["services"].items() if service.get("image") == "freehold"}
    assert ours == {"simulator", "migrate", "server", "worker", "cli"}
    assert compose["services"]["server"]["ports"] == [f"127.0.0.1:8000-8001:{SERVER_PORT}"]

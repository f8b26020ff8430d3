"""The product as its users run it: `freehold up` and `freehold demo`, whole, from outside."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.embedded import require_free_port
from server.embedded.ports import free_port
from tests.running import CLEAN, FREEHOLD, Running, up

ACCOUNTS = "{ accounts { nodes { id name role status awsAccountId } } tenancy { state } }"


async def all_active(running: Running) -> dict[str, Any]:
    """The accounts as the API shows them once each has been followed to ACTIVE."""
    nodes = (await running.ask(ACCOUNTS))["accounts"]["nodes"]
    await asyncio.gather(*(running.events(node["id"]) for node in nodes))
    found = await running.ask(ACCOUNTS)
    assert {node["status"] for node in found["accounts"]["nodes"]} == {"ACTIVE"}, found
    assert found["tenancy"]["state"] == "ACTIVE"
    return found


async def in_aws_alone(running: Running, shown: dict[str, Any], *names: str) -> None:
    """AWS has the accounts that the API shows, under their names, and no other."""
    nodes = shown["accounts"]["nodes"]
    assert sorted(node["name"] for node in nodes) == sorted(("Management", "Security", "Logging", *names))
    accounts = await running.aws_accounts()
    assert set(accounts) == {node["awsAccountId"] for node in nodes}
    assert {(accounts[node["awsAccountId"]], node["name"]) for node in nodes if node["role"] != "MANAGEMENT"} == {
        (name, name) for name in ("Security", "Logging", *names)
    }


async def test_the_demo_creates_an_account_and_shows_every_stage() -> None:
    process = await asyncio.create_subprocess_exec(
        *(*FREEHOLD, "demo", "--json"), env=CLEAN, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    *events, last = (json.loads(line) for line in out.splitlines())
    summary = last["summary"]
    assert summary["account"]["status"] == "ACTIVE"
    assert {each["name"] for each in summary["accounts"]} == {"Management", "Security", "Logging", "Demo"}
    assert {stage["status"] for stage in summary["stages"]} == {"COMPLETED"}
    for account in summary["accounts"]:
        sequences = [event["sequence"] for event in events if event["account"] == account["name"]]
        assert sequences == list(range(1, account["events"] + 1))


async def test_up_keeps_accounts_over_kills_and_stops(tmp_path: Path) -> None:
    async with up(tmp_path / "data") as first:
        await first.create_account("Kept", await first.create_account_type("Development"))
        shown = await all_active(first)
        await in_aws_alone(first, shown, "Kept")
        children = first.children()
        first.process.kill()
        await first.process.wait()
        _, alive = await asyncio.to_thread(psutil.wait_procs, children, 30)
        assert alive == []
    async with up(tmp_path / "data") as second:
        assert await second.ask(ACCOUNTS) == shown
        await in_aws_alone(second, shown, "Kept")
        assert second.description["token"] == first.description["token"]
        assert await second.stop(signal.SIGINT) == 0
    # It has nothing that goes before it; the others may complain while everything is killed around them.
    assert "Traceback" not in (tmp_path / "data" / "logs" / "simulator.log").read_text()


async def test_a_second_up_on_the_same_data_is_refused_and_so_is_a_taken_port(tmp_path: Path) -> None:
    (tmp_path / "not ours").mkdir()
    (tmp_path / "not ours" / "file").touch()
    async with up(tmp_path / "data") as running:
        port = int(running.url.rsplit(":", 1)[1])
        for directory, its_port, expected in (
            ("data", free_port(), f"The data directory {tmp_path / 'data'} is in use by process"),
            ("not ours", free_port(), f"{tmp_path / 'not ours'} is not empty and holds no data of Freehold"),
            (
                "other",
                port,
                f"port {port} on 127.0.0.1 is already in use by another process: end that one, or choose another",
            ),
        ):
            process = await asyncio.create_subprocess_exec(
                *(*FREEHOLD, "up", "--data-dir", str(tmp_path / directory), "--port", str(its_port)),
                env=CLEAN,
                stderr=asyncio.subprocess.PIPE,
            )
            _, errors = await process.communicate()
            assert process.returncode == 1
            assert expected in errors.decode()
        assert await running.stop(signal.SIGTERM) == 0
    require_free_port("127.0.0.1", port)


async def test_killing_the_worker_in_the_middle_still_ends_active_with_one_aws_account(tmp_path: Path) -> None:
    async with up(tmp_path / "data") as running:
        account = await running.create_account("Killed", await running.create_account_type("Development"))
        events = []
        async for event in running.follow(account):
            events.append(event)
            if event["sequence"] == 2:
                # Its first stage, the one that creates the account, has just started.
                running.named("worker").kill()
        assert events[-1]["account"]["status"] == "ACTIVE", events[-1]
        assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
        await in_aws_alone(running, await all_active(running), "Killed")


@pytest.mark.parametrize("command", [["server"], ["worker"], ["migrate"], ["token", "list", "--tenancy", "x"]])
async def test_a_missing_setting_is_named(command: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(*FREEHOLD, *command, env=CLEAN, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert errors.decode().startswith("freehold: FREEHOLD_")
    assert "is not set. It is" in errors.decode()

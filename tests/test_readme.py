"""The README says what is so."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from click import Group
from graphql import parse, validate

from server.cli import commands, revoke_token
from server.config import PREFIX, Settings
from server.graphql.endpoint import SECONDS_BETWEEN_TOKEN_CHECKS
from server.identity.service import REMEMBERED_SECONDS
from server.roles import CONNECT_SECONDS
from server.schema import schema

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_every_setting_is_in_the_table_with_its_default_and_meaning() -> None:
    rows = dict(re.findall(r"^\| `(FREEHOLD_\w+)` \|(.*)\|$", README, re.MULTILINE))
    settings = {PREFIX + each.name.upper(): each for each in fields(Settings)}
    assert list(rows) == list(settings)
    for name, row in rows.items():
        default, meaning = (cell.strip() for cell in row.split("|"))
        assert default == (f"`{settings[name].default}`" if settings[name].default else ""), name
        assert meaning == settings[name].metadata["description"], name


def test_a_token_that_has_ended_loses_access_within_the_bounds_it_gives() -> None:
    found = re.search(r"refused after (\d+) seconds at\smost.*?closed after (\d+) seconds at most", README, re.DOTALL)
    assert found is not None
    requests, sockets = map(int, found.groups())
    assert requests >= REMEMBERED_SECONDS
    # Remembered just before it ended, and just so at the next check; PostgreSQL may then take as long as a connection.
    assert sockets >= SECONDS_BETWEEN_TOKEN_CHECKS + REMEMBERED_SECONDS + CONNECT_SECONDS
    assert f"within {requests} seconds" in (revoke_token.help or "")
    assert f"within {sockets}." in (revoke_token.help or "")


@pytest.mark.parametrize("document", re.findall(r"```graphql\n(.*?)```", README, re.DOTALL))
def test_every_document_is_valid(document: str) -> None:
    assert validate(schema._schema, parse(document)) == []


def test_every_command_is_in_the_table() -> None:
    table = README.split("## The command line")[1].split("## Configuration")[0]
    for name, command in commands.commands.items():
        assert f"`freehold {name}" in table, name
        if isinstance(command, Group):
            assert all(f"`freehold {name} {sub}`" in table or f"`{sub}`" in table for sub in command.commands), name

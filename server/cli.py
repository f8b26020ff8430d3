"""The command line. Every command imports what it needs when it runs: the ones that only start others start fast."""

import asyncio
import importlib
import json
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import click

from server.config import PREFIX, LogLevel, Settings
from server.errors import FreeholdError, Refused
from server.logs import configure_logging

T = TypeVar("T")

DEFAULT_DATA_DIR = Path("~/.local/share/freehold")


def main() -> None:
    """Run the command; an expected error is shown as one message, without a traceback, and exits with 1."""
    try:
        commands(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except (FreeholdError, Refused) as error:
        click.echo(f"freehold: {error}", err=True)
        sys.exit(1)


def settings_for_command() -> Settings:
    settings = Settings.from_environment()
    configure_logging(settings.log_level)
    return settings


def on_database(coroutine: Coroutine[Any, Any, T], setting: str = "worker_database_url") -> T:
    """The result of work on PostgreSQL, reached by the URL of a setting.

    Raises FreeholdError, which says what to do, for a fault on the way.
    """
    with database_faults(setting):
        return asyncio.run(coroutine)


@contextmanager
def database_faults(setting: str = "worker_database_url") -> Iterator[None]:
    """Say plainly what an operator can put right."""
    try:
        yield
    except (FreeholdError, Refused):
        raise
    except Exception as error:
        message = database_fault(error, PREFIX + setting.upper())
        if message is None:
            raise
        # Not `from`: what SQLAlchemy says may hold the statement and its values.
        raise FreeholdError(message) from None


def database_fault(error: BaseException, variable: str) -> str | None:
    """What to do about a fault on the way to PostgreSQL, whose URL is in a variable; None for any other error."""
    import asyncpg

    from server.outages import cause_of, is_away

    meanings = {
        asyncpg.UndefinedTableError: "the database has no tables, or old ones; run `freehold migrate` first",
        asyncpg.UndefinedColumnError: "the database has old tables; run `freehold migrate` first",
        asyncpg.LockNotAvailableError: "a table is in use for longer than 10 seconds; try again when it is quieter",
    }
    cause: BaseException | None = error
    while cause is not None:
        for kind, meaning in meanings.items():
            if isinstance(cause, kind):
                return f"{meaning} ({cause})"
        cause = cause.__cause__
    if not is_away(error):
        return None
    return f"{cause_of(error)}. Check {variable}, and that PostgreSQL runs."


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="freehold", message="freehold %(version)s")
def commands() -> None:
    """Freehold creates AWS accounts, hardens each of them stage by stage, and governs them by type."""


@commands.command()
@click.option(
    "--data-dir", type=click.Path(path_type=Path, file_okay=False), default=DEFAULT_DATA_DIR, show_default=True
)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="When ready, print one JSON line on stdout.")
def up(data_dir: Path, port: int, as_json: bool) -> None:
    """Run all of Freehold on this machine, against the AWS simulator, until Ctrl-C.

    PostgreSQL, Valkey and the simulator keep their data in the data directory.
    """
    from server.embedded.installation import serve_until_stopped

    configure_logging(LogLevel.INFO)
    asyncio.run(serve_until_stopped(data_dir.expanduser(), port, as_json=as_json))


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each event, then a summary object.")
def demo(as_json: bool) -> None:
    """Create an account in a new tenancy and follow its hardening, on a throwaway data directory."""
    from server.demo import run_demo
    from server.embedded.installation import installation, until_stopped

    async def show() -> bool:
        with tempfile.TemporaryDirectory(prefix="freehold-demo-") as directory:
            async with installation(Path(directory), port=None) as running:
                return await running.while_up(run_demo(running.url, running.token, as_json=as_json))

    configure_logging(LogLevel.WARNING)
    if not as_json:
        click.echo(
            "Starting PostgreSQL, Valkey, the AWS simulator, a server and a worker on a throwaway data directory."
        )
    active = asyncio.run(until_stopped(show()))
    if active is None:
        sys.exit(130)
    if not active:
        raise FreeholdError("the account did not become ACTIVE; the events above say where it stopped")


@commands.command()
def server() -> None:
    """Serve the API. Run as many as you like."""
    from server.app import serve

    serve(settings_for_command())


@commands.command()
@click.option("--check", is_flag=True, help="Exit with 0 if a worker on this machine is at work, else with 1.")
def worker(check: bool) -> None:
    """Work on AWS. Run as many as you like."""
    settings = settings_for_command()
    if check:
        if not on_database(worker_at_work(settings)):
            raise FreeholdError("no worker on this machine has spoken to PostgreSQL in the last 30 seconds")
        return
    # The server never imports the workers: only this command, when it is asked to become one.
    with database_faults():
        importlib.import_module("workers.main").run(settings)


@commands.command()
def migrate() -> None:
    """Bring the database to the newest revision. Safe to run from many processes at once."""
    from server.migrate import migrate as run_migrations

    click.echo(
        f"The database is at revision {on_database(run_migrations(settings_for_command()), 'owner_database_url')}."
    )


@commands.command()
def recount() -> None:
    """Count the accounts of every type and put right the counters that are wrong. Changes wait, one type at a time."""
    from server.operations import Recounted, recount_accounts

    reported = 0

    def report(found: Recounted) -> None:
        nonlocal reported
        reported += 1
        click.echo(f"{found.tenancy}  {found.account_type}  had {found.kept}, is {found.counted}")

    on_database(recount_accounts(settings_for_command(), report))
    if not reported:
        click.echo("Every counter was right.")


@commands.command()
def schema() -> None:
    """Print the GraphQL schema."""
    from server.schema import schema as api

    click.echo(api.as_str())


@commands.command("iam-policy")
def iam_policy() -> None:
    """Print the IAM policy that holds what Freehold calls in AWS, and nothing more."""
    stages = importlib.import_module("workers.assurance.stages").STAGES
    others = ("account_types.calls", "policies.calls", "policies.comparison", "quotas")
    of_others = [importlib.import_module(f"workers.{each}").PERMISSIONS for each in others]
    actions = sorted({*chain(*of_others), *(permission for stage in stages for permission in stage.permissions)})
    statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    click.echo(json.dumps({"Version": "2012-10-17", "Statement": [statement]}, indent=2))


@commands.group()
def tenancy() -> None:
    """Tenancies: one for each AWS organization."""


@tenancy.command("create")
@click.argument("name")
@click.option("--email-template", required=True, help="E-mail of new accounts, e.g. aws+{id}@example.com.")
@click.option("--security-contact", nargs=3, required=True, metavar="NAME EMAIL PHONE")
@click.option("--home-region", default="us-east-1", show_default=True)
@click.option("--region", "regions", multiple=True, help="A Region to harden; repeat. Default: all enabled by default.")
@click.option("--another", is_flag=True, help="Open it though there is one, which has the organization of the workers.")
def create_tenancy(
    name: str,
    email_template: str,
    security_contact: tuple[str, str, str],
    home_region: str,
    regions: tuple[str, ...],
    another: bool,
) -> None:
    """Create a tenancy and begin its bootstrap: organization, units, Security and Logging accounts."""
    from server.operations import open_tenancy

    created = on_database(
        open_tenancy(
            settings_for_command(),
            name=name,
            email_template=email_template,
            security_contact=security_contact,
            home_region=home_region,
            regions=regions,
            another=another,
        )
    )
    click.echo(f"Tenancy {created.name} is being set up; follow its management account in the API.")


@commands.group()
def token() -> None:
    """API tokens: what programs sign in with."""


@token.command("create")
@click.argument("name")
@click.option("--tenancy", "tenancy_name", required=True)
@click.option("--role", type=click.Choice(["ADMIN", "OPERATOR", "USER", "READONLY"]), required=True)
@click.option("--expires-in-days", type=click.IntRange(1, 3650), help="Default: never.")
def create_token(name: str, tenancy_name: str, role: str, expires_in_days: int | None) -> None:
    """Create a token and print its secret on stdout, once: it is not kept anywhere."""
    from server.operations import issue_token

    lifetime = None if expires_in_days is None else timedelta(days=expires_in_days)
    click.echo(on_database(issue_token(settings_for_command(), tenancy_name, name, role, lifetime)))


@token.command("list")
@click.option("--tenancy", "tenancy_name", required=True)
def list_tokens(tenancy_name: str) -> None:
    """List a tenancy's live tokens."""
    from server.operations import live_tokens

    def when(moment: datetime | None) -> str:
        return "never" if moment is None else moment.isoformat(timespec="seconds")

    for each in on_database(live_tokens(settings_for_command(), tenancy_name)):
        click.echo(
            f"{each.name}  {each.role}  fh_{each.prefix}_...  expires {when(each.expires_at)}  "
            f"last used {when(each.last_used_at)}"
        )


@token.command("revoke")
@click.argument("name")
@click.option("--tenancy", "tenancy_name", required=True)
def revoke_token(name: str, tenancy_name: str) -> None:
    """Revoke a token: requests with it are refused within 10 seconds, open sockets closed within 30."""
    from server.operations import withdraw_token

    on_database(withdraw_token(settings_for_command(), tenancy_name, name))
    click.echo(f"Token {name} is revoked.")


async def worker_at_work(settings: Settings) -> bool:
    from sqlalchemy import text

    from server.database import create_engine
    from server.roles import WORKER, worker_name

    engine = create_engine(settings.require(WORKER.setting), WORKER, pool_size=1)
    try:
        async with engine.connect() as connection:
            recent = text(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = :name "
                "AND state_change > now() - interval '30 seconds' LIMIT 1"
            )
            return await connection.scalar(recent, {"name": worker_name()}) is not None
    finally:
        await engine.dispose()


if __name__ == "__main__":
    main()

import asyncio
from dataclasses import replace

from sqlalchemy import select

from server.assurance.models import StageDefinition
from server.config import Settings
from server.database import create_engine, transaction
from server.migrate import migrate
from workers.assurance.stages import STAGES
from workers.catalogue import declare_stages


async def test_the_table_holds_what_is_declared(empty: Settings) -> None:
    await migrate(empty)
    engine = create_engine(empty.require("worker_database_url"))
    try:
        await declare_stages(engine, [replace(STAGES[0], name="of_yesterday"), *STAGES])
        # Workers that start together.
        await asyncio.gather(*(declare_stages(engine, STAGES) for _ in range(4)))
        async with transaction(engine) as session:
            rows = (await session.scalars(select(StageDefinition).order_by(StageDefinition.position))).all()
    finally:
        await engine.dispose()
    assert [(row.position, row.name) for row in rows] == list(enumerate((stage.name for stage in STAGES), start=1))
    ebs = next(row for row in rows if row.name == "ebs_encryption")
    assert ebs.controls == [{"benchmark": "CIS AWS Foundations", "version": "7.0", "id": "6.1.1"}]
    assert ebs.roles == ["MEMBER", "SECURITY", "LOGGING"]
    assert "ec2:EnableEbsEncryptionByDefault" in ebs.permissions

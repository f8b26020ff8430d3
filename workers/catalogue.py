"""The stages as the API sees them: written to `stage_definition` when a worker starts."""

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import delete, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from server.assurance.models import StageDefinition
from server.database import transaction
from workers.assurance.stage import Stage

# Any number that nothing else in the database uses: workers that start together write one after the other.
CATALOGUE_LOCK = 0x73746167


async def declare_stages(engine: AsyncEngine, stages: Sequence[Stage]) -> None:
    """Make the table hold exactly these stages, in this order."""
    rows = [
        {
            "name": stage.name,
            "position": position,
            "title": stage.title,
            "description": stage.description,
            "controls": [asdict(control) for control in stage.controls],
            "permissions": list(stage.permissions),
            "roles": [role.value for role in stage.roles],
            "governs": stage.governs,
        }
        for position, stage in enumerate(stages, start=1)
    ]
    new = insert(StageDefinition)
    upsert = new.on_conflict_do_update(
        index_elements=[StageDefinition.name],
        set_={column: new.excluded[column] for column in rows[0] if column != "name"},
    )
    async with transaction(engine) as session:
        await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": CATALOGUE_LOCK})
        await session.execute(delete(StageDefinition).where(StageDefinition.name.not_in([row["name"] for row in rows])))
        await session.execute(upsert, rows)

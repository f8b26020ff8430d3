"""Alembic migrations: `freehold migrate` runs them, from as many processes at once as like to."""

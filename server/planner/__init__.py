"""GraphQL reads as SQL: a mapping beside the types, and one statement per root field. Knows no domain."""

from server.planner.read import install, read_list, read_payload

__all__ = ["install", "read_list", "read_payload"]

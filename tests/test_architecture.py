"""The arrows of the layout: who may import whom. A new arrow is a decision, so it is made here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A domain may import those to its right, never one to its left.
DOMAINS = ("assurance", "access", "policies", "accounts", "account_types", "quotas", "tenancies")
# What a worker may import from the server: the contract, and of each domain its tables and its rules.
FOR_WORKERS = {
    "config",
    "database",
    "errors",
    "idempotency",
    "jobs",
    "leases",
    "logs",
    "loops",
    "models",
    "outages",
    "relay",
    "roles",
}
RULES = {"models", "service", "tags", "foundation", "governance", "comparison", "drift"}
# Inside a domain: who may import whom.
INSIDE = {
    "models": set[str](),
    "service": {"models", "tags", "use"},
    "tags": {"models"},
    "foundation": {"models", "service", "requests", "comparison"},
    "governance": {"models", "service"},
    "comparison": {"models"},
    "drift": {"models", "service"},
    "mending": {"models", "service", "requests"},
    "grants": {"models"},
    "removal": {"models"},
    "types": {"models", "use"},
    "use": {"models"},
    "queries": {"models", "service", "types", "inputs", "preview", "preview_types"},
    "requests": {"models", "service", "diff", "names"},
    "mutations": {
        "models",
        "service",
        "comparison",
        "mending",
        "governance",
        "grants",
        "removal",
        "requests",
        "types",
        "checks",
        "inputs",
    },
    "batches": {"mutations", "requests"},
    "subscriptions": {"models", "service", "types"},
    # What a policy says, without a database.
    "names": set(),
    "problems": set(),
    "source": {"problems"},
    "operators": set(),
    "document": {"operators", "problems", "source"},
    "work": set(),
    "wildcards": {"work"},
    "actions": {"document", "problems"},
    "conditions": {"document", "operators", "wildcards", "work"},
    "evaluation": {"conditions", "document", "wildcards", "work"},
    "lockout": {"actions", "conditions", "document", "evaluation", "wildcards", "work"},
    "diff": {"document"},
    # Both together.
    "checks": {
        "models",
        "actions",
        "diff",
        "document",
        "lockout",
        "paths",
        "problems",
        "requests",
        "source",
        "wildcards",
        "work",
    },
    "paths": {"models", "requests"},
    "inputs": {"requests"},
    "preview_types": {"evaluation"},
    "decisions": {
        "models",
        "actions",
        "conditions",
        "document",
        "evaluation",
        "lockout",
        "paths",
        "preview_types",
        "requests",
        "wildcards",
        "work",
    },
    "preview": {
        "actions",
        "checks",
        "decisions",
        "diff",
        "document",
        "lockout",
        "paths",
        "preview_types",
        "requests",
        "source",
        "work",
    },
}
# What knows GraphQL or SQL in general knows no domain.
GENERAL = ("graphql", "planner")
FRAMEWORKS = {"strawberry", "starlette", "uvicorn", "graphql"}


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that the file imports, as a dotted name; what stands under `if TYPE_CHECKING` is not run."""
    tree = ast.parse(path.read_text(), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_name(path: Path) -> list[str]:
    return list(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", modules("server", "migrations"), ids=str)
def test_nothing_but_the_workers_imports_the_workers(path: Path) -> None:
    assert [name for name in imports(path) if name.split(".")[0] == "workers"] == []


@pytest.mark.parametrize("path", modules("workers"), ids=str)
def test_workers_import_only_the_contract_and_the_rules(path: Path) -> None:
    for name in imports(path):
        package, *rest = name.split(".")
        assert package not in FRAMEWORKS, f"{path} imports {name}"
        if package == "server":
            allowed = rest[0] in FOR_WORKERS or (len(rest) > 1 and rest[1] in RULES)
            assert allowed, f"{path} imports {name}"


@pytest.mark.parametrize("path", modules(*(f"server/{domain}" for domain in DOMAINS)), ids=str)
def test_domains_import_only_to_their_right(path: Path) -> None:
    domain, kind = module_name(path)[1], module_name(path)[-1]
    to_the_right = DOMAINS[DOMAINS.index(domain) :]
    for name in imports(path):
        package, *rest = name.split(".")
        if package != "server" or rest[0] not in DOMAINS:
            continue
        assert rest[0] in to_the_right, f"{path} imports {name}"
        if rest[0] == domain and kind != "__init__":
            assert rest[1] in INSIDE[kind], f"{path} imports {name}"


@pytest.mark.parametrize("path", modules(*(f"server/{domain}" for domain in (*DOMAINS, "identity"))), ids=str)
def test_rules_and_tables_know_no_framework(path: Path) -> None:
    if path.stem in RULES:
        for name in imports(path):
            assert name.split(".")[0] not in FRAMEWORKS, f"{path} imports {name}"
            assert not name.startswith(("server.graphql", "server.planner")), f"{path} imports {name}"


@pytest.mark.parametrize("path", modules(*(f"server/{folder}" for folder in GENERAL)), ids=str)
def test_the_general_parts_know_no_domain(path: Path) -> None:
    for name in imports(path):
        package, *rest = name.split(".")
        assert package != "server" or rest[0] not in DOMAINS, f"{path} imports {name}"


@pytest.mark.parametrize("path", modules("server", "workers"), ids=str)
def test_files_stay_readable(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= 400, f"{path} has {lines} lines; split it by noun"


def test_the_top_level_is_fixed() -> None:
    allowed = {"pyproject.toml", "README.md", "schema.graphql", "server", "workers", "migrations", "tests"}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - {"uv.lock", "dist"} == allowed | {"compose.yaml", "LICENSE"}

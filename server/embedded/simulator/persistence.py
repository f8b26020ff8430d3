"""The simulator's memory on disk: a snapshot of every moto backend that was changed, written before the answer leaves.

moto keeps its state in one backend object per service, account and region. While a request is answered, `Snapshots`
notes which backends it reached; `save` pickles those into one SQLite transaction, so that a request that changed
several of them is kept whole or not at all. After a restart backends are restored from their snapshots as they are
reached; those of global services are restored with their service, because moto searches them across accounts.

Backends and the collections that hold them are stored by name, never by value: each snapshot holds the state of one
backend, and references between them meet again after a restart.
"""

import hashlib
import io
import logging
import pickle
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import moto
from moto.backends import get_backend
from moto.core.base_backend import AccountSpecificBackend, BackendDict, BaseBackend
from moto.utilities.utils import PARTITION_NAMES

from server.embedded.errors import EmbeddedError

log = logging.getLogger("simulator")

# "Frhd": tells a state file from any other SQLite file, and from one that was cut short.
APPLICATION_ID = 0x46726864
SCHEMA = """
    CREATE TABLE snapshot (
        service TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, state BLOB NOT NULL,
        PRIMARY KEY (service, account, region)
    ) WITHOUT ROWID
"""


class Key(NamedTuple):
    service: str
    account: str
    region: str


class UnreadableStateError(EmbeddedError):
    """The state file is damaged; an AWS without its accounts must not be shown in its place."""

    def __init__(self, path: Path, what: object) -> None:
        super().__init__(
            f"The AWS simulator cannot read its state, {path}: {what}. "
            "Restore the file from a copy, or start with another --data-dir for an empty AWS."
        )


class UnkeepableStateError(Exception):
    """A backend holds what cannot be written down."""


class Snapshots:
    """The state file. Reads and writes come one at a time, under the simulator's lock."""

    def __init__(self, path: Path, *, fsync: bool = True) -> None:
        self._path = path
        self._collections: dict[str, BackendDict[Any]] = {}
        self._own_collections: dict[str, BackendDict[Any]] = {}
        self._documents: dict[str, str] = {}
        self._restored: Callable[[Key, BaseBackend], None] = lambda _key, _backend: None
        self._reached: dict[Key, BaseBackend] = {}
        self._digests: dict[Key, bytes] = {}
        self._changed = False
        try:
            self._database = _open(path, fsync)
            self._stored = {
                Key(*row) for row in self._database.execute("SELECT service, account, region FROM snapshot")
            }
        except sqlite3.Error as error:
            raise UnreadableStateError(path, error) from error
        _observe(self)

    def add_collection(self, collection: BackendDict[Any]) -> None:
        """A collection of backends that is not moto's."""
        self._own_collections[collection.service_name] = collection

    def share_documents(self, documents: dict[str, str]) -> None:
        """Long texts that many backends hold the very same object of: stored by name."""
        self._documents.update(documents)

    def when_restored(self, callback: Callable[[Key, BaseBackend], None]) -> None:
        self._restored = callback

    def restore_service(self, service: str) -> None:
        """Restore the backends of a global service."""
        for key in [key for key in self._stored if key.service == service and key.region in PARTITION_NAMES]:
            self._backend(*key)

    def begin(self) -> None:
        """A request begins."""
        self._reached.clear()
        self._changed = False

    def mark_changed(self) -> None:
        """The request changes something although its name sounds like a read."""
        self._changed = True

    def save(self, *, is_write: bool) -> None:
        """Keep what the request did; raises UnkeepableStateError when that is impossible.

        A backend that came into being is kept after a read too: its identifiers are random, and the client has seen
        them.
        """
        everything = is_write or self._changed
        rows = []
        for key, backend in self._reached.items():
            if everything or key not in self._stored:
                state = self._dump(key, backend)
                digest = hashlib.blake2b(state, digest_size=16).digest()
                if self._digests.get(key) != digest:
                    rows.append((key, digest, zlib.compress(state, 1)))
        if not rows:
            return
        try:
            with self._database:
                self._database.executemany(
                    "INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?, ?)", [(*key, state) for key, _, state in rows]
                )
        except sqlite3.Error as error:
            raise UnkeepableStateError(f"The AWS simulator cannot write its state, {self._path}: {error}.") from error
        self._stored.update(key for key, _, _ in rows)
        self._digests.update((key, digest) for key, digest, _ in rows)

    def reach(self, key: Key, backend: BaseBackend) -> None:
        self._reached[key] = backend

    def restore(self, key: Key, collection: AccountSpecificBackend[Any]) -> None:
        """Put the backend of `key` into its collection when there is a snapshot of it."""
        if key not in self._stored:
            return
        row = self._database.execute(
            "SELECT state FROM snapshot WHERE (service, account, region) = (?, ?, ?)", key
        ).fetchone()
        backend: BaseBackend = object.__new__(collection.backend)
        backend.region_name, backend.account_id = key.region, key.account
        # In its place before it is filled: what refers back to it finds it there.
        dict.__setitem__(collection, key.region, backend)
        try:
            backend.__dict__.update(self._load(row[0]))
        except Exception as error:
            dict.__delitem__(collection, key.region)
            raise UnreadableStateError(self._path, f"{' '.join(key)}: {error!r} (moto {moto.__version__})") from error
        self._restored(key, backend)

    def _dump(self, key: Key, backend: BaseBackend) -> bytes:
        buffer = io.BytesIO()
        try:
            _Pickler(buffer, self._names(), self._documents).dump(backend.__dict__)
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
            raise UnkeepableStateError(f"The AWS simulator cannot keep the state of {key.service}: {error}.") from error
        return buffer.getvalue()

    def _load(self, state: bytes) -> dict[str, Any]:
        loaded: dict[str, Any] = _Unpickler(io.BytesIO(zlib.decompress(state)), self._named, self._documents).load()
        return loaded

    def _names(self) -> dict[type, str]:
        return {each.backend: each.service_name for each in [*_known_collections(), *self._own_collections.values()]}

    def _backend(self, service: str, account: str, region: str) -> BaseBackend:
        backend: BaseBackend = self._collection(service)[account][region]
        return backend

    def _collection(self, service: str) -> BackendDict[Any]:
        if service not in self._collections:
            own = self._own_collections.get(service)
            self._collections[service] = own if own is not None else get_backend(service)  # type: ignore[call-overload]
        return self._collections[service]

    def _named(self, kind: str, name: tuple[str, ...]) -> object:
        match kind:
            case "backend":
                return self._backend(*name)
            case "account":
                return self._collection(name[0])[name[1]]
            case _:
                return self._collection(name[0])


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, names: dict[type, str], documents: dict[str, str]) -> None:
        super().__init__(file, protocol=5)
        self._names = names
        self._documents = {id(text): name for name, text in documents.items()}

    def persistent_id(self, thing: object) -> tuple[str, tuple[str, ...]] | None:
        if isinstance(thing, BaseBackend):
            service = self._names.get(type(thing))
            return None if service is None else ("backend", (service, thing.account_id, thing.region_name))
        if isinstance(thing, AccountSpecificBackend):
            return "account", (thing.service_name, thing.account_id)
        if isinstance(thing, BackendDict):
            return "service", (thing.service_name,)
        if isinstance(thing, str) and (name := self._documents.get(id(thing))):
            return "document", (name,)
        return None


class _Unpickler(pickle.Unpickler):
    def __init__(
        self, file: io.BytesIO, named: Callable[[str, tuple[str, ...]], object], documents: dict[str, str]
    ) -> None:
        super().__init__(file)
        self._named = named
        self._documents = documents

    def persistent_load(self, pid: tuple[str, tuple[str, ...]]) -> object:
        kind, name = pid
        return self._documents[name[0]] if kind == "document" else self._named(kind, name)


def _known_collections() -> list[BackendDict[Any]]:
    return list(BackendDict._instances)  # type: ignore[misc]


def _observe(snapshots: Snapshots) -> None:
    """Have every access to a backend restore it first and note that it was reached."""
    plain = AccountSpecificBackend.__getitem__

    def get(collection: AccountSpecificBackend[Any], region_name: str) -> BaseBackend:
        key = Key(collection.service_name, collection.account_id, "aws" if region_name == "global" else region_name)
        if not dict.__contains__(collection, key.region):
            snapshots.restore(key, collection)
        backend: BaseBackend = plain(collection, key.region)
        snapshots.reach(key, backend)
        return backend

    AccountSpecificBackend.__getitem__ = get  # type: ignore[method-assign, assignment]


def _open(path: Path, fsync: bool) -> sqlite3.Connection:
    if not path.exists():
        _create(path)
    # The simulator's lock keeps its threads apart.
    database = sqlite3.connect(path, check_same_thread=False)
    if database.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise sqlite3.DatabaseError("it is not a state file, or was cut short")
    if (found := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise sqlite3.DatabaseError(found)
    database.execute("PRAGMA journal_mode = WAL")
    # NORMAL loses the last changes to a power cut, never to a killed process, and never the file.
    database.execute(f"PRAGMA synchronous = {'NORMAL' if fsync else 'OFF'}")
    return database


def _create(path: Path) -> None:
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    database = sqlite3.connect(new)
    database.executescript(f"PRAGMA application_id = {APPLICATION_ID}; {SCHEMA};")
    database.close()
    new.rename(path)

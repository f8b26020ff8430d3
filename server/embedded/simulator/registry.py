"""What AWS knows across accounts: whose an access key is, and which account aliases are taken."""

from dataclasses import dataclass
from datetime import datetime

from moto.core.base_backend import BackendDict, BaseBackend
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.utils import utcnow
from moto.iam.models import iam_backends

MANAGEMENT_ACCOUNT = DEFAULT_ACCOUNT_ID
TEMPORARY_KEY_PREFIX = "ASIA"


@dataclass(frozen=True, slots=True)
class TemporaryKey:
    account: str
    expires: datetime


class RegistryBackend(BaseBackend):
    """Kept like the backends of moto: see `persistence`."""

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.temporary_keys: dict[str, TemporaryKey] = {}
        self.alias_owners: dict[str, str] = {}


registry_backends = BackendDict(
    RegistryBackend, "freehold-registry", use_boto3_regions=False, additional_regions=["aws"]
)


def registry() -> RegistryBackend:
    return registry_backends[MANAGEMENT_ACCOUNT]["aws"]


def is_expired(access_key: str) -> bool:
    """Whether this is a temporary key that AWS would not take: expired, or never issued."""
    if not access_key.startswith(TEMPORARY_KEY_PREFIX):
        return False
    key = registry().temporary_keys.get(access_key)
    return key is None or key.expires <= utcnow()


def account_of(access_key: str) -> str:
    """The account that an access key works in."""
    if key := registry().temporary_keys.get(access_key):
        return key.account
    for account, backends in iam_backends.items():
        # The plain dict: asking moto's would create a backend for every account and partition.
        backend = dict.get(backends, "aws")
        if backend is not None and access_key in backend.access_keys:
            return account
    return MANAGEMENT_ACCOUNT

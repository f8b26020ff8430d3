"""STS: roles can be assumed only where they exist, in open accounts of the organization."""

import re
from datetime import timedelta
from typing import Any

from moto.core.utils import utcnow
from moto.iam import models as iam_models
from moto.iam.models import iam_backends
from moto.sts import urls
from moto.sts.models import AssumedRole, STSBackend, sts_backends

from server.embedded.simulator.organizations import is_open
from server.embedded.simulator.refusals import Refusal
from server.embedded.simulator.registry import TemporaryKey, account_of, registry

ROLE_ARN = re.compile(r"arn:aws:iam::(?P<account>\d{12}):role/.+")


class Sts(STSBackend):
    _url_module = urls  # moto would look for it beside the class

    def assume_role(self, *, role_arn: str, duration: int, **arguments: Any) -> AssumedRole:  # type: ignore[override]
        parsed = ROLE_ARN.fullmatch(role_arn)
        if parsed is None or not _can_be_assumed(parsed["account"], role_arn):
            raise Refusal(
                "AccessDenied",
                f"User: arn:aws:iam::{self.account_id}:root is not authorized to perform: sts:AssumeRole "
                f"on resource: {role_arn}",
            )
        _forget_expired(parsed["account"])
        role = super().assume_role(role_arn=role_arn, duration=duration, **arguments)
        registry().temporary_keys[role.access_key_id] = TemporaryKey(
            role.account_id, utcnow() + timedelta(seconds=duration)
        )
        return role


def _can_be_assumed(account: str, role_arn: str) -> bool:
    # The account first: asking for its backend would bring it into being.
    return is_open(account) and any(role.arn == role_arn for role in iam_backends[account]["aws"].roles.values())


def _forget_expired(account: str) -> None:
    now = utcnow()
    keys = registry().temporary_keys
    for access_key in [access_key for access_key, key in keys.items() if key.expires <= now]:
        del keys[access_key]
    issued = iam_backends[account]["aws"].access_keys
    sts = sts_backends[account]["aws"]
    for role in [role for role in sts.assumed_roles if role.expiration <= now]:
        sts.assumed_roles.remove(role)
        issued.pop(role.access_key_id, None)


def install() -> None:
    sts_backends.backend = Sts
    iam_models.get_account_id_from = account_of
    # moto would note at each request when its key was last used: every write would be one of IAM's too.
    iam_models.mark_account_as_visited = lambda account_id, access_key, service, region: None

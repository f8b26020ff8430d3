"""The stages, in the order in which a setup walks those of its account's role."""

from workers.assurance.stage import Stage
from workers.assurance.stages import (
    access,
    account_details,
    account_tags,
    assume_role,
    create_account,
    ebs_encryption,
    foundation_accounts,
    iam_baseline,
    instance_metadata,
    organization,
    organizational_unit,
    organizational_units,
    policy_types,
    s3_public_access,
    withdrawn_access,
)

STAGES: tuple[Stage, ...] = (
    # The management account: the tenancy's bootstrap.
    organization.STAGE,
    policy_types.STAGE,
    organizational_units.STAGE,
    foundation_accounts.STAGE,
    # Every other account.
    create_account.STAGE,
    # First of what is done in an account that is there: nothing that fails is to delay it.
    withdrawn_access.STAGE,
    organizational_unit.STAGE,
    assume_role.STAGE,
    account_details.STAGE,
    iam_baseline.STAGE,
    s3_public_access.STAGE,
    ebs_encryption.STAGE,
    instance_metadata.STAGE,
    # Last: nobody is let into an account that is not hardened.
    access.STAGE,
    # Whatever becomes of it keeps nothing else back.
    account_tags.STAGE,
)

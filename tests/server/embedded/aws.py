"""AWS clients for the tests, made as the workers make theirs: an endpoint and credentials, nothing else."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aioboto3
from aiobotocore.config import AioConfig

# One for all, because each reads and keeps the descriptions of the services.
SESSION = aioboto3.Session()
ROLE = "OrganizationAccountAccessRole"


@dataclass(frozen=True)
class Aws:
    endpoint: str
    access_key: str = "simulator"
    secret_key: str = "simulator"
    token: str | None = None
    account: str = "123456789012"

    def client(self, service: str, region: str = "us-east-1", attempts: int = 5) -> Any:
        return SESSION.client(
            service,
            region_name=region,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            aws_session_token=self.token,
            config=AioConfig(retries={"total_max_attempts": attempts}),
        )

    async def create_account(self, name: str, email: str) -> str:
        async with self.client("organizations") as organizations:
            answer = await organizations.create_account(AccountName=name, Email=email)
            status = answer["CreateAccountStatus"]
            while status["State"] == "IN_PROGRESS":
                answer = await organizations.describe_create_account_status(CreateAccountRequestId=status["Id"])
                status = answer["CreateAccountStatus"]
        assert status["State"] == "SUCCEEDED", status
        return str(status["AccountId"])

    async def assume(self, account: str, role: str = ROLE) -> "Aws":
        async with self.client("sts") as sts:
            answer = await sts.assume_role(RoleArn=f"arn:aws:iam::{account}:role/{role}", RoleSessionName="tests")
        keys = answer["Credentials"]
        return Aws(self.endpoint, keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], account)

    async def accounts(self) -> dict[str, str]:
        """E-mail addresses by account, over all pages."""
        async with self.client("organizations") as organizations:
            pages = organizations.get_paginator("list_accounts").paginate()
            return {account["Id"]: account["Email"] async for page in pages for account in page["Accounts"]}


def stay_on(endpoint: str) -> Any:
    """For `before-call.s3-control`: S3 Control puts the account before the host, where a loopback address has none."""

    def rewrite(params: dict[str, Any], **_: Any) -> None:
        params["url"] = urlsplit(params["url"])._replace(netloc=urlsplit(endpoint).netloc).geturl()

    return rewrite

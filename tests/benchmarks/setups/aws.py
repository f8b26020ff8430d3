"""The AWS simulator behind a proxy that records when calls are under way, and for which account."""

import json
import re
import time
from dataclasses import dataclass
from urllib.parse import parse_qs

from aiohttp import web

from tests.workers.proxies import AwsProxy, operation_of

ACCESS_KEY = re.compile("<AccessKeyId>(.+?)</AccessKeyId>")


@dataclass(frozen=True, slots=True)
class Call:
    """One call to AWS, by the clock of the machine. `subject` is an account's number, or the id of the request for it,
    or None where the call is about no single account.
    """

    began: float
    ended: float
    operation: str
    subject: str | None


class RecordingAws(AwsProxy):
    """`finished` holds every call that was answered."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.finished: list[Call] = []
        # Access keys and requests for accounts -> the number of the account.
        self._keys: dict[str, str] = {}
        self._requests: dict[str, str] = {}

    def of(self, aws_account_id: str) -> list[Call]:
        """The calls that were made for one account."""
        return [
            call
            for call in self.finished
            if call.subject is not None and self._requests.get(call.subject, call.subject) == aws_account_id
        ]

    async def _forward(self, request: web.Request) -> web.Response:
        began = time.time()
        answer = await super()._forward(request)
        ended = time.time()
        operation = await operation_of(request)
        self.finished.append(Call(began, ended, operation, await self._subject(operation, request, answer)))
        return answer

    async def _subject(self, operation: str, request: web.Request, answer: web.Response) -> str | None:
        key = request.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]
        if key in self._keys:
            return self._keys[key]
        assert isinstance(answer.body, bytes)
        if operation == "AssumeRole":
            account_id = parse_qs((await request.read()).decode())["RoleArn"][0].split(":")[4]
            if issued := ACCESS_KEY.search(answer.body.decode()):
                self._keys[issued[1]] = account_id
            return account_id
        if "X-Amz-Target" not in request.headers:
            return None
        asked, told = json.loads(await request.read()), json.loads(answer.body)
        status = told.get("CreateAccountStatus", {})
        if "AccountId" in status:
            self._requests[status["Id"]] = status["AccountId"]
        subject: str | None = status.get("Id") or asked.get("AccountId") or asked.get("ChildId")
        return subject

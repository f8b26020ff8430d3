"""The limit to compare the reads with: SQL written by hand for each question, behind nothing but ASGI.

`uv run python -m tests.benchmarks.reads.limit`, with DATABASE_URL of the server's role, TENANCY_ID and PORT in the
environment. It reads over the same pool under the same row-level security and answers to the byte what Freehold does,
but nobody has to authenticate, no document is parsed and no argument is checked: the operation's name picks the SQL.
"""

import json
import os
from base64 import urlsafe_b64decode
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from starlette.types import Receive, Scope, Send

from server.planner.reader import Reader
from tests.benchmarks.reads.ready import serve

MOMENT = """'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""


def time(column: str) -> str:
    return f"coalesce(to_json({column})::text, 'null')"


STAGES = f"""
    select string_agg('{{"name":' || to_json(s.name)::text || ',"status":"' || s.status || '","startedAt":'
        || {time("s.started_at")} || ',"finishedAt":' || {time("s.finished_at")} || '}}', ',' order by s.position) as j
    from stage s where s.setup_id = setup.id and s.tenancy_id = $1
"""
SETUP = f"""
    left join lateral (
        select '{{"status":"' || setup.status || '","stages":[' || coalesce(stages.j, '') || ']}}' as j
        from setup left join lateral ({STAGES}) stages on true
        where setup.account_id = a.id and setup.tenancy_id = $1
        order by setup.requested_at desc, setup.id desc limit 1
    ) setup on true
"""
CURSOR = f"""
    translate(encode(convert_to('[1, "Query.accounts", "CREATED_AT", false,"'
        || to_char(created_at at time zone 'UTC', {MOMENT}) || '","' || id::text || '"]', 'UTF8'),
        'base64'), E'+/=\\n', '-_')
"""


def page(where: str, count: str) -> str:
    """Everything but the count reads 50 accounts; one more tells whether there are more."""
    return f"""
select convert_to('{{"data":{{"accounts":{{"totalCount":' || ({count})::text || ',"pageInfo":{{"hasNextPage":'
    || coalesce(min(found) > 50, false)::text || ',"endCursor":'
    || coalesce('"' || (select {CURSOR} from (select (array_agg(created_at order by n desc))[1] as created_at,
        (array_agg(id order by n desc))[1] as id) last) || '"', 'null') || '}},"nodes":['
    || coalesce(string_agg(node, ',' order by n), '') || ']}}}}}}', 'UTF8')
from (
    select a.n, a.found, a.created_at, a.id,
        '{{"id":"acc_' || replace(a.id::text, '-', '') || '","name":' || to_json(a.name)::text || ',"awsAccountId":'
        || coalesce(to_json(a.aws_account_id)::text, 'null') || ',"status":"' || a.status || '","accountType":'
        || kind.j || ',"tags":[' || coalesce(tags.j, '') || '],"setup":' || coalesce(setup.j, 'null') || '}}' as node
    from (
        select *, count(*) over () as found from (
            select id, created_at, name, aws_account_id, status, account_type_id,
                row_number() over (order by created_at desc, id desc) as n
            from account where tenancy_id = $1 {where} order by created_at desc, id desc limit 51
        ) numbered
    ) a
    left join lateral (
        select '{{"name":' || to_json(t.name)::text || ',"policies":[' || coalesce(policies.j, '') || ']}}' as j
        from account_type t left join lateral (
            select string_agg('{{"name":' || to_json(p.name)::text || '}}', ',' order by p.name) as j
            from policy_attachment pa join policy p on p.id = pa.policy_id and p.tenancy_id = $1
            where pa.account_type_id = t.id and pa.tenancy_id = $1
        ) policies on true
        where t.tenancy_id = $1 and t.id = a.account_type_id limit 1
    ) kind on true
    left join lateral (
        select string_agg('{{"key":' || to_json(t.key)::text || ',"value":' || to_json(t.value)::text || '}}', ','
            order by t.key) as j
        from tag t where t.account_id = a.id and t.tenancy_id = $1
    ) tags on true
    {SETUP}
    where a.n <= 50
) node
"""


ALL = "select coalesce(sum(account_count), 0) from account_type where tenancy_id = $1"
MATCHES = """
    status = any($2::text[]) and exists (
        select from tag where tenancy_id = $1 and account_id = account.id and key = $3 and value = $4)
"""
SQL = {
    "Q1": page("", ALL),
    "Q2": f"""
select convert_to('{{"data":{{"account":' || coalesce((
    select '{{"id":"acc_' || replace(a.id::text, '-', '') || '","name":' || to_json(a.name)::text || ',"status":"'
        || a.status || '","setup":' || coalesce(setup.j, 'null') || '}}'
    from account a {SETUP} where a.tenancy_id = $1 and a.id = $2), 'null') || '}}}}', 'UTF8')
""",
    "Q3": """
select convert_to('{"data":{"tenancy":{"name":' || to_json(name)::text || '}}}', 'UTF8') from tenancy where id = $1
""",
    "Q4": page("and (created_at, id) < ($2::timestamptz, $3::uuid)", ALL),
    "Q5": page(f"and {MATCHES}", f"select count(*) from account where tenancy_id = $1 and {MATCHES}"),
}


def after(variables: dict[str, Any]) -> list[object]:
    cursor = variables["after"]
    *_, created_at, id_ = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    return [datetime.fromisoformat(created_at), UUID(id_)]


VALUES: dict[str, Callable[[dict[str, Any]], list[object]]] = {
    "Q1": lambda _: [],
    "Q2": lambda variables: [UUID(variables["id"].removeprefix("acc_"))],
    "Q3": lambda _: [],
    "Q4": after,
    "Q5": lambda _: [["ACTIVE"], "team", "team 3"],
}
HEADERS = [(b"content-type", b"application/json; charset=utf-8"), (b"cache-control", b"no-store")]

reader = Reader(os.environ.get("DATABASE_URL", ""))
tenancy = UUID(os.environ.get("TENANCY_ID", UUID(int=0).hex))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    body = b""
    more = True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    request = json.loads(body)
    name = request["operationName"]
    answer = await reader.fetch(tenancy, SQL[name], [tenancy, *VALUES[name](request.get("variables") or {})])
    assert answer is not None
    headers = [*HEADERS, (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    serve(app)

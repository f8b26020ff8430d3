"""What is read: every field, fragments, directives, nulls; one statement for each root field."""

from server.graphql.ids import encode
from tests.server.planner.world import CONTROLS, HOSTILE, MEMBERS, Side

EVERYTHING = """
query Everything($first: Int = 10) {
  accounts(first: $first) {
    totalCount
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    nodes { name }
    edges {
      cursor
      node {
        __typename id name alias email awsAccountId role origin status
        accountType { id name foundation organizationalUnitId }
        tags { key value }
        setup { ...Setup account { name } }
        setups(first: 1) { totalCount pageInfo { hasNextPage } edges { cursor node { id kind } } nodes { id } }
        createdAt createdBy { kind name id } updatedAt
      }
    }
  }
}
fragment Setup on AccountSetup {
  id kind status requestedAt startedAt finishedAt
  stages {
    name title position status attempts startedAt finishedAt nextAttemptAt
    controls { benchmark version id }
    error { code message class awsRequestId }
  }
}
"""


async def test_a_page_of_accounts_with_everything(ours: Side) -> None:
    accounts = (await ours.ask(EVERYTHING, first=100))["accounts"]
    assert accounts["totalCount"] == len(accounts["edges"]) == len(ours.accounts)
    assert [edge["node"]["name"] for edge in accounts["edges"]] == [node["name"] for node in accounts["nodes"]]
    by_name = {edge["node"]["name"]: edge["node"] for edge in accounts["edges"]}
    assert by_name.keys() == ours.accounts.keys()
    print(by_name["member 00"])
    print(accounts["edges"][0])

"""What is asked, as a frontend would: the same five questions of every server."""

PAGE = """
  totalCount pageInfo { hasNextPage endCursor }
  nodes {
    id name awsAccountId status
    accountType { name policies { name } }
    tags { key value }
    setup { status stages { name status startedAt finishedAt } }
  }
"""
PAGE_SIZE = 50
QUERIES = {
    "Q1": f"query Q1 {{ accounts(first: {PAGE_SIZE}) {{ {PAGE} }} }}",
    "Q2": """query Q2($id: ID!) {
  account(by: {id: $id}) { id name status setup { status stages { name status startedAt finishedAt } } }
}""",
    "Q3": "query Q3 { tenancy { name } }",
    "Q4": f"query Q4($after: String) {{ accounts(first: {PAGE_SIZE}, after: $after) {{ {PAGE} }} }}",
    "Q5": f"""query Q5 {{
  accounts(first: {PAGE_SIZE}, filter: {{status: [ACTIVE], tag: [{{key: "team", value: "team 3"}}]}}) {{ {PAGE} }}
}}""",
}
TITLES = {
    "Q1": "a page of 50 accounts with all that belongs to them",
    "Q2": "one account with its stages",
    "Q3": "{ tenancy { name } }",
    "Q4": "a page near the end of the same list (190 of 200)",
    "Q5": "the page filtered by status and tag",
}

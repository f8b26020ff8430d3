import "./production.mjs";
import Fastify from "fastify";
import mercurius from "mercurius";
import pg from "pg";

const { DATABASE_URL, TENANCY_ID, PORT } = process.env;
const TENANCY = pg.escapeLiteral(TENANCY_ID);
const LARGEST_PAGE = 100;

const schema = /* GraphQL */ `
  type Query {
    "Newest first."
    accounts(first: Int! = 50, after: String, offset: Int! = 0, filter: AccountFilter): AccountConnection!
    account(id: ID!): Account
    tenancy: Tenancy!
  }

  input AccountFilter {
    status: AccountStatus
    tag: TagFilter
  }

  input TagFilter {
    key: String!
    value: String!
  }

  type AccountConnection {
    totalCount: Int!
    pageInfo: PageInfo!
    nodes: [Account!]!
  }

  type PageInfo {
    hasNextPage: Boolean!
    endCursor: String
  }

  type Account {
    id: ID!
    name: String!
    awsAccountId: String
    status: AccountStatus!
    accountType: AccountType!
    tags: [Tag!]!
    "The latest."
    setup: Setup
  }

  enum AccountStatus {
    INITIALIZING
    ONBOARDING
    DISCOVERED
    ACTIVE
    ERROR
    CLOSING
    CLOSED
    SUSPENDED
  }

  type AccountType {
    name: String!
    policies: [Policy!]!
  }

  type Policy {
    name: String!
  }

  type Tag {
    key: String!
    value: String!
  }

  type Setup {
    status: SetupStatus!
    stages: [Stage!]!
  }

  enum SetupStatus {
    PENDING
    RUNNING
    WAITING
    COMPLETED
    FAILED
  }

  type Stage {
    name: String!
    status: StageStatus!
    startedAt: String
    finishedAt: String
  }

  enum StageStatus {
    PENDING
    RUNNING
    WAITING
    COMPLETED
    FAILED
    SKIPPED
  }

  type Tenancy {
    name: String!
  }
`;

// Moments stay text: a Date would lose the microseconds, and take time to make and to print.
pg.types.setTypeParser(pg.types.builtins.TIMESTAMPTZ, (text) => `${text.slice(0, 10)}T${text.slice(11, -3)}Z`);
const pool = new pg.Pool({ connectionString: DATABASE_URL, max: 10, options: "-c TimeZone=UTC" });

const statements = new Map();

/** The rows; each connection prepares a text once. */
async function select(text, values = []) {
  let name = statements.get(text);
  if (name === undefined) {
    name = `statement_${statements.size}`;
    statements.set(text, name);
  }
  return (await pool.query({ name, text, values })).rows;
}

const ACCOUNT = `id, name, aws_account_id AS "awsAccountId", status, account_type_id AS "accountTypeId"`;

const cursorOf = ({ createdAt, id }) => Buffer.from(JSON.stringify([createdAt, id])).toString("base64url");
const placeOf = (cursor) => JSON.parse(Buffer.from(cursor, "base64url").toString());

class Accounts {
  #page;

  constructor({ first, after, offset, filter }) {
    this.first = Math.min(Math.max(first, 1), LARGEST_PAGE);
    this.after = after;
    this.offset = offset;
    this.values = [];
    this.conditions = [`tenancy_id = ${TENANCY}`];
    if (filter?.status) {
      this.conditions.push(`status = ${this.#parameter(filter.status)}`);
    }
    if (filter?.tag) {
      const { key, value } = filter.tag;
      this.conditions.push(
        `EXISTS (SELECT FROM tag WHERE tag.tenancy_id = ${TENANCY} AND tag.account_id = account.id` +
          ` AND tag.key = ${this.#parameter(key)} AND tag.value = ${this.#parameter(value)})`,
      );
    }
  }

  #parameter(value) {
    return `$${this.values.push(value)}`;
  }

  async count() {
    const [{ count }] = await select(
      `SELECT count(*)::int AS count FROM account WHERE ${this.conditions.join(" AND ")}`,
      this.values,
    );
    return count;
  }

  /** Read once, whichever fields ask for it. */
  page() {
    return (this.#page ??= this.#readPage());
  }

  async #readPage() {
    const values = [...this.values];
    const conditions = [...this.conditions];
    if (this.after) {
      values.push(...placeOf(this.after));
      conditions.push(`(created_at, id) < ($${values.length - 1}, $${values.length})`);
    }
    // The limit is in the text, as PostgreSQL would plan a parameter there for a tenth of the table.
    const rows = await select(
      `SELECT ${ACCOUNT}, created_at AS "createdAt" FROM account WHERE ${conditions.join(" AND ")}` +
        ` ORDER BY created_at DESC, id DESC LIMIT ${this.first + 1}${this.offset > 0 ? ` OFFSET ${this.offset}` : ""}`,
      values,
    );
    const nodes = rows.slice(0, this.first);
    return {
      nodes,
      pageInfo: {
        hasNextPage: rows.length > nodes.length,
        endCursor: nodes.length > 0 ? cursorOf(nodes.at(-1)) : null,
      },
    };
  }
}

const resolvers = {
  Query: {
    accounts: (_, args) => new Accounts(args),
    account: async (_, { id }) =>
      (await select(`SELECT ${ACCOUNT} FROM account WHERE tenancy_id = ${TENANCY} AND id = $1`, [id]))[0],
    tenancy: async () => (await select(`SELECT name FROM tenancy WHERE id = ${TENANCY}`))[0],
  },
  AccountConnection: {
    totalCount: (accounts) => accounts.count(),
    pageInfo: async (accounts) => (await accounts.page()).pageInfo,
    nodes: async (accounts) => (await accounts.page()).nodes,
  },
};

/** A loader of the one row that `text` finds for each object. */
function one(text, keyOf) {
  return async (queries) => {
    const keys = queries.map(({ obj }) => keyOf(obj));
    const found = new Map((await select(text, [[...new Set(keys)]])).map((row) => [row.key, row]));
    return keys.map((key) => found.get(key));
  };
}

/** A loader of the rows that `text` finds for each object. */
function many(text, keyOf) {
  return async (queries) => {
    const keys = queries.map(({ obj }) => keyOf(obj));
    const found = Map.groupBy(await select(text, [[...new Set(keys)]]), (row) => row.owner);
    return keys.map((key) => found.get(key) ?? []);
  };
}

// What they are asked for belongs to an account of the tenancy, so they need not look at it again.
const loaders = {
  Account: {
    accountType: one(
      "SELECT id AS key, id, name FROM account_type WHERE id = ANY($1::uuid[])",
      (account) => account.accountTypeId,
    ),
    tags: many(
      "SELECT account_id AS owner, key, value FROM tag WHERE account_id = ANY($1::uuid[]) ORDER BY account_id, key",
      (account) => account.id,
    ),
    setup: one(
      "SELECT wanted.id AS key, latest.id, latest.status FROM unnest($1::uuid[]) AS wanted (id), LATERAL (" +
        "SELECT id, status FROM setup WHERE account_id = wanted.id ORDER BY requested_at DESC, id DESC LIMIT 1" +
        ") latest",
      (account) => account.id,
    ),
  },
  AccountType: {
    policies: many(
      "SELECT account_type_id AS owner, policy.name FROM policy_attachment JOIN policy ON policy.id = policy_id" +
        " WHERE account_type_id = ANY($1::uuid[]) ORDER BY policy.name",
      (type) => type.id,
    ),
  },
  Setup: {
    stages: many(
      'SELECT setup_id AS owner, name, status, started_at AS "startedAt", finished_at AS "finishedAt"' +
        " FROM stage WHERE setup_id = ANY($1::uuid[]) ORDER BY setup_id, position",
      (setup) => setup.id,
    ),
  },
};

const app = Fastify({ logger: false, forceCloseConnections: true });
app.addHook("onClose", () => pool.end());
app.register(mercurius, {
  schema,
  resolvers,
  loaders,
  path: "/graphql",
  graphiql: false,
  jit: 1,
  // What the database holds is of the schema's types already.
  compilerOptions: { disableLeafSerialization: true },
});
process.once("SIGTERM", () => app.close());
await app.listen({ host: "127.0.0.1", port: Number(PORT) });
console.log("ready");

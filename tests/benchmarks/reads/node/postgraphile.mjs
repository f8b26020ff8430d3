import "./production.mjs";
import { createServer } from "node:http";
import pg from "pg";
import { postgraphile } from "postgraphile";
import { makePgService } from "postgraphile/adaptors/pg";
import { grafserv } from "postgraphile/grafserv/node";
import { PostGraphileAmberPreset } from "postgraphile/presets/amber";
import { jsonPgSmartTags } from "postgraphile/utils";
import { PostGraphileConnectionFilterPreset } from "postgraphile-plugin-connection-filter";

const { DATABASE_URL, PORT } = process.env;

const pool = new pg.Pool({ connectionString: DATABASE_URL, max: 10 });

// The foreign keys of the database have the tenancy in them too. These say the same without it: the ids alone are
// unique and lead the indexes, and PostgreSQL reads the policies of a page's types nine times as fast for it.
const list = (from, to, name) =>
  `(${from}) references ${to} (id)` +
  `|@foreignFieldName ${name}|@foreignSimpleFieldName ${name}|@behavior -connection +list`;

const SmartTags = jsonPgSmartTags({
  version: 1,
  config: {
    class: {
      account: { tags: { foreignKey: "(account_type_id) references account_type (id)|@fieldName accountType" } },
      account_type: {
        tags: {
          ref:
            "policies via:(id)->policy_attachment(account_type_id);(policy_id)->policy(id)" +
            ' behavior:"-connection +list"',
        },
      },
      policy_attachment: {
        tags: {
          foreignKey: ["(account_type_id) references account_type (id)", "(policy_id) references policy (id)"],
        },
      },
      setup: { tags: { foreignKey: list("account_id", "account", "setups") } },
      stage: { tags: { foreignKey: list("setup_id", "setup", "stages") } },
      tag: { tags: { foreignKey: list("account_id", "account", "tags") } },
    },
  },
});

const preset = {
  extends: [PostGraphileAmberPreset, PostGraphileConnectionFilterPreset],
  plugins: [SmartTags],
  // It would hide the orders and filters on columns that an index has only behind the tenancy.
  disablePlugins: ["PgIndexBehaviorsPlugin"],
  pgServices: [makePgService({ pool, schemas: ["public"] })],
  schema: { connectionFilterRelations: true },
  grafast: { explain: false },
  grafserv: { graphqlPath: "/graphql", graphiql: false, websockets: false, watch: false },
};

// As long as Fastify's, so that connections kept between two measurements outlive the pause.
const server = createServer({ keepAliveTimeout: 72_000 });
const instance = postgraphile(preset);
await instance.createServ(grafserv).addTo(server);
await instance.getSchema();
server.listen(Number(PORT), "127.0.0.1", () => console.log("ready"));

process.once("SIGTERM", async () => {
  server.close();
  server.closeAllConnections();
  await instance.release();
  await pool.end();
});

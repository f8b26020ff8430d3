// graphql-ws on `ws`, as its documentation sets it up. Events come by POST and are kept in memory: no database is asked.
process.env.NODE_ENV = "production";
import { createServer } from "node:http";
import { buildSchema } from "graphql";
import { useServer } from "graphql-ws/use/ws";
import { WebSocketServer } from "ws";

const schema = buildSchema(/* GraphQL */ `
  type Query {
    nothing: Boolean
  }

  type Subscription {
    "The last event, and every one that comes."
    accountSetup(accountId: ID!, after: Int): SetupEvent!
  }

  type SetupEvent {
    sequence: Int!
    at: String!
    account: Account!
    setup: Setup!
    stage: Stage
  }

  type Account {
    id: ID!
    name: String!
    status: String!
  }

  type Setup {
    id: ID!
    kind: String!
    status: String!
    stages: [Stage!]!
  }

  type Stage {
    name: String!
    status: String!
    startedAt: String
  }
`);

const subscribers = new Set();
let last;

function subscribe() {
  const waiting = [last];
  let wake;
  const subscriber = (event) => {
    waiting.push(event);
    wake?.();
  };
  subscribers.add(subscriber);
  return {
    [Symbol.asyncIterator]() {
      return this;
    },
    async next() {
      while (waiting.length === 0) {
        await new Promise((resolve) => (wake = resolve));
      }
      return { done: false, value: { accountSetup: waiting.shift() } };
    },
    async return() {
      subscribers.delete(subscriber);
      return { done: true, value: undefined };
    },
  };
}

schema.getSubscriptionType().getFields().accountSetup.subscribe = subscribe;

const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    if (request.url === "/publish") {
      last = JSON.parse(Buffer.concat(chunks));
      for (const subscriber of subscribers) subscriber(last);
    } else {
      globalThis.gc();
    }
    response.end();
  });
});
useServer({ schema }, new WebSocketServer({ server, path: "/graphql" }));
server.listen(Number(process.env.PORT), "127.0.0.1", 4096, () => console.log("ready"));

// Imported first: what is imported after it looks at this when it loads.
process.env.NODE_ENV = "production";
process.env.GRAPHILE_ENV = "production";

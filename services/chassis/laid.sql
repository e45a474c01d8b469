-- The last script of a database, in containers what its health check looks for: everything before it has run.
-- An empty schema, so that it is no table among the service's own.
CREATE SCHEMA IF NOT EXISTS laid;

-- The last init script of a database. The health check in compose.yaml reads this mark, so a database whose first
-- start stopped half-way does not count as healthy. It is an empty schema, so that it adds no table to the service's.
CREATE SCHEMA IF NOT EXISTS init_complete;

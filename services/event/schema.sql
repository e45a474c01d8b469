-- Event: what happens where, when and for how much (reference §3). Safe to run again. Seats are Inventory's.

CREATE TABLE IF NOT EXISTS venues (
    venue_id    uuid PRIMARY KEY,
    name        varchar(255) NOT NULL,
    address     text NOT NULL,
    total_halls integer NOT NULL DEFAULT 1 CHECK (total_halls > 0),
    created_at  timestamptz NOT NULL DEFAULT app_now()
);

CREATE TABLE IF NOT EXISTS events (
    event_id      uuid PRIMARY KEY,
    name          varchar(255) NOT NULL,
    venue_id      uuid NOT NULL REFERENCES venues,
    hall_id       varchar(20) NOT NULL, -- the gate compares it (§7)
    event_date    timestamptz NOT NULL,
    total_seats   integer NOT NULL CHECK (total_seats >= 0),
    pricing_tiers jsonb NOT NULL        -- category → credits, two decimals
);
CREATE INDEX IF NOT EXISTS events_by_date ON events (event_date, event_id);

-- events_db: venues and events (section 3 of the v4 reference). Seats are in seats_db. The script is safe to run again.

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
    hall_id       varchar(20) NOT NULL, -- the gate compares it with the scanner's hall
    event_date    timestamptz NOT NULL,
    total_seats   integer NOT NULL CHECK (total_seats >= 0),
    pricing_tiers jsonb NOT NULL        -- price in credits (two decimals) per category
);
CREATE INDEX IF NOT EXISTS events_by_date ON events (event_date, event_id);

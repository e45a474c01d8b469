-- Every service's database has this clock, the effects and the counted events. The script is safe to run again.

-- One clock decides every expiry in this database. Only a test moves it, as superuser.
-- The service's own role can only read the offset.
CREATE TABLE IF NOT EXISTS clock_offset (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    shift    interval NOT NULL DEFAULT '0'
);
GRANT SELECT, INSERT ON clock_offset TO CURRENT_USER;
INSERT INTO clock_offset DEFAULT VALUES ON CONFLICT DO NOTHING;
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON clock_offset FROM CURRENT_USER;

-- plpgsql caches its plan. A LANGUAGE sql function would be planned again in every statement that reads the clock.
CREATE OR REPLACE FUNCTION app_now() RETURNS timestamptz LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN statement_timestamp() + (SELECT shift FROM clock_offset); END $$;

-- The result of each effect by its key, written in the same transaction as the effect.
--   DONE     The effect happened. `answer` is the answer to the caller.
--   REFUSED  The effect was refused permanently. `answer` holds the error code.
--   VOIDED   The effect was undone, or its undo came first. An effect with this key can never succeed.
CREATE TABLE IF NOT EXISTS effects (
    key        text PRIMARY KEY,
    outcome    text NOT NULL CHECK (outcome IN ('DONE', 'REFUSED', 'VOIDED')),
    answer     jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT app_now()
);

-- The times of counted events by the key of what they count against (`chassis/limits.py`). Ended rows are deleted.
CREATE TABLE IF NOT EXISTS counted_events (
    key     text PRIMARY KEY,
    times   timestamptz[] NOT NULL,
    ends_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS counted_events_by_end ON counted_events (ends_at);

-- The function of a trigger that makes a table append-only, also for the role that owns it.
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$;

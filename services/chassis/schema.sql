-- What every service's database has: a clock and the record of effects. Safe to run again.

-- One clock decides every expiry in this database. Only a test moves it, as superuser;
-- the service's own role may read the offset and no more (in a container that role is the superuser).
CREATE TABLE IF NOT EXISTS clock_offset (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    shift    interval NOT NULL DEFAULT '0'
);
GRANT SELECT, INSERT ON clock_offset TO CURRENT_USER;
INSERT INTO clock_offset DEFAULT VALUES ON CONFLICT DO NOTHING;
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON clock_offset FROM CURRENT_USER;

-- plpgsql keeps its plan: as LANGUAGE sql it would be planned anew in every statement that looks at the clock.
CREATE OR REPLACE FUNCTION app_now() RETURNS timestamptz LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN statement_timestamp() + (SELECT shift FROM clock_offset); END $$;

-- The answer that each keyed effect gave, written in the effect's own transaction.
--   DONE     it happened; `answer` is what the caller was told
--   REFUSED  it was refused for good; `answer` holds the code
--   VOIDED   it was undone, or undone before it arrived: under this key it can never succeed
CREATE TABLE IF NOT EXISTS effects (
    key        text PRIMARY KEY,
    outcome    text NOT NULL CHECK (outcome IN ('DONE', 'REFUSED', 'VOIDED')),
    answer     jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT app_now()
);

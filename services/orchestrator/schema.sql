-- sagas_db: the journal, who is alive, idempotency records, the outbox. Safe to run again.

DO $$ BEGIN
    CREATE TYPE saga_status AS ENUM ('RUNNING', 'DONE', 'REFUSED', 'UNDONE', 'PARKED');
EXCEPTION WHEN duplicate_object THEN NULL; END $$;

CREATE TABLE IF NOT EXISTS sagas (
    saga_id        uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    flow           text NOT NULL,
    subject        uuid NOT NULL,               -- an order or a transfer
    round          int NOT NULL DEFAULT 0,      -- the dispute's number; 0 elsewhere
    attempt        int NOT NULL,
    caller         uuid,                        -- the only user who may join; null: the route has checked
    given          jsonb NOT NULL,
    status         saga_status NOT NULL DEFAULT 'RUNNING',
    result         jsonb,                       -- DONE: the answer; else {code, message, details}
    owner          uuid,                        -- the incarnation that works on it
    epoch          int NOT NULL DEFAULT 1,      -- +1 at each adoption; the end write is fenced by it
    adoptions      int NOT NULL DEFAULT 0,
    deadline       timestamptz NOT NULL,        -- past it anybody may adopt
    park_after     timestamptz NOT NULL,        -- still failing then: PARKED
    correlation_id uuid,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at       timestamptz,
    UNIQUE (flow, subject, round, attempt)
);

-- At most one live saga an order or transfer, whatever its flow. A parked one still counts.
CREATE UNIQUE INDEX IF NOT EXISTS one_live_saga_per_subject ON sagas (subject) WHERE status IN ('RUNNING', 'PARKED');
CREATE INDEX IF NOT EXISTS running_sagas ON sagas (deadline) WHERE status = 'RUNNING';

-- One row a process. Leases go by the real clock: moving app_now() must not kill anybody.
CREATE TABLE IF NOT EXISTS heartbeats (
    incarnation uuid PRIMARY KEY,
    lease_until timestamptz NOT NULL
);

-- Idempotency-Key of the public API: which subject the key got, and its final answer.
CREATE TABLE IF NOT EXISTS idempotency_keys (
    caller     uuid NOT NULL,
    operation  text NOT NULL,
    key        text NOT NULL,
    body_hash  text NOT NULL,
    subject    uuid NOT NULL,
    owner      uuid,                            -- null: nobody works on it, the next asker goes on
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    answer     jsonb,                           -- {answer} or {refusal: {code, message, details}}
    created_at timestamptz NOT NULL DEFAULT app_now(),
    PRIMARY KEY (caller, operation, key)
);
-- The name of the claim that stands: only that request may end it. By itself, for tables of before claims had names.
ALTER TABLE idempotency_keys ADD COLUMN IF NOT EXISTS claim uuid;
CREATE INDEX IF NOT EXISTS idempotency_keys_by_age ON idempotency_keys (created_at);

-- What people are to be told; written with the saga's end, sent at least once.
CREATE TABLE IF NOT EXISTS outbox (
    notice_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    saga_id        uuid NOT NULL REFERENCES sagas,
    user_id        uuid NOT NULL,
    message        text NOT NULL,
    fields         jsonb NOT NULL,
    tries          int NOT NULL DEFAULT 0,
    next_try_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at        timestamptz,
    given_up_at    timestamptz,
    correlation_id uuid,
    UNIQUE (saga_id, user_id, message)
);
CREATE INDEX IF NOT EXISTS outbox_due ON outbox (next_try_at) WHERE sent_at IS NULL AND given_up_at IS NULL;

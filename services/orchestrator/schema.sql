-- sagas_db: the journal, the heartbeats, the idempotency keys and the outbox. The script is safe to run again.

DO $$ BEGIN
    CREATE TYPE saga_status AS ENUM ('RUNNING', 'DONE', 'REFUSED', 'UNDONE', 'PARKED');
EXCEPTION WHEN duplicate_object THEN NULL; END $$;

CREATE TABLE IF NOT EXISTS sagas (
    saga_id        uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    flow           text NOT NULL,
    subject        uuid NOT NULL,               -- an order or a transfer
    dispute_number int NOT NULL DEFAULT 0,      -- the number of the dispute, 0 for other flows
    attempt        int NOT NULL,
    caller         uuid,                        -- the only user who can join the saga, or null if the route checks it
    given          jsonb NOT NULL,
    status         saga_status NOT NULL DEFAULT 'RUNNING',
    result         jsonb,                       -- the answer if DONE, else {code, message, details}
    owner          uuid,                        -- the process that runs it (heartbeats.instance_id)
    epoch          int NOT NULL DEFAULT 1,      -- fencing token of the end write, +1 at each adoption
    adoptions      int NOT NULL DEFAULT 0,
    deadline       timestamptz NOT NULL,        -- after it, any process can adopt the saga
    park_after     timestamptz NOT NULL,        -- if it still fails then, it is PARKED
    correlation_id uuid,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at       timestamptz,
    UNIQUE (flow, subject, dispute_number, attempt)
);

-- At most one live saga per order or transfer, across all flows. A parked saga also counts.
CREATE UNIQUE INDEX IF NOT EXISTS one_live_saga_per_subject ON sagas (subject) WHERE status IN ('RUNNING', 'PARKED');
CREATE INDEX IF NOT EXISTS running_sagas ON sagas (deadline) WHERE status = 'RUNNING';

-- One row per process. Leases use the real clock, so that moving app_now() does not expire a live process.
CREATE TABLE IF NOT EXISTS heartbeats (
    instance_id uuid PRIMARY KEY,
    lease_until timestamptz NOT NULL
);
-- Start of the time without a gap between renewals. A gap means that the process, or the database, was not available.
ALTER TABLE heartbeats ADD COLUMN IF NOT EXISTS unbroken_since timestamptz NOT NULL DEFAULT clock_timestamp();

-- The subject and the final answer of each Idempotency-Key of the public API. The result of a saga stays in `sagas`.
CREATE TABLE IF NOT EXISTS idempotency_keys (
    caller     uuid NOT NULL,
    operation  text NOT NULL,
    key        text NOT NULL,
    body_hash  text NOT NULL,
    subject    uuid NOT NULL,
    owner      uuid,                            -- null if no process works on it. Not read once there is an answer
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    answer     jsonb,                           -- {answer} or {refusal: {code, message, details}}
    created_at timestamptz NOT NULL DEFAULT app_now(),
    PRIMARY KEY (caller, operation, key)
);
-- The id of the current claim. Only the request with this id can end it. ALTER TABLE adds it to existing tables too.
ALTER TABLE idempotency_keys ADD COLUMN IF NOT EXISTS claim uuid;
CREATE INDEX IF NOT EXISTS idempotency_keys_by_age ON idempotency_keys (created_at);

-- Notices to users, written in the transaction that ends the saga and sent at least once.
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
-- A notice waits for the earlier ones of its user.
CREATE INDEX IF NOT EXISTS outbox_by_user ON outbox (user_id, notice_id) WHERE sent_at IS NULL AND given_up_at IS NULL;

-- Every command of a staff member or an operator. A row is written with its effect and never changed.
CREATE TABLE IF NOT EXISTS audit (
    audit_id       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    staff_id       uuid,                        -- the account of a staff member, or null
    operator       text,                        -- the name that an operator gave to the command line, or null
    action         text NOT NULL,               -- such as refund or lock
    subject        uuid NOT NULL,               -- an order, a transfer or a user
    saga_id        uuid,                        -- the saga that the command began or changed, or null
    user_seq       bigint UNIQUE,               -- the number of a command that User recorded, or null
    note           text,
    correlation_id uuid,
    CHECK (num_nonnulls(staff_id, operator) = 1)
);
CREATE INDEX IF NOT EXISTS audit_by_time ON audit (at, audit_id);

CREATE OR REPLACE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A saga of a staff member names them in `given`. The trigger writes the record in the transaction of the saga's begin.
CREATE OR REPLACE FUNCTION audit_begin() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO audit (staff_id, action, subject, saga_id, correlation_id)
    VALUES ((NEW.given->>'staff_id')::uuid, NEW.flow, NEW.subject, NEW.saga_id, NEW.correlation_id);
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER audit_begin AFTER INSERT ON sagas
    FOR EACH ROW WHEN (NEW.given ? 'staff_id') EXECUTE FUNCTION audit_begin();

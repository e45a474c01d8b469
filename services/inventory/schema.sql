-- seats_db: seats, holds and entries at the gate (section 3 of the v4 reference). The script is safe to run again.
-- It runs after services/chassis/schema.sql, which creates app_now() and the table of effects.

DO $$ BEGIN
    CREATE TYPE seat_status AS ENUM ('AVAILABLE', 'HELD', 'SOLD', 'CHECKED_IN');
EXCEPTION WHEN duplicate_object THEN NULL; END $$;

DO $$ BEGIN
    CREATE TYPE scan_result AS ENUM (
        'SUCCESS', 'DUPLICATE', 'WRONG_HALL', 'UNPAID', 'NOT_FOUND', 'EXPIRED',
        'NOT_OWNER', 'QR_INVALID'  -- added to the reference: the previous owner's QR, and an unreadable QR
    );
EXCEPTION WHEN duplicate_object THEN NULL; END $$;
-- Added to the reference: another day, and another event in this hall. ALTER TYPE adds them to existing types too.
ALTER TYPE scan_result ADD VALUE IF NOT EXISTS 'EVENT_OVER';
ALTER TYPE scan_result ADD VALUE IF NOT EXISTS 'TOO_EARLY';
ALTER TYPE scan_result ADD VALUE IF NOT EXISTS 'WRONG_EVENT';

CREATE TABLE IF NOT EXISTS seats (
    seat_id         uuid PRIMARY KEY,
    event_id        uuid NOT NULL,
    row_number      varchar(4) NOT NULL CHECK (row_number ~ '^[A-Za-z0-9]+$'),
    seat_number     int NOT NULL,
    category        varchar(10) NOT NULL CHECK (category ~ '^[A-Za-z0-9_-]+$'),
    status          seat_status NOT NULL DEFAULT 'AVAILABLE',
    held_by_user_id uuid,
    held_until      timestamptz,
    hold_id         uuid,  -- fencing token: a release or confirm with another hold_id changes nothing
    order_id        uuid,  -- the current sale
    owner_user_id   uuid,
    price_paid      numeric(10,2) CHECK (price_paid > 0),
    qr_code_hash    text,
    created_at      timestamptz NOT NULL DEFAULT app_now(),
    -- This column uses the real clock, because a seat map's version contains it and must not go backwards.
    updated_at      timestamptz NOT NULL DEFAULT statement_timestamp(),
    UNIQUE (event_id, row_number, seat_number),
    CONSTRAINT seat_state_is_whole CHECK (CASE
        WHEN status = 'AVAILABLE' THEN
            num_nonnulls(held_by_user_id, held_until, hold_id, order_id, owner_user_id, price_paid, qr_code_hash) = 0
        WHEN status = 'HELD' THEN
            num_nulls(held_by_user_id, held_until, hold_id) = 0
            AND num_nonnulls(order_id, owner_user_id, price_paid, qr_code_hash) = 0
        ELSE num_nulls(hold_id, order_id, owner_user_id, price_paid, qr_code_hash) = 0
            AND num_nonnulls(held_by_user_id, held_until) = 0
    END)
) WITH (fillfactor = 70);  -- a seat is updated several times, so its page keeps room for the next row version

-- Only the sweeper uses this index. It is an expression index, so that `status = 'HELD'` does not select it.
-- With stale statistics, the planner could use a plain index on HELD rows to find one seat by its key. During a sale
-- it would then scan every HELD row.
CREATE INDEX IF NOT EXISTS idx_seats_due ON seats ((CASE WHEN status = 'HELD' THEN held_until END))
    WHERE (CASE WHEN status = 'HELD' THEN held_until END) IS NOT NULL;
DROP INDEX IF EXISTS idx_seats_held_until; -- replaced by idx_seats_due
CREATE INDEX IF NOT EXISTS idx_seats_owner ON seats (owner_user_id, updated_at) WHERE owner_user_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_seats_version ON seats (event_id, updated_at);

-- The user whose hold of this seat lapsed last, and the end of that hold. The same user waits before the next hold.
-- One user is enough, because the next lapse comes a whole hold later, and no wait is longer. ALTER TABLE adds the
-- columns to existing tables too.
ALTER TABLE seats ADD COLUMN IF NOT EXISTS lapsed_user_id uuid;
ALTER TABLE seats ADD COLUMN IF NOT EXISTS lapsed_at timestamptz;

CREATE INDEX IF NOT EXISTS idx_seats_holder ON seats (held_by_user_id) WHERE held_by_user_id IS NOT NULL;

-- The limits of an event that differ from the settings of Inventory. NULL is the setting, and 0 is no limit.
CREATE TABLE IF NOT EXISTS event_limits (
    event_id             uuid PRIMARY KEY,
    max_holds_per_user   int CHECK (max_holds_per_user >= 0),
    max_tickets_per_user int CHECK (max_tickets_per_user >= 0)
);

-- The limit that a user has reached in an event, or NULL. A seat that the user gets in this transaction is not counted.
-- The advisory lock lets concurrent calls of one user wait for each other, and never those of two users.
-- VOLATILE matters: the count then has a snapshot of its own, taken after the lock. The snapshot of the calling
-- statement is older, so 64 parallel calls of one user would all count the same seats.
-- A hold that lapsed up to 5 s ago still counts as a ticket, because its sale may not have committed yet.
CREATE OR REPLACE FUNCTION reached_limit(
    for_user_id uuid, in_event_id uuid, but_seat_id uuid, default_holds int, default_tickets int
) RETURNS text LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    counted record;
    max_holds int;
    max_tickets int;
BEGIN
    SELECT max_holds_per_user, max_tickets_per_user INTO max_holds, max_tickets
    FROM event_limits WHERE event_id = in_event_id;
    max_holds := coalesce(max_holds, default_holds);
    max_tickets := coalesce(max_tickets, default_tickets);
    IF max_holds = 0 AND max_tickets = 0 THEN
        RETURN NULL;  -- without a limit, the count could be long, and it decides nothing
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(for_user_id::text, 0));
    SELECT held.live AS holds, held.total + owned.total AS tickets INTO counted
    FROM (SELECT count(*) FILTER (WHERE held_until > app_now()) AS live, count(*) AS total FROM seats
          WHERE held_by_user_id = for_user_id AND event_id = in_event_id AND seat_id <> but_seat_id
            AND held_until > app_now() - interval '5 seconds') AS held
    CROSS JOIN (SELECT count(*) AS total FROM seats
                WHERE owner_user_id = for_user_id AND event_id = in_event_id) AS owned;
    RETURN CASE
        WHEN max_tickets > 0 AND counted.tickets >= max_tickets THEN 'TICKET_LIMIT_REACHED'
        WHEN max_holds > 0 AND counted.holds >= max_holds THEN 'HOLD_LIMIT_REACHED'
    END;
END
$$;

CREATE TABLE IF NOT EXISTS entry_logs (
    log_id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    seat_id             uuid,  -- null if the QR was unreadable. No foreign key, because a counterfeit can name any seat
    scan_id             text NOT NULL,
    scanned_at          timestamptz NOT NULL DEFAULT app_now(),
    scanned_by_staff_id uuid NOT NULL,
    result              scan_result NOT NULL,
    hall_id_presented   varchar(20),
    hall_id_expected    varchar(20),
    hall_id_staff       varchar(20)
);
ALTER TABLE entry_logs ADD COLUMN IF NOT EXISTS event_id_staff uuid;  -- null if the gate is set to a hall only
-- At most one SUCCESS per seat, so only one of several gates admits a guest, even if the code has a bug.
CREATE UNIQUE INDEX IF NOT EXISTS idx_one_success_per_seat ON entry_logs (seat_id) WHERE result = 'SUCCESS';
-- A retry of a scan by the same staff member returns the first answer.
CREATE UNIQUE INDEX IF NOT EXISTS idx_one_entry_per_scan ON entry_logs (scanned_by_staff_id, scan_id);

-- Hold messages that were consumed, written in the transaction of the release.
CREATE TABLE IF NOT EXISTS release_messages (
    message_id  text PRIMARY KEY,
    outcome     text NOT NULL CHECK (outcome IN ('RELEASED', 'STALE')),
    consumed_at timestamptz NOT NULL DEFAULT app_now()
);

-- users_db: accounts, the ledger of credits and revoked sessions. The script is safe to run again.

CREATE TABLE IF NOT EXISTS users (
    user_id        uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email          varchar(255) NOT NULL UNIQUE CHECK (email = lower(email)),
    phone          varchar(20) NOT NULL,
    password_hash  text NOT NULL,
    role           text NOT NULL DEFAULT 'customer' CHECK (role IN ('customer', 'staff')),
    credit_balance numeric(10, 2) NOT NULL DEFAULT 0 CHECK (credit_balance >= 0),  -- = the sum of credit_entries
    frozen_credits numeric(10, 2) NOT NULL DEFAULT 0 CHECK (frozen_credits >= 0),  -- = the sum of credit_holds
    two_fa_secret  text,  -- from section 3 of the v4 reference, unused because codes are sent by SMS
    is_flagged     boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT app_now()
);
-- The time of the first code of its phone that the account entered (D66).
ALTER TABLE users ADD COLUMN IF NOT EXISTS phone_verified_at timestamptz;
CREATE INDEX IF NOT EXISTS users_by_verified_phone ON users (phone) WHERE phone_verified_at IS NOT NULL;
ALTER TABLE users ADD COLUMN IF NOT EXISTS locked_at timestamptz; -- staff have locked the account
ALTER TABLE users ADD COLUMN IF NOT EXISTS staff_area text  -- the only area of a limited account of staff
    CHECK (staff_area IN ('gate', 'support', 'finance'));

-- Every change of a spendable balance, once per key. The balance is the sum of these rows.
CREATE TABLE IF NOT EXISTS credit_entries (
    key        text PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES users,
    amount     numeric(10, 2) NOT NULL,  -- the change of the balance, negative for a charge
    kind       text NOT NULL CHECK (kind IN
                   ('OPENING', 'TOPUP', 'DEDUCT', 'REFUND', 'FREEZE', 'UNFREEZE', 'TRANSFER', 'REVERSAL')),
    created_at timestamptz NOT NULL DEFAULT app_now()
);
-- A database of an older version has this constraint without REVERSAL.
ALTER TABLE credit_entries DROP CONSTRAINT IF EXISTS credit_entries_kind_check;
ALTER TABLE credit_entries ADD CONSTRAINT credit_entries_kind_check CHECK (kind IN
    ('OPENING', 'TOPUP', 'DEDUCT', 'REFUND', 'FREEZE', 'UNFREEZE', 'TRANSFER', 'REVERSAL'));
CREATE INDEX IF NOT EXISTS credit_entries_by_user ON credit_entries (user_id, created_at);

-- Frozen credits, which their owner cannot spend. The key is the key of the freeze.
CREATE TABLE IF NOT EXISTS credit_holds (
    key        text PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES users,
    amount     numeric(10, 2) NOT NULL CHECK (amount > 0),
    created_at timestamptz NOT NULL DEFAULT app_now()
);
CREATE INDEX IF NOT EXISTS credit_holds_by_user ON credit_holds (user_id);

-- The credited payments. Each event and each PaymentIntent is credited once, even if two events report one payment.
CREATE TABLE IF NOT EXISTS stripe_events (
    event_id          text PRIMARY KEY,
    payment_intent_id text NOT NULL UNIQUE,
    user_id           uuid NOT NULL,
    amount            numeric(10, 2) NOT NULL CHECK (amount > 0),
    created_at        timestamptz NOT NULL DEFAULT app_now()
);

-- The newest event of Stripe about each refund, dispute or cancellation of a payment. A row can precede the payment
-- itself, because events arrive in any order. The order is (reported_at, rank).
CREATE TABLE IF NOT EXISTS payment_claims (
    claim_id          text PRIMARY KEY,  -- Stripe's id: a charge (its refunds), a failed refund, a dispute or an intent
    payment_intent_id text NOT NULL,
    kind              text NOT NULL CHECK (kind IN ('REFUND', 'FAILED_REFUND', 'DISPUTE', 'CANCELLATION')),
    state             text NOT NULL CHECK (state IN ('OPEN', 'LOST', 'DROPPED')),
    amount            numeric(10, 2) NOT NULL CHECK (amount >= 0),
    event_id          text NOT NULL,
    reported_at       bigint NOT NULL,  -- Unix seconds by Stripe's clock
    rank              smallint NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT app_now()
);
CREATE INDEX IF NOT EXISTS payment_claims_by_payment ON payment_claims (payment_intent_id);

-- The credits that were taken back or frozen because of these claims, and the rest that the user no longer had.
CREATE TABLE IF NOT EXISTS payment_reversals (
    payment_intent_id text PRIMARY KEY,
    user_id           uuid NOT NULL REFERENCES users,
    taken             numeric(10, 2) NOT NULL CHECK (taken >= 0),   -- = minus the sum of its REVERSAL entries
    frozen            numeric(10, 2) NOT NULL CHECK (frozen >= 0),  -- = the hold under hold_key
    owed              numeric(10, 2) NOT NULL CHECK (owed >= 0),    -- collected from the next credits of the user
    hold_key          text,
    movements         integer NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT app_now()
);
CREATE INDEX IF NOT EXISTS payment_reversals_owed ON payment_reversals (user_id) WHERE owed > 0;

DROP TABLE IF EXISTS otp_sends; -- replaced by counted_events of the chassis

-- Sessions that were revoked before their tokens expired. Tokens use the real clock, so these times do too.
-- An insert locks the table first. The order of seq is then the order of commit, so a reader's cursor skips no row.
CREATE TABLE IF NOT EXISTS revoked_logins (
    sid        text PRIMARY KEY,
    seq        bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    user_id    uuid NOT NULL,
    revoked_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS revoked_logins_by_age ON revoked_logins (revoked_at);

-- The logins that have not ended. Only the newest refresh token of a login is valid, and its predecessor for a minute
-- (D71). Tokens use the real clock, so these times do too.
CREATE TABLE IF NOT EXISTS logins (
    sid         text PRIMARY KEY,
    user_id     uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    refresh_id  text NOT NULL,  -- the jti of the valid refresh token
    previous_id text,           -- of the one before
    rotated_at  timestamptz,
    device      text NOT NULL,  -- the client's own words
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS logins_by_user ON logins (user_id);
CREATE INDEX IF NOT EXISTS logins_by_end ON logins (expires_at);

-- The newest code that may reset the password of a user.
CREATE TABLE IF NOT EXISTS password_resets (
    user_id          uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    verification_sid text,
    attempts_left    smallint NOT NULL CHECK (attempts_left >= 0),
    sent_at          timestamptz[] NOT NULL  -- of the codes of the last day
);

-- Every command of staff to an account, written in the transaction of its effect. The orchestrator copies it to `audit`.
CREATE TABLE IF NOT EXISTS staff_commands (
    seq            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    staff_id       uuid NOT NULL,
    action         text NOT NULL,
    subject        uuid NOT NULL,  -- a user
    correlation_id uuid
);
CREATE OR REPLACE TRIGGER staff_commands_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON staff_commands
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

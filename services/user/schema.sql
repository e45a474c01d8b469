-- users_db: accounts, the ledger of credits, ended logins. Safe to run again.

CREATE TABLE IF NOT EXISTS users (
    user_id        uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email          varchar(255) NOT NULL UNIQUE CHECK (email = lower(email)),
    phone          varchar(20) NOT NULL,
    password_hash  text NOT NULL,
    role           text NOT NULL DEFAULT 'customer' CHECK (role IN ('customer', 'staff')),
    credit_balance numeric(10, 2) NOT NULL DEFAULT 0 CHECK (credit_balance >= 0),  -- = the sum of credit_entries
    frozen_credits numeric(10, 2) NOT NULL DEFAULT 0 CHECK (frozen_credits >= 0),  -- = the sum of credit_holds
    two_fa_secret  text,  -- of the reference's §3; unused, codes go by SMS
    is_flagged     boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT app_now()
);

-- Every change of a spendable balance, once per key: the balance is the running total.
CREATE TABLE IF NOT EXISTS credit_entries (
    key        text PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES users,
    amount     numeric(10, 2) NOT NULL,  -- signed: what it did to the balance
    kind       text NOT NULL CHECK (kind IN
                   ('OPENING', 'TOPUP', 'DEDUCT', 'REFUND', 'FREEZE', 'UNFREEZE', 'TRANSFER')),
    created_at timestamptz NOT NULL DEFAULT app_now()
);
CREATE INDEX IF NOT EXISTS credit_entries_by_user ON credit_entries (user_id, created_at);

-- Credits that are nobody's to spend until what they wait for has ended; the key is the freeze's.
CREATE TABLE IF NOT EXISTS credit_holds (
    key        text PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES users,
    amount     numeric(10, 2) NOT NULL CHECK (amount > 0),
    created_at timestamptz NOT NULL DEFAULT app_now()
);
CREATE INDEX IF NOT EXISTS credit_holds_by_user ON credit_holds (user_id);

-- The payments that were credited: an event once, and a PaymentIntent once, whichever event tells of it.
CREATE TABLE IF NOT EXISTS stripe_events (
    event_id          text PRIMARY KEY,
    payment_intent_id text NOT NULL UNIQUE,
    user_id           uuid NOT NULL,
    amount            numeric(10, 2) NOT NULL CHECK (amount > 0),
    created_at        timestamptz NOT NULL DEFAULT app_now()
);

-- Codes sent to a phone within the last minutes: the newest few, to count against the limit (D19).
CREATE TABLE IF NOT EXISTS otp_sends (
    phone   varchar(20) PRIMARY KEY,
    sent_at timestamptz[] NOT NULL
);

-- Logins that were ended before their tokens ran out. Tokens run on the real clock, so these times do too.
-- Whoever inserts locks the table first: seq is then the order of commit, and a reader's cursor skips nothing.
CREATE TABLE IF NOT EXISTS revoked_logins (
    sid        text PRIMARY KEY,
    seq        bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    user_id    uuid NOT NULL,
    revoked_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS revoked_logins_by_age ON revoked_logins (revoked_at);

-- orders_db: orders, and transfers between users (section 3 of the v4 reference). The script is safe to run again.
-- Statuses change only by compare-and-set. The keys of the effects are in the table `effects` of the chassis.

CREATE TABLE IF NOT EXISTS orders (
    order_id         uuid PRIMARY KEY,          -- set by the orchestrator, equal to the hold_id of the seat
    user_id          uuid NOT NULL,
    seat_id          uuid NOT NULL,
    event_id         uuid NOT NULL,
    status           text NOT NULL DEFAULT 'PENDING' CHECK (status IN ('PENDING', 'CONFIRMED', 'FAILED', 'REFUNDED')),
    credits_charged  numeric(10, 2) NOT NULL CHECK (credits_charged > 0), -- the price, fixed when the seat was reserved
    charge_key       text,                      -- the key of the charge, needed to refund it
    otp_required     boolean NOT NULL,
    verification_sid text,                      -- SMU's id of the latest code, cleared after verification
    otp_verified_at  timestamptz,
    otp_attempts     smallint NOT NULL DEFAULT 0 CHECK (otp_attempts BETWEEN 0 AND 3), -- wrong codes and open checks
    otp_failures     smallint NOT NULL DEFAULT 0 CHECK (otp_failures BETWEEN 0 AND 3), -- wrong codes
    expires_at       timestamptz NOT NULL,      -- the held_until that Inventory returned
    created_at       timestamptz NOT NULL DEFAULT app_now(),
    confirmed_at     timestamptz
);
-- For the gate's lookup by seat and CONFIRMED, and for every list with the newest first.
CREATE INDEX IF NOT EXISTS orders_by_seat ON orders (seat_id, status, created_at DESC, order_id DESC);
CREATE INDEX IF NOT EXISTS orders_by_user ON orders (user_id, created_at DESC, order_id DESC);
CREATE INDEX IF NOT EXISTS orders_newest ON orders (created_at DESC, order_id DESC);
-- Only the sweeper uses this index. It is an expression index, so that `status = 'PENDING'` does not select it.
-- With stale statistics, the planner could use a plain index on PENDING rows to find one order by its key. During a
-- sale it would then scan every PENDING row.
CREATE INDEX IF NOT EXISTS orders_due ON orders ((CASE WHEN status = 'PENDING' THEN expires_at END))
    WHERE (CASE WHEN status = 'PENDING' THEN expires_at END) IS NOT NULL;
DROP INDEX IF EXISTS orders_to_expire; -- replaced by orders_due

CREATE TABLE IF NOT EXISTS transfers (
    transfer_id             uuid PRIMARY KEY,
    seat_id                 uuid NOT NULL,
    order_id                uuid NOT NULL,      -- the order that the transfer belongs to
    seller_user_id          uuid NOT NULL,
    buyer_user_id           uuid NOT NULL CHECK (buyer_user_id <> seller_user_id),
    initiated_by            text NOT NULL CHECK (initiated_by IN ('SELLER', 'BUYER')),
    status                  text NOT NULL DEFAULT 'INITIATED'
        CHECK (status IN ('INITIATED', 'PENDING_OTP', 'COMPLETED', 'FAILED', 'DISPUTED', 'REVERSED')),
    seller_otp_verified     boolean NOT NULL DEFAULT false,
    buyer_otp_verified      boolean NOT NULL DEFAULT false,
    seller_verification_sid text,
    buyer_verification_sid  text,
    otp_attempts            smallint NOT NULL DEFAULT 0 CHECK (otp_attempts BETWEEN 0 AND 3), -- codes that the seller enters
    otp_failures            smallint NOT NULL DEFAULT 0 CHECK (otp_failures BETWEEN 0 AND 3),
    credits_amount          numeric(10, 2) NOT NULL CHECK (credits_amount > 0),
    credits_frozen          numeric(10, 2) NOT NULL DEFAULT 0
        CHECK (credits_frozen BETWEEN 0 AND credits_amount), -- by the latest dispute, kept after the decision
    freeze_key              text,               -- the key of that freeze
    dispute_reason          text,
    dispute_count           smallint NOT NULL DEFAULT 0, -- the number in the keys of dispute, reverse and dismiss
    created_at              timestamptz NOT NULL DEFAULT app_now(),
    expires_at              timestamptz NOT NULL,
    completed_at            timestamptz         -- of the first completion, unchanged by a dismissed dispute
);
-- The codes that the buyer enters. A database of an older version counts those of both parties in otp_attempts.
ALTER TABLE transfers ADD COLUMN IF NOT EXISTS
    buyer_otp_attempts smallint NOT NULL DEFAULT 0 CHECK (buyer_otp_attempts BETWEEN 0 AND 3);
ALTER TABLE transfers ADD COLUMN IF NOT EXISTS
    buyer_otp_failures smallint NOT NULL DEFAULT 0 CHECK (buyer_otp_failures BETWEEN 0 AND 3);
-- The guard of sections 3 and 6 of the reference: at most one transfer of a seat is open. DISPUTED counts as open, so
-- that a disputed seat cannot be sold on.
CREATE UNIQUE INDEX IF NOT EXISTS one_open_transfer_a_seat ON transfers (seat_id)
    WHERE status IN ('INITIATED', 'PENDING_OTP', 'DISPUTED');
CREATE INDEX IF NOT EXISTS transfers_by_seat ON transfers (seat_id, created_at DESC, transfer_id DESC);
CREATE INDEX IF NOT EXISTS transfers_by_order ON transfers (order_id, completed_at);
CREATE INDEX IF NOT EXISTS transfers_by_seller ON transfers (seller_user_id, created_at DESC, transfer_id DESC);
CREATE INDEX IF NOT EXISTS transfers_by_buyer ON transfers (buyer_user_id, created_at DESC, transfer_id DESC);
CREATE INDEX IF NOT EXISTS transfers_newest ON transfers (created_at DESC, transfer_id DESC);
CREATE INDEX IF NOT EXISTS transfers_to_expire ON transfers (expires_at) WHERE status IN ('INITIATED', 'PENDING_OTP');
CREATE INDEX IF NOT EXISTS transfers_to_confirm ON transfers (created_at DESC, transfer_id DESC)
    WHERE status = 'PENDING_OTP' AND seller_otp_verified AND buyer_otp_verified;

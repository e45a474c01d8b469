-- Order: the ledger of orders and of transfers between users (reference §3). Safe to run again.
-- Statuses move by compare-and-set only; the keys of the effects are in the chassis's table `effects`.

CREATE TABLE IF NOT EXISTS orders (
    order_id         uuid PRIMARY KEY,          -- chosen by the orchestrator; it is the seat's hold_id too
    user_id          uuid NOT NULL,
    seat_id          uuid NOT NULL,
    event_id         uuid NOT NULL,
    status           text NOT NULL DEFAULT 'PENDING' CHECK (status IN ('PENDING', 'CONFIRMED', 'FAILED', 'REFUNDED')),
    credits_charged  numeric(10, 2) NOT NULL CHECK (credits_charged > 0), -- the price, fixed when the seat was reserved
    charge_key       text,                      -- the key of the deduct that paid: a refund goes under it
    otp_required     boolean NOT NULL,
    verification_sid text,                      -- of the code that was sent last; cleared once verified
    otp_verified_at  timestamptz,
    otp_attempts     smallint NOT NULL DEFAULT 0 CHECK (otp_attempts BETWEEN 0 AND 3), -- wrong ones and those in flight
    otp_failures     smallint NOT NULL DEFAULT 0 CHECK (otp_failures BETWEEN 0 AND 3), -- wrong ones
    expires_at       timestamptz NOT NULL,      -- the held_until that Inventory returned
    created_at       timestamptz NOT NULL DEFAULT app_now(),
    confirmed_at     timestamptz
);
-- the gate's look-up (seat, CONFIRMED) and every list: newest first
CREATE INDEX IF NOT EXISTS orders_by_seat ON orders (seat_id, status, created_at DESC, order_id DESC);
CREATE INDEX IF NOT EXISTS orders_by_user ON orders (user_id, created_at DESC, order_id DESC);
CREATE INDEX IF NOT EXISTS orders_newest ON orders (created_at DESC, order_id DESC);
-- The sweeper's. An expression, which "status = 'PENDING'" does not imply: on statistics of a quiet hour the planner would
-- take an index of the PENDING for small, and walk all of it for one order by its key, in the midst of a sale.
CREATE INDEX IF NOT EXISTS orders_due ON orders ((CASE WHEN status = 'PENDING' THEN expires_at END))
    WHERE (CASE WHEN status = 'PENDING' THEN expires_at END) IS NOT NULL;
DROP INDEX IF EXISTS orders_to_expire; -- what stood in its place

CREATE TABLE IF NOT EXISTS transfers (
    transfer_id             uuid PRIMARY KEY,
    seat_id                 uuid NOT NULL,
    order_id                uuid NOT NULL,      -- the sale that the transfer belongs to
    seller_user_id          uuid NOT NULL,
    buyer_user_id           uuid NOT NULL CHECK (buyer_user_id <> seller_user_id),
    initiated_by            text NOT NULL CHECK (initiated_by IN ('SELLER', 'BUYER')),
    status                  text NOT NULL DEFAULT 'INITIATED'
        CHECK (status IN ('INITIATED', 'PENDING_OTP', 'COMPLETED', 'FAILED', 'DISPUTED', 'REVERSED')),
    seller_otp_verified     boolean NOT NULL DEFAULT false,
    buyer_otp_verified      boolean NOT NULL DEFAULT false,
    seller_verification_sid text,
    buyer_verification_sid  text,
    otp_attempts            smallint NOT NULL DEFAULT 0 CHECK (otp_attempts BETWEEN 0 AND 3), -- of both parties
    otp_failures            smallint NOT NULL DEFAULT 0 CHECK (otp_failures BETWEEN 0 AND 3),
    credits_amount          numeric(10, 2) NOT NULL CHECK (credits_amount > 0),
    credits_frozen          numeric(10, 2) NOT NULL DEFAULT 0
        CHECK (credits_frozen BETWEEN 0 AND credits_amount), -- by the latest dispute; kept when it has been decided
    freeze_key              text,               -- the key of that freeze
    dispute_reason          text,
    dispute_count           smallint NOT NULL DEFAULT 0, -- the n in the keys of dispute, reverse and dismiss
    created_at              timestamptz NOT NULL DEFAULT app_now(),
    expires_at              timestamptz NOT NULL,
    completed_at            timestamptz         -- of the first completion; a dismissed dispute does not move it
);
-- THE guard of §3 and §6: of any number of transfers of one seat, one is open. DISPUTED counts, so that a disputed
-- seat is not sold on.
CREATE UNIQUE INDEX IF NOT EXISTS one_open_transfer_a_seat ON transfers (seat_id)
    WHERE status IN ('INITIATED', 'PENDING_OTP', 'DISPUTED');
CREATE INDEX IF NOT EXISTS transfers_by_seat ON transfers (seat_id, created_at DESC, transfer_id DESC);
CREATE INDEX IF NOT EXISTS transfers_by_order ON transfers (order_id, completed_at);
CREATE INDEX IF NOT EXISTS transfers_by_seller ON transfers (seller_user_id, created_at DESC, transfer_id DESC);
CREATE INDEX IF NOT EXISTS transfers_by_buyer ON transfers (buyer_user_id, created_at DESC, transfer_id DESC);
CREATE INDEX IF NOT EXISTS transfers_newest ON transfers (created_at DESC, transfer_id DESC);
CREATE INDEX IF NOT EXISTS transfers_to_expire ON transfers (expires_at) WHERE status IN ('INITIATED', 'PENDING_OTP');
CREATE INDEX IF NOT EXISTS transfers_to_swap ON transfers (created_at DESC, transfer_id DESC)
    WHERE status = 'PENDING_OTP' AND seller_otp_verified AND buyer_otp_verified;

"""Order's sweeper. It ends expired orders and transfers even if no message and no request arrives (D3, D16).

It skips locked rows, because another transaction is deciding them. So several processes can sweep in parallel.
"""

from __future__ import annotations

import logging

from services.chassis.db import Database

logger = logging.getLogger(__name__)

BATCH = 200

_ORDERS = """
    WITH due AS (
        SELECT order_id FROM orders
        WHERE CASE WHEN status = 'PENDING' THEN expires_at END <= app_now() - make_interval(secs => %(grace)s)
        ORDER BY CASE WHEN status = 'PENDING' THEN expires_at END LIMIT %(batch)s FOR UPDATE SKIP LOCKED
    )
    UPDATE orders SET status = 'FAILED' FROM due
    WHERE orders.order_id = due.order_id AND orders.status = 'PENDING'
    RETURNING orders.order_id AS id"""
# Only transfer_confirm ends a transfer that both parties have verified, even after its expiry.
_TRANSFERS = """
    WITH due AS (
        SELECT transfer_id FROM transfers
        WHERE status IN ('INITIATED', 'PENDING_OTP') AND NOT (seller_otp_verified AND buyer_otp_verified)
          AND expires_at <= app_now() - make_interval(secs => %(grace)s)
        ORDER BY expires_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
    )
    UPDATE transfers SET status = 'FAILED' FROM due
    WHERE transfers.transfer_id = due.transfer_id AND transfers.status IN ('INITIATED', 'PENDING_OTP')
      AND NOT (transfers.seller_otp_verified AND transfers.buyer_otp_verified)
    RETURNING transfers.transfer_id AS id"""


class Sweeper:
    """Fails PENDING orders and open transfers that expired at least `grace_seconds` ago.

    The grace period lets a payment that began in time reach its pivot, where the seat's hold decides.
    """

    def __init__(self, db: Database, *, grace_seconds: float) -> None:
        self._db = db
        self._grace = grace_seconds

    def sweep(self) -> bool:
        """Fail one batch of each, and return whether there may be more. Raises Unknown without a database."""
        orders = self._fail_due(_ORDERS, "Order")
        transfers = self._fail_due(_TRANSFERS, "Transfer")
        return max(orders, transfers) == BATCH

    def _fail_due(self, sql: str, noun: str) -> int:
        with self._db.transaction() as tx:
            rows = tx.all(sql, grace=self._grace, batch=BATCH)
        for row in rows:
            logger.warning("%s %s status: FAILED (expired)", noun, row["id"])
        return len(rows)

"""Order's sweeper: the truth about expiry where no message and no user comes back (D3, D16).

Rows that somebody else has locked are skipped: they are being decided. Several processes may sweep side by side.
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
# A transfer that both parties have verified is the swap's to end, however late.
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
    """Fails PENDING orders and open transfers whose time has been up for `grace_seconds`.

    The grace lets a payment that came in time reach its pivot, where the seat's hold decides.
    """

    def __init__(self, db: Database, *, grace_seconds: float) -> None:
        self._db = db
        self._grace = grace_seconds

    def sweep(self) -> bool:
        """One batch of each. True when there may be more. Raises Unknown when the database does not answer."""
        orders = self._failed(_ORDERS, "Order")
        transfers = self._failed(_TRANSFERS, "Transfer")
        return max(orders, transfers) == BATCH

    def _failed(self, sql: str, what: str) -> int:
        with self._db.transaction() as tx:
            rows = tx.all(sql, grace=self._grace, batch=BATCH)
        for row in rows:
            logger.warning("%s %s status: FAILED (expired)", what, row["id"])
        return len(rows)

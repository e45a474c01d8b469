"""A stand-in for the part of Stripe that a top-up uses: PaymentIntents, their events, signed webhooks."""

"""A fake of the part of Stripe that a top-up uses: PaymentIntents, their events and signed webhooks."""

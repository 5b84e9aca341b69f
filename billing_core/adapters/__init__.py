"""The outside world: usage stream, snapshot projection, Stripe."""

"""Money, quantity, period, clock, ids and invariant: values without a place to live."""

"""A double of Stripe: the part of its API that the house speaks, with state, as a process of its own."""

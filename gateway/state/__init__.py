"""The gateway's link to Redis and what it remembers of it."""

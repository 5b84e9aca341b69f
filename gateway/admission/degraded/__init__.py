"""Degraded mode: what is answered while Redis is away, from units that were leased before."""

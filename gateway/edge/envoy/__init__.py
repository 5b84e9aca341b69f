"""Envoy's services: external authorization and rate limit, version 3, and the health of both."""

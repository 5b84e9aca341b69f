"""Envoy tells in its access log what responses were, and by that their holds are settled."""

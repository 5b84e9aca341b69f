"""Proxies ask whether a request may pass, and tell what its response has cost: each in its own dialect."""

"""One request: bytes to decision to bytes, and the usage event that it leaves behind."""

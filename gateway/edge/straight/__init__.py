"""The straight way: what nearly all ask, from bytes to Redis and back without a coroutine."""

"""What is sent to Redis for a decision, put together for speed."""

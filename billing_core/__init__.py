"""One usage event: from the stream to recognized revenue."""

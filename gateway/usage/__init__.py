"""Usage on its way into the stream: event bodies and client-sent events."""

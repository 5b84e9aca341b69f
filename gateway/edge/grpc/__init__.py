"""gRPC on a port of its own: an HTTP/2 responder for unary calls, held in our own hands."""

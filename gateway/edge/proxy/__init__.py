"""The reverse proxy of our own: routes from a file, each request decided, passed on and settled."""

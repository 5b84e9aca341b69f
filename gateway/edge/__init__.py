"""Where bytes come in and go out: servers, routes, wire types and replies."""

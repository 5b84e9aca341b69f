"""One module per topic of the HTTP API, each with the commands that speak about it."""

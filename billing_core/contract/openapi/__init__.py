"""What can be asked of a plane, as an OpenAPI document: made of its types and its table of routes."""

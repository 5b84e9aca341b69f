"""The handlers: one module per thing that can be asked."""

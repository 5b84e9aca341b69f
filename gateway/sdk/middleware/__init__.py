"""Middlewares: an application behind one is asked only by those who may. One module per interface."""

"""Handlers that change a model before it is trained, in place."""

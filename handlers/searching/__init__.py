"""Handlers that look for good settings before a run."""

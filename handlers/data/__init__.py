"""Handlers of the data of a run."""

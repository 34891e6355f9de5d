"""A save: what training waits for, what is written beside it, and how it ended."""

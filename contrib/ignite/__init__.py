"""Ignite's names over leyden: a script runs with `ignite` written as `leyden.contrib.ignite` in its imports."""

"""Ignite's names over leyden: a script runs with `ignite` written as `leyden.contrib.ignite` in its imports.

The modules lie where Ignite has them: engine, metrics, distributed, utils, and handlers with its own modules.
"""

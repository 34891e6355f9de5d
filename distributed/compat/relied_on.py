"""How the files of this room say what they rely on."""

from collections.abc import Mapping

Reasons = dict[str, Mapping[str, str]]
"""By owner (a class or module of torch's), its private names, and for each who needs it for what."""

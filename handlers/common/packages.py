"""Optional packages: a missing one is reported at once, and each is imported only when it is needed."""

from __future__ import annotations

from importlib.util import find_spec


def require_package(package: str, extra: str, who: str) -> None:
    """Raises ModuleNotFoundError, with the command that helps, if the package is not installed. Imports nothing."""
    if find_spec(package) is None:
        raise ModuleNotFoundError(
            f'{who} needs the package {package}, which is not installed: pip install "leyden[{extra}]"', name=package
        )

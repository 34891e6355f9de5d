"""What `print(engine)` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leyden.engine.events.dispatch import Table
from leyden.engine.events.signatures import describe_handler

if TYPE_CHECKING:
    from leyden.engine.engine import Engine


def _lines(table: Table, indent: str) -> list[str]:
    lines = []
    for entry in table.entries:
        rule = f"  [{entry.filter}]" if entry.filter is not None else ""
        lines.append(f"{indent}    {entry.order:+d}  {describe_handler(entry.function)}{rule}")
    return [f"{indent}{table.event}", *lines] if lines else []


def describe(engine: Engine[Any, Any]) -> str:
    """The engine's attached handlers, what they do before a run in the order of doing it, then each event that has
    handlers, with their order and filters as they will run.
    """
    title = f"Engine of {describe_handler(engine.process)}, {engine.state}"
    attached = ", ".join(engine.handlers) or "nothing"
    lines = [title, f"attached: {attached}"]
    for what, steps in (("setup", engine.setup.describe()), ("data", engine.data_setup.describe())):
        lines += [what, *(f"      {step}" for step in steps)] if steps else []
    for table in engine.tables():
        lines += _lines(table, "  ")
    for update in engine.updates.values():
        lines.append(f"update {update.name!r}: {update.describe()}")
        for table in update.tables.values():
            lines += _lines(table, "  ")
    return "\n".join(lines)

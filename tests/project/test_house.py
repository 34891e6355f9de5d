"""How the house stands: which folders are packages, and which room may import which.

The floors from the ground up: distributed, engine, metrics, handlers, contrib. A floor imports itself and those below
it, these through the faces of their rooms.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = ("distributed", "engine", "metrics", "handlers", "contrib")
LONGEST_FILE = 350


def files_by_module() -> dict[str, Path]:
    """Every module of the package by the name under which it is imported."""
    modules = {"leyden": ROOT / "package" / "__init__.py"}
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            modules[".".join(("leyden", *parts)).removesuffix(".__init__")] = path
    return modules


MODULES = files_by_module()


def imported_modules(statement: ast.Import | ast.ImportFrom, importer: str) -> Iterator[str]:
    """Yield the modules of leyden that one import statement reads, however it is written."""
    if isinstance(statement, ast.Import):
        names = [alias.name for alias in statement.names]
    else:
        base = statement.module or ""
        if statement.level:
            package = importer.split(".")
            strip = statement.level - (MODULES[importer].name == "__init__.py")
            base = ".".join([*package[: len(package) - strip], *([base] if base else [])])
        # `from package import name` reads a module where one has that name, and the package itself otherwise.
        names = [child if (child := f"{base}.{alias.name}") in MODULES else base for alias in statement.names]
    return (name for name in names if name.split(".")[0] == "leyden")


def all_imports() -> Iterator[tuple[str, int, str]]:
    """Yield (module, line, imported module) for every import of leyden's, inside functions and for types included."""
    for module, path in MODULES.items():
        if module == "leyden":  # stands above all floors, and imports them lazily
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield from ((module, node.lineno, target) for target in imported_modules(node, module))


def import_statements(tree: ast.AST, *, in_functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the import statements that run when the module itself is imported, and with `in_functions` those that run
    when a function is called; those for types alone never run.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from import_statements(ast.Module(node.orelse, []), in_functions=in_functions)
        elif in_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from import_statements(node, in_functions=in_functions)


ENGINE_ROOMS = (
    "values",
    "state",
    "randomness",
    "stopping",
    "events",
    "data",
    "step",
    "resume",
    "setup",
    "control",
    "loop",
    "engine",
    "evaluation",
    "supervised",
)
"""The rooms of the engine, and the modules at its root, from the ground up: below `loop` what it is made of, above it
what is made with an Engine.
"""


def engine_room_of(module: str) -> int | None:
    """The place of a module in that order; None for the engine's face, and for what is not the engine's."""
    parts = module.split(".")
    return ENGINE_ROOMS.index(parts[2]) if parts[1] == "engine" and len(parts) > 2 else None


def floor_of(module: str) -> int:
    return FLOORS.index(module.split(".")[1])


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of one circle in the order in which they import each other, or an empty list."""
    done: set[str] = set()

    def walk(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        for target in sorted(graph.get(module, ())):
            if circle := walk(target, [*trail, module]):
                return circle
        done.add(module)
        return []

    return next((circle for module in sorted(graph) if (circle := walk(module, []))), [])


def test_every_folder_with_an_init_is_a_listed_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert set(project["tool"]["setuptools"]["packages"]) == folders


def test_every_folder_with_modules_has_an_init() -> None:
    assert {path.parent for path in MODULES.values() if not (path.parent / "__init__.py").exists()} == set()


def test_every_floor_is_mapped_and_ships_its_types() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    floors = {f"leyden.{floor}": floor for floor in FLOORS}
    assert project["tool"]["setuptools"]["package-dir"] == {"leyden": "package"} | floors
    assert [floor for floor in ("package", *FLOORS) if not (ROOT / floor / "py.typed").exists()] == []


def test_a_file_can_be_read_at_a_sitting() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in MODULES.values()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_nothing_at_the_root_shadows_the_installed_leyden() -> None:
    assert not (ROOT / "leyden").exists()
    assert not (ROOT / "leyden.py").exists()
    assert not (ROOT / "__init__.py").exists()


def test_a_room_imports_itself_and_the_floors_below() -> None:
    upwards = [
        f"{MODULES[module].relative_to(ROOT)}:{line} imports {target}"
        for module, line, target in all_imports()
        if target == "leyden" or floor_of(target) > floor_of(module)
    ]
    assert upwards == []


def test_a_floor_is_read_through_the_faces_of_its_rooms() -> None:
    """A room's `__init__.py` says what it offers to other floors; what lies behind it may change."""
    behind = [
        f"{MODULES[module].relative_to(ROOT)}:{line} imports {target}"
        for module, line, target in all_imports()
        if floor_of(target) < floor_of(module) and MODULES[target].name != "__init__.py"
    ]
    assert behind == []


def test_no_room_of_the_engine_imports_one_above_it() -> None:
    upwards = [
        f"{MODULES[module].relative_to(ROOT)}:{statement.lineno} imports {target}"
        for module, path in MODULES.items()
        if (own := engine_room_of(module) if module != "leyden" else None) is not None
        for statement in import_statements(ast.parse(path.read_text()), in_functions=True)
        for target in imported_modules(statement, module)
        if (room := engine_room_of(target)) is None or room > own
        if floor_of(target) == FLOORS.index("engine")
    ]
    assert upwards == []


def test_what_a_module_imports_from_leyden_is_there() -> None:
    missing = [
        f"{MODULES[module].relative_to(ROOT)}:{line} imports {target}"
        for module, line, target in all_imports()
        if target not in MODULES
    ]
    assert missing == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {}
    for module, path in MODULES.items():
        statements = import_statements(ast.parse(path.read_text()), in_functions=False)
        graph[module] = {target for statement in statements for target in imported_modules(statement, module)}
    assert find_circle(graph) == []


def test_a_circle_would_be_found() -> None:
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(
    ("line", "targets"),
    [
        ("import leyden.handlers.stopping", ["leyden.handlers.stopping"]),
        ("from leyden import handlers", ["leyden.handlers"]),
        ("from leyden.engine import Engine", ["leyden.engine"]),
        ("from . import backends", ["leyden.distributed.backends"]),
        ("from .. import handlers", ["leyden.handlers"]),
        ("from ..handlers import EarlyStopping", ["leyden.handlers"]),
        ("import torch, leyden.engine", ["leyden.engine"]),
        ("from torch import nn", []),
    ],
)
def test_each_way_to_write_an_import_is_understood(line: str, targets: list[str]) -> None:
    (statement,) = ast.parse(line).body
    assert isinstance(statement, ast.Import | ast.ImportFrom)
    assert list(imported_modules(statement, "leyden.distributed")) == targets

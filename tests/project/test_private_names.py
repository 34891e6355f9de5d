"""Private parts of torch and torchdata are named in distributed/compat alone, each with its reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from leyden.distributed.compat import RELIED_ON

ROOT = Path(__file__).parents[2]
FLOORS = ("distributed", "engine", "metrics", "handlers", "contrib")
COMPAT = ROOT / "distributed" / "compat"
OF_TORCHMETRICS = ROOT / "contrib" / "torchmetrics" / "internals.py"
"""The same for that package, with a test of its own."""
OF_OTHERS = {
    "_exit": "os",
    "_fields": "named tuples",
    "_getframe": "sys",
    "_make": "named tuples",
    "_replace": "named tuples",
    "_strip_protocol": "fsspec",
    "_active_experiment_id": "mlflow",
    "_active_run_stack": "mlflow",
    "_metric_objs": "mlflow",
}
"""Names with an underscore that are documented, or another package's."""
TORCHS = {name for _, name, _ in RELIED_ON} - {"_metadata"}


def modules() -> list[Path]:
    return sorted(
        path
        for floor in FLOORS
        for path in (ROOT / floor).rglob("*.py")
        if COMPAT not in path.parents and path != OF_TORCHMETRICS
    )


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_names(trees: list[ast.Module]) -> set[str]:
    """What leyden itself calls by a private name: its functions, classes, variables and attributes."""
    names = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _of_itself(node.value):
            names.add(node.attr)
    return names


def _of_itself(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_names_of_torch(tree: ast.AST, own: set[str]) -> Iterator[tuple[int, str]]:
    """Yield (line, name) for what a module reads of torch's private parts, however it is written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            read = [alias.name for alias in node.names if alias.name.split(".")[0] in ("torch", "torchdata")]
            yield from ((node.lineno, name) for name in read if any(map(is_private, name.split("."))))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("torch", "torchdata"):
            read = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((node.lineno, name) for name in read if any(map(is_private, name.split("."))))
        elif isinstance(node, ast.Attribute) and not _of_itself(node.value):
            unknown = is_private(node.attr) and node.attr not in own and node.attr not in OF_OTHERS
            if unknown or node.attr in TORCHS:
                yield node.lineno, node.attr
        elif isinstance(node, ast.Constant) and node.value in TORCHS:
            yield node.lineno, repr(node.value)


def test_no_module_reaches_into_torchs_private_parts() -> None:
    trees = {path: ast.parse(path.read_text()) for path in modules()}
    own = own_names(list(trees.values()))
    found = [
        f"{path.relative_to(ROOT)}:{line} reads {name}: give it a function in distributed/compat, with its reason"
        for path, tree in trees.items()
        for line, name in private_names_of_torch(tree, own)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("from torch._ops import OpOverload", ["torch._ops.OpOverload"]),
        ("from torch.nn.modules.batchnorm import _BatchNorm", ["torch.nn.modules.batchnorm._BatchNorm"]),
        ("import torch._dynamo", ["torch._dynamo"]),
        ("torch._foreach_mul_(values, 2)", ["_foreach_mul_"]),
        ("module._buffers['mean']", ["_buffers"]),
        ("getattr(scheduler, '_schedulers', [])", ["'_schedulers'"]),
        ("mesh._flatten()", ["_flatten"]),
        ("self._buffers", []),
        ("other._place", []),
        ("os._exit(1)", []),
        ("from torch.utils.data import DataLoader", []),
    ],
)
def test_each_way_to_reach_in_is_seen(line: str, names: list[str]) -> None:
    assert [name for _, name in private_names_of_torch(ast.parse(line), {"_place"})] == names

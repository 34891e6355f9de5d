"""The repeated blocks of a model: the layers of a transformer, the bottlenecks of a residual network."""

from __future__ import annotations

from collections import Counter

from torch import nn

CONTAINERS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)


def repeated_blocks(model: nn.Module, prefix: str = "") -> dict[str, nn.Module]:
    """The outermost modules, by name, that stand at least twice, with one class, in a ModuleList, Sequential or
    ModuleDict.

    Only modules made of modules count: a Linear is no block. Nor is a container that has repeated blocks in it.
    """
    repeated: set[str] = set()
    if isinstance(model, CONTAINERS):
        kinds = {name: type(child) for name, child in model.named_children() if _may_be_block(child)}
        counts = Counter(kinds.values())
        repeated = {name for name, kind in kinds.items() if counts[kind] > 1}
    blocks: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        if name in repeated:
            blocks[prefix + name] = child
        else:
            blocks.update(repeated_blocks(child, f"{prefix}{name}."))
    return blocks


def _may_be_block(module: nn.Module) -> bool:
    if not any(True for _ in module.children()):
        return False
    return not (isinstance(module, CONTAINERS) and repeated_blocks(module))

"""Counts of what a step does: calls of Python and C functions, copies to the host."""

import gc
import sys

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class Calls:
    """Counts calls within `with`; `mark(epoch)`, called once a batch, notes how far the count has come."""

    def __init__(self):
        self.count = 0
        self.marks = []

    def mark(self, epoch):
        self.marks.append((epoch, self.count))

    def a_batch(self):
        """The mean from one batch of the last epoch to the next."""
        counts = [count for epoch, count in self.marks if epoch == self.marks[-1][0]]
        return (counts[-1] - counts[0]) / (len(counts) - 1)

    def __enter__(self):
        def note(frame, event, argument):
            self.count += event in ("call", "c_call")

        gc.collect()
        gc.disable()  # whatever a collection calls is not the step's
        sys.setprofile(note)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)
        gc.enable()


COPIES = {
    getattr(torch.Tensor, name)
    for name in ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__")
}


class HostCopies(TorchFunctionMode):
    """Notes each call that asks a tensor for its value, each of which waits for the device."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in COPIES:
            self.seen.append(function.__name__)
        return function(*args, **(kwargs or {}))


class ScalarCopies(TorchDispatchMode):
    """The same below Python: an operation that copies a scalar to the host, whoever calls it."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            self.seen.append("_local_scalar_dense")
        return function(*args, **(kwargs or {}))

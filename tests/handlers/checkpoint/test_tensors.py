"""Every kind of tensor comes back from disk to the bit."""

import pytest
import torch

from leyden.handlers.checkpoint import CheckpointDamagedError, TensorInfo
from leyden.handlers.checkpoint.files.reader import read_tensors, write_tensors

KINDS = {
    "no dimension": torch.tensor(3.0),
    "no dimension, whole": torch.tensor(7),
    "a truth value": torch.tensor(True),
    "truth values": torch.tensor([True, False]),
    "bfloat16": torch.randn(3).bfloat16(),
    "float16": torch.randn(3).half(),
    "float64": torch.randn(3, dtype=torch.float64),
    "float8": torch.randn(3).to(torch.float8_e4m3fn),
    "int64": torch.arange(3) - 2**60,
    "uint8": torch.arange(3, dtype=torch.uint8),
    "complex64": torch.randn(3, dtype=torch.complex64),
    "complex128": torch.randn(2, 2, dtype=torch.complex128),
    "complex, no dimension": torch.tensor(1 + 2j),
    "conjugated": torch.randn(3, dtype=torch.complex64).conj(),
    "empty": torch.empty(0),
    "empty in one dimension": torch.empty(3, 0, 2, dtype=torch.int64),
    "transposed": torch.arange(12.0).reshape(3, 4).t(),
    "channels last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "expanded": torch.randn(1, 3).expand(4, 3),
    "a parameter": torch.nn.Parameter(torch.randn(2, 2)),
    "infinite": torch.tensor([float("inf"), float("nan"), -0.0]),
}


def back(folder, tensors):
    """What comes back by the index; without one, as torch's reader finds it, it is the same."""
    index = write_tensors(folder, tensors)
    infos = [TensorInfo(name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()]
    loaded = read_tensors(folder, infos, index=index)
    found = read_tensors(folder, infos)
    assert all(torch.equal(bits(found[name]), bits(loaded[name])) for name in tensors)
    return loaded


def bits(tensor):
    plain = tensor.detach().resolve_conj().contiguous()
    return plain.reshape(-1).view(torch.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_tensor(kind, tmp_path) -> None:
    loaded = back(tmp_path, {kind: KINDS[kind]})[kind]
    assert (loaded.dtype, loaded.shape) == (KINDS[kind].dtype, KINDS[kind].shape)
    assert torch.equal(bits(loaded), bits(KINDS[kind]))


def test_all_kinds_in_one_folder(tmp_path) -> None:
    loaded = back(tmp_path, KINDS)
    assert all(torch.equal(bits(loaded[kind]), bits(tensor)) for kind, tensor in KINDS.items())


def test_tensors_over_the_same_memory(tmp_path) -> None:
    memory = torch.arange(12.0)
    views = {
        "all": memory,
        "matrix": memory.view(3, 4),
        "turned": memory.view(3, 4).t(),
        "a": memory[:8],
        "b": memory[4:],
    }
    loaded = back(tmp_path, views)
    assert all(torch.equal(loaded[name], view) for name, view in views.items())


def test_saving_leaves_no_warning(tmp_path, recwarn) -> None:
    back(tmp_path, {"a": torch.zeros(2)})
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("wanted", [TensorInfo("b", (2,), torch.float32), TensorInfo("a", (3,), torch.float32)])
def test_files_that_lack_what_is_wanted(tmp_path, wanted) -> None:
    index = write_tensors(tmp_path, {"a": torch.zeros(2)})
    for known in (index, None):
        with pytest.raises(CheckpointDamagedError, match="can't be read"):
            read_tensors(tmp_path, [wanted], index=known)


def test_a_shape_larger_than_any_memory(tmp_path) -> None:
    index = write_tensors(tmp_path, {"a": torch.zeros(2)})
    for known in (index, None):
        with pytest.raises(CheckpointDamagedError, match="can't be read"):
            read_tensors(tmp_path, [TensorInfo("a", (2**62,), torch.float32)], index=known)

"""Any tree of plain data and tensors comes back from JSON and tensors as it was."""

import json
import math
from collections import Counter, OrderedDict, deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.handlers.checkpoint.files.codec import decode, encode, tensors_in

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.sampled_from([torch.float32, torch.bfloat16, torch.int64])
)
NUMPY = st.builds(
    lambda values, dtype: np.array(values).astype(dtype),
    st.lists(st.integers(0, 100)),
    st.sampled_from(["<u4", ">i8", "f4", "bool", "c16"]),
)
TENSORS = st.builds(
    lambda shape, dtype: torch.ones(shape, dtype=dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64]),
)
KEYS = st.text() | st.integers() | st.booleans() | st.none() | st.tuples(st.integers(), st.text()) | st.just("$tensor")
TREES = st.recursive(
    SCALARS | NUMPY | TENSORS | NUMPY.map(lambda array: np.float32(array.size)),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.lists(inner).map(lambda items: deque(items, maxlen=len(items) + 2))
        | st.dictionaries(KEYS, inner)
        | st.dictionaries(st.text(), inner).map(OrderedDict)
    ),
    max_leaves=20,
)


def through_text(tree):
    """The tree after a trip through text, as a file holds it."""
    encoded, tensors = encode(tree)
    text = json.dumps(encoded, allow_nan=False)
    return decode(json.loads(text), lambda info: tensors[info.name])


def alike(a, b):
    """Equal in value and in every type, order of keys included; NaN is like NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return alike(list(a), list(b)) and all(alike(x, y) for x, y in zip(a.values(), b.values(), strict=True))
    if isinstance(a, list | tuple | deque):
        lengths = getattr(a, "maxlen", None) == getattr(b, "maxlen", None)
        return lengths and len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return a == b


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, TREES))
def test_a_tree_comes_back_as_it_was(tree) -> None:
    assert alike(through_text(tree), tree)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(KEYS, TREES))
def test_the_json_tells_shape_and_dtype_of_each_tensor(tree) -> None:
    encoded, tensors = encode(tree)
    told = {name: (info.shape, info.dtype) for name, info in tensors_in(encoded).items()}
    assert told == {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


@pytest.mark.parametrize("value", [{1, 2}, frozenset("ab"), Counter("aab"), torch.Size([2, 3])])
def test_other_containers_keep_their_type(value) -> None:
    back = through_text({"value": value})["value"]
    assert back == value
    assert type(back) is type(value)


def test_a_tensor_is_named_by_the_keys_that_lead_to_it() -> None:
    tree = {"model": {"0.weight": torch.zeros(2)}, "steps": [torch.tensor(1), {3: torch.tensor(2)}]}
    assert list(encode(tree)[1]) == ["model/0.weight", "steps/0", "steps/1/3"]


def test_tensors_whose_keys_read_alike_have_names_of_their_own() -> None:
    tree = {"a": {"b": torch.zeros(1)}, "a/b": torch.ones(1), "": torch.ones(3), 1: torch.ones(2), "1": torch.zeros(2)}
    assert alike(through_text(tree), tree)


def test_a_tensor_that_occurs_twice_is_held_once() -> None:
    weight = torch.randn(3, 3)
    encoded, tensors = encode({"encoder": weight, "decoder": weight, "turned": weight.t(), "part": weight[:2]})
    assert list(tensors) == ["encoder", "turned", "part"]
    back = decode(encoded, lambda info: tensors[info.name])
    assert back["decoder"] is back["encoder"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (lambda x: x, "handlers/EMA/0/rule is a builtins.function"),
        (object(), "handlers/EMA/0/rule is a builtins.object"),
        (np.array(["text"]), "handlers/EMA/0/rule is a numpy.ndarray"),
        (torch.eye(2).to_sparse(), "handlers/EMA/0/rule is a torch.sparse_coo tensor"),
        (torch.empty(2, device="meta"), "handlers/EMA/0/rule is a meta tensor"),
        (torch.nn.UninitializedParameter(), "handlers/EMA/0/rule has no shape yet"),
    ],
)
def test_what_is_no_plain_data_is_refused_by_its_place(value, said) -> None:
    with pytest.raises(TypeError, match=said):
        encode({"handlers": {"EMA": [{"rule": value}]}})


@pytest.mark.parametrize(
    "strange",
    [
        {"$call": "os.system"},
        {"$tensor": 3, "shape": [1], "dtype": "float32"},
        {"$tensor": "a", "shape": [-1], "dtype": "float32"},
        {"$tensor": "a", "shape": [1], "dtype": "nn"},
        {"$array": "AAAA", "shape": [1], "dtype": "O"},
        {"$array": "AAAA", "shape": [100], "dtype": "u1"},
        {"$dict": [[[1], 2]]},
        {"$dict": [[1]]},
        {"$bytes": "%"},
        {"$float": []},
        {"$deque": []},
    ],
)
def test_json_that_was_never_written_is_refused(strange) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(strange, lambda info: info)

"""A checkpoint from anybody: each kind of malice gets a clear error, executes nothing, and takes no memory.

What a manifest vouches for is forged here with it: hashes keep damage out, not malice.
"""

import base64
import copy
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from leyden.engine import supervised_trainer
from leyden.handlers.checkpoint import Checkpoint, CheckpointDamagedError, export_weights, load_weights, read, verify
from leyden.handlers.checkpoint.files.manifest import FileRecord, Manifest
from leyden.handlers.checkpoint.files.reader import read_tensors
from leyden.handlers.checkpoint.files.tensor_info import TensorInfo
from leyden.handlers.checkpoint.store.paths import to_path

SCRIPT = Path(__file__).parent / "scripts" / "read_without_pickle.py"
OLDER, NEWEST = "epoch=0001-iteration=00000003", "epoch=0002-iteration=00000006"
RANK = "rank-00000.state"
TENSORS = "shard-00001-model-00001-of-00001.safetensors"


def network():
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


def train(checkpoint, epochs):
    torch.manual_seed(0)
    model = network()
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), nn.MSELoss())
    trainer.attach(checkpoint)
    trainer.run([(torch.ones(2, 4), torch.ones(2, 2))] * 3, max_epochs=epochs)
    return trainer


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A directory with the checkpoints of two epochs, not to be changed."""
    kept = tmp_path_factory.mktemp("original") / "kept"
    train(Checkpoint(kept), 2)
    return kept


@pytest.fixture
def kept(original, tmp_path):
    """A copy of it, to be changed."""
    return Path(shutil.copytree(original, tmp_path / "kept"))


def vouch(folder, **changes):
    """Writes a manifest that fits the files as they are now."""
    manifest = Manifest.read(folder)
    names = {*manifest.files, *changes.pop("more", ())}
    files = {name: FileRecord.of(folder / name) for name in names if (folder / name).is_file()}
    values = {**vars(manifest), "files": files, **changes}
    (folder / "manifest.json").write_bytes(Manifest(**values).to_bytes())


def change_state(folder, change):
    """Changes the JSON of the state, and vouches for it."""
    state = json.loads((folder / "state.json").read_bytes())
    change(state)
    (folder / "state.json").write_text(json.dumps(state))
    vouch(folder)


def change_index(folder, change):
    """Changes the index, and vouches for it."""
    index = json.loads((folder / "index.json").read_bytes())
    change(index)
    (folder / "index.json").write_text(json.dumps(index))
    vouch(folder)


def change_own(folder, change):
    """Changes what rank 0 has for itself, with a sum that is right."""
    header, values = split((folder / RANK).read_bytes()[:-32])
    told = json.loads(header["__metadata__"]["leyden"])
    told = change(told) or told
    header["__metadata__"]["leyden"] = told if isinstance(told, str) else json.dumps(told)
    forge_own(folder, join(header, values))


def forge_own(folder, data):
    (folder / RANK).write_bytes(data + hashlib.sha256(data).digest())


def is_refused(folder, said):
    """By everything that reads it."""
    for act in (
        lambda: load_weights(folder, network()),
        lambda: train(Checkpoint(folder.parent / "x", resume=folder), 3),
    ):
        with pytest.raises(CheckpointDamagedError, match=said):
            act()


def refusal(act):
    """The ValueError with which something is refused; None if it is taken. Any other error is a failure."""
    try:
        act()
    except ValueError as error:
        return error
    return None


# -- what is executed -----------------------------------------------------------------------------------------


class Bomb:
    """What a pickle can do to who loads it."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return (open, (str(self.place), "w"))


NAMES = [
    TENSORS,
    RANK,
    "index.json",
    "state.json",
    "manifest.json",
    ".metadata",
    "x.safetensors",
    "__0_0.distcp",
    "data.pkl",
    "state.pt",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["pickle", "torch.save"])
def test_no_pickle_under_any_name_is_loaded(name, form, kept, tmp_path) -> None:
    folder = kept / NEWEST
    manifest = Manifest.read(folder)
    bomb = Bomb(tmp_path / "executed")
    data = io.BytesIO(pickle.dumps(bomb))
    if form == "torch.save":
        torch.save({"model": bomb}, data)
    (folder / name).write_bytes(data.getvalue())
    if name != "manifest.json":
        files = {each: FileRecord.of(folder / each) for each in manifest.files}
        (folder / "manifest.json").write_bytes(Manifest(**{**vars(manifest), "files": files}).to_bytes())
    for act in (
        lambda: read(folder),
        lambda: verify(folder),
        lambda: load_weights(folder, network()),
        lambda: export_weights(folder, tmp_path / "w.safetensors"),
        lambda: train(Checkpoint(tmp_path / "x", resume=folder), 3),
    ):
        assert isinstance(refusal(act), CheckpointDamagedError | None)
    assert not (tmp_path / "executed").exists()


def test_a_pickle_in_the_place_of_exported_weights(tmp_path) -> None:
    for name in ("w.safetensors", "m.safetensors.index.json"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
        with pytest.raises(CheckpointDamagedError, match=name):
            load_weights(tmp_path / name, network())
    assert not (tmp_path / "executed").exists()


def test_nothing_is_unpickled_compiled_or_started_on_any_way_of_reading(kept) -> None:
    """In a process that dies of an unpickling: pickle's and torch's loaders are replaced, and the interpreter's audit
    tells of what else is executed.
    """
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(kept)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "read, verified, loaded, exported, resumed; the hook hears an unpickling"


# -- what is believed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [[2**40], [2**31, 4], [4, 3, 1], [], [2**62, 2**62], [3, 10**30], [3, -4], [0]])
def test_a_shape_that_the_files_do_not_have(shape, kept) -> None:
    def claim(state):
        state["models"]["default"]["model"]["0.weight"]["shape"] = shape
        state["engine"]["extra"] = {"$tensor": "models/default/model/0.weight", "shape": shape, "dtype": "float32"}

    change_state(kept / NEWEST, claim)
    with pytest.raises(ValueError, match=r"0\.weight.* (should be|has shape)|described"):
        load_weights(kept / NEWEST, network())
    with pytest.raises(ValueError, match=r"0\.weight.* (should be|has shape)|described"):
        train(Checkpoint(kept.parent / "x", resume=kept / NEWEST), 3)


def test_a_huge_tensor_elsewhere_in_the_state(kept) -> None:
    """Where no model says what shape it must have; nor is it in the files."""
    for name in ("models/default/model/0.weight", "nowhere"):
        with_more = {"$tensor": name, "shape": [2**33], "dtype": "float32"}
        change_state(kept / NEWEST, lambda state, more=with_more: state["engine"].update(more=more))
        with pytest.raises(CheckpointDamagedError, match=r"should be|not in the files|described as"):
            train(Checkpoint(kept.parent / "x", resume=kept / NEWEST), 3)


@pytest.mark.parametrize("name", ["ranks/0/rng/torch", "nowhere"])
def test_a_huge_tensor_of_a_ranks_own(name, kept) -> None:
    more = {"$tensor": name, "shape": [2**33], "dtype": "float32"}
    change_own(kept / NEWEST, lambda told: told["state"].update(more=more))
    with pytest.raises(CheckpointDamagedError, match=r"should be|not in the file|described as"):
        train(Checkpoint(kept.parent / "x", resume=kept / NEWEST), 3)


def test_files_that_have_a_part_of_a_tensor(kept) -> None:
    """An offset makes the whole as large as the state says it is."""

    def claim(index):
        tensor = index["tensors"]["models/default/model/0.weight"]
        tensor["shape"][0] = 2**33 + 3
        tensor["pieces"][0][2] = 2**33

    change_index(kept / NEWEST, claim)
    change_state(
        kept / NEWEST,
        lambda state: state["models"]["default"]["model"]["0.weight"].update(shape=[2**33 + 3, 4]),
    )
    model = nn.Sequential(nn.Linear(4, 2**33 + 3, bias=False, device="meta"))
    with pytest.raises(CheckpointDamagedError, match="of which the files hold 12"):
        load_weights(kept / NEWEST, model, strict=False)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/b", ".", "..", "", "nul\0", "\ud800", "folder", "pipe"]
)
def test_names_that_lead_out_of_the_folder(name, kept) -> None:
    folder = kept / NEWEST
    (kept / "secret").write_text("x")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    manifest = Manifest.read(folder)
    files = {**manifest.files, name: FileRecord(1, "0" * 64)}
    (folder / "manifest.json").write_bytes(Manifest(**{**vars(manifest), "files": files}).to_bytes())
    with pytest.raises(CheckpointDamagedError, match=r"lacks its file|no usable manifest"):
        verify(folder)
    with pytest.warns(UserWarning, match="a damaged checkpoint is passed over"):
        assert train(Checkpoint(kept, resume="auto"), 1).state.iteration == 3


@pytest.mark.parametrize("name", ["state.json", "index.json", "manifest.json", TENSORS, RANK])
def test_a_link_in_the_place_of_a_file(name, kept, tmp_path) -> None:
    folder = kept / NEWEST
    shutil.move(folder / name, tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")

    def go_on(path):
        train(Checkpoint(tmp_path / "x", resume=path), 3)

    for act in (verify, go_on if name == RANK else lambda path: load_weights(path, network())):
        with pytest.raises(CheckpointDamagedError, match=r"lacks its file|it is a symbolic link"):
            act(folder)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["state.json", "index.json", "manifest.json", TENSORS, RANK])
@pytest.mark.parametrize("kind", ["endless", "pipe", "folder"])
def test_a_file_that_never_ends_is_not_begun(name, kind, kept) -> None:
    folder = kept / NEWEST
    (folder / name).unlink()
    if kind == "endless":
        (folder / name).symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).mkdir()
    if name not in (TENSORS, RANK):
        with pytest.raises(ValueError, match=r"manifest|can't be read"):
            read(folder)
    with pytest.raises(ValueError, match=r"lacks|manifest|no checkpoint|can't be read"):
        verify(folder)
    with pytest.warns(UserWarning, match="a damaged checkpoint is passed over"):
        assert train(Checkpoint(kept, resume="auto"), 1).state.iteration == 3


def test_a_manifest_that_leaves_the_state_out_does_not_vouch_for_it(kept) -> None:
    folder = kept / NEWEST
    manifest = Manifest.read(folder)
    files = {name: record for name, record in manifest.files.items() if name != "state.json"}
    (folder / "manifest.json").write_bytes(Manifest(**{**vars(manifest), "files": files}).to_bytes())
    with pytest.raises(CheckpointDamagedError, match=r"does not list state\.json"):
        verify(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000 + "]" * 100_000, "RecursionError"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "RecursionError"),
        ('{"models": {}, "models": {}}', "the key 'models' stands twice"),
        ('{"models": NaN}', "NaN is no number of JSON"),
        ('{"models": -Infinity}', "-Infinity is no number of JSON"),
        ('{"models": ' + "9" * 5000 + "}", "ValueError"),
        ('{"models": "\udcff"}', "UnicodeDecodeError"),
        ("", "JSONDecodeError"),
        ("null", "the state is missing, where a dict should be"),
        ("[1]", "the state is a list"),
    ],
)
def test_json_that_leyden_never_wrote(text, said, kept) -> None:
    (kept / NEWEST / "state.json").write_bytes(text.encode(errors="surrogateescape"))
    vouch(kept / NEWEST)
    with pytest.raises(CheckpointDamagedError, match=rf"state\.json can't be read: .*{said}"):
        read(kept / NEWEST)
    is_refused(kept / NEWEST, said)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("models", [], "models is a list, where a dict should be"),
        ("models/default", None, "models/default is missing"),
        ("models/default/model", "text", "models/default/model is a str"),
        ("versions/default", {}, "versions/default/model is missing"),
        ("versions/default/model/0", 1, "versions/default/model/0 is a int"),
        ("optimizers/default/groups", {}, "optimizers/default/groups is a dict, where a list"),
        ("optimizers/default/groups", [{}], "optimizers/default/groups/0/params is missing"),
        ("optimizers/default/state", [], "optimizers/default/state is a list"),
        ("engine/handlers", 1, "engine/handlers is a int"),
    ],
)
def test_a_state_of_another_build(path, value, said, kept) -> None:
    def replace(state):
        *way, last = path.split("/")
        for key in way:
            state = state[key]
        state[last] = value

    change_state(kept / NEWEST, replace)
    is_refused(kept / NEWEST, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: told.update(state=[]), "ranks/0 is a list"),
        (lambda told: told["state"].pop("rng") and None, "ranks/0/rng is missing"),
        (lambda told: told["state"]["engine"].update(handlers=3), "ranks/0/engine/handlers is a int"),
        (lambda told: told.update(rank=1), "is of another rank or another checkpoint"),
        (lambda told: told.update(token="another"), "is of another rank or another checkpoint"),
        (lambda told: "[" * 100_000, "RecursionError|can't be read"),
    ],
)
def test_what_a_rank_has_for_itself_of_another_build(change, said, kept) -> None:
    change_own(kept / NEWEST, change)
    for act in (verify, lambda folder: train(Checkpoint(kept.parent / "x", resume=folder), 3)):
        with pytest.raises(CheckpointDamagedError, match=said):
            act(kept / NEWEST)
    with pytest.warns(UserWarning, match="a damaged checkpoint is passed over"):
        assert train(Checkpoint(kept, resume="auto"), 1).state.iteration == 3


WEIGHT = "models/default/model/0.weight"
LIES = {
    "a file above": (lambda index: index["files"][0].__setitem__(0, "../x.safetensors"), "it names a file"),
    "no file of tensors": (lambda index: index["files"][0].__setitem__(0, "state.json"), "it names a file"),
    "a file that is not there": (lambda index: index["files"][0].__setitem__(0, "y.safetensors"), "lacks its file"),
    "a size": (lambda index: index["files"][0].__setitem__(1, 10**6), "has .* bytes instead of 1000000"),
    "a size below its header": (lambda index: index["files"][0].__setitem__(1, 9), "no size or sum"),
    "the header's size": (lambda index: index["files"][0].__setitem__(2, 16), "its header does not have the SHA-256"),
    "the header's sum": (lambda index: index["files"][0].__setitem__(3, "0" * 64), "its header does not have"),
    "a number of a file": (lambda index: piece_of(index).__setitem__(0, 7), "it is no index: IndexError"),
    "a negative number of a file": (lambda index: piece_of(index).__setitem__(0, -1), "a piece of"),
    "where a piece begins": (lambda index: piece_of(index).__setitem__(1, piece_of(index)[1] + 4), "was altered"),
    "a beginning in the header": (lambda index: piece_of(index).__setitem__(1, 0), "has no room for"),
    "a beginning after the end": (lambda index: piece_of(index).__setitem__(1, 2**40), "has no room for"),
    "an offset": (lambda index: piece_of(index).__setitem__(2, 1), "lies at .* out of"),
    "a negative offset": (lambda index: piece_of(index).__setitem__(2, -3), "a piece of"),
    "a shape": (lambda index: piece_of(index).__setitem__(4, 2), "of which the files hold 8"),
    "a sum": (lambda index: piece_of(index).__setitem__(6, "f" * 64), "was altered"),
    "a sum that is none": (lambda index: piece_of(index).__setitem__(6, "../../x"), "sums"),
    "no sum": (lambda index: piece_of(index).pop(), "0 sums, and 48 bytes"),
    "twice the same": (lambda index: index["tensors"][WEIGHT]["pieces"].append(piece_of(index)), "hold 24"),
    "half of it twice": (lambda index: halve(index), "lie over each other"),
    "a dtype": (lambda index: index["tensors"][WEIGHT].update(dtype="float64"), "no room for|sums|should be|altered"),
    "no dtype": (lambda index: index["tensors"][WEIGHT].update(dtype="object"), "is no dtype"),
    "a whole shape": (lambda index: index["tensors"][WEIGHT].update(shape=[2**62, 2**62]), "of which the files hold"),
    "a tensor less": (lambda index: index["tensors"].pop(WEIGHT) and None, "is not in the files"),
    "no tensors": (lambda index: index.pop("tensors") and None, "is no index"),
    "a token": (lambda index: index.update(token=3), "no token"),
}


def halve(index):
    """Two pieces of half the size, both for the left half of the columns."""
    number, start, *_, height, width, _ = piece_of(index)
    piece = [number, start, 0, 0, height, width // 2, hashlib.sha256(b"?").hexdigest()]
    index["tensors"][WEIGHT]["pieces"] = [piece, piece]


def piece_of(index):
    (piece,) = index["tensors"][WEIGHT]["pieces"]
    return piece


@pytest.mark.parametrize("kind", LIES)
def test_an_index_that_lies(kind, kept) -> None:
    lie, said = LIES[kind]
    change_index(kept / NEWEST, lie)
    is_refused(kept / NEWEST, said)
    with pytest.warns(UserWarning, match="a damaged checkpoint is passed over"):
        assert train(Checkpoint(kept, resume="auto"), 1).state.iteration == 3


def test_bytes_that_no_sum_is_of(kept) -> None:
    """Nobody reads them; `verify` tells of them all the same."""
    folder = kept / NEWEST
    with (folder / TENSORS).open("ab") as file:
        file.write(b"hidden")
    change_index(folder, lambda index: index["files"][0].__setitem__(1, index["files"][0][1] + 6))
    with pytest.raises(CheckpointDamagedError, match="on that no sum is of"):
        verify(folder)


@pytest.mark.timeout(20)
def test_exported_weights_that_never_come(tmp_path) -> None:
    for name in ("w.safetensors", "m.safetensors.index.json"):
        os.mkfifo(tmp_path / name)
        for path in (tmp_path / name, tmp_path / f"no-{name}"):
            with pytest.raises(CheckpointDamagedError, match="there is no such file"):
                load_weights(path, network())


def test_random_numbers_that_are_none(kept) -> None:
    folder = kept / NEWEST
    change_own(folder, lambda told: told["state"]["rng"].update(python=[3, ["x"] * 625, None]))
    with pytest.raises(CheckpointDamagedError, match="ranks/0/rng is no state of random numbers") as raised:
        train(Checkpoint(kept.parent / "x", resume=folder), 3)
    assert raised.value.__notes__ == [f"in going on from {folder}"]


@pytest.mark.parametrize("name", ["../w.safetensors", "/w.safetensors", "w.bin", 3, None])
def test_an_index_names_only_files_beside_it(name, tmp_path) -> None:
    export_weights(network(), tmp_path / "w.safetensors")
    (tmp_path / "in").mkdir()
    index = tmp_path / "in" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(network().state_dict(), name)}))
    with pytest.raises(CheckpointDamagedError, match="is no index of weights: ValueError: it names a file"):
        load_weights(index, network())


# -- anything -------------------------------------------------------------------------------------------------

fuzz = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMBERS = st.integers() | st.sampled_from([2**31, 2**63, -1, 10**30, 0]) | st.floats()
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=5)
TAGS = ["$tensor", "$float", "$bytes", "$tuple", "$size", "$set", "$frozenset", "$deque", "$dict", "$ordered"]
TAGS += ["$counter", "$array", "$number", "$dtype", "$call"]
KEYS = st.sampled_from([*TAGS, "shape", "dtype", "maxlen"]) | st.text(max_size=3)
ANYTHING = st.recursive(
    LEAVES
    | st.sampled_from(["float32", "<f4", "O", "AAAA"])
    | st.binary(max_size=8).map(lambda data: base64.b64encode(data).decode()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


def nodes(tree, path=()):
    """The ways to all places of a tree of JSON."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, item in items:
        yield from nodes(item, (*path, key))


def with_changes(tree, draw):
    """The tree with something else in one place or two, or something less or more."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(
            st.sampled_from(sorted((path for path in nodes(tree) if path), key=lambda p: (len(p), str(p))))
        )
        place = tree
        for key in way:
            place = place[key]
        action = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if action == "remove":
            del place[last]
        elif action == "add" and isinstance(place, dict):
            place[draw(KEYS)] = draw(ANYTHING)
        else:
            place[last] = draw(ANYTHING)
    return tree


@fuzz
@given(data=st.data())
def test_any_state(data, original, tmp_path_factory) -> None:
    folder = Path(shutil.copytree(original / NEWEST, tmp_path_factory.mktemp("fuzz") / NEWEST))
    state = with_changes(json.loads((folder / "state.json").read_bytes()), data.draw)
    (folder / "state.json").write_text(json.dumps(state))
    vouch(folder)
    unread, unloaded = refusal(lambda: read(folder)), refusal(lambda: load_weights(folder, network()))
    assert unread is None or isinstance(unloaded, CheckpointDamagedError)
    assert unloaded is None or str(folder) in str(unloaded)


def test_an_optimizer_that_is_nothing(original, tmp_path) -> None:
    folder = Path(shutil.copytree(original / NEWEST, tmp_path / NEWEST))
    state = json.loads((folder / "state.json").read_bytes())
    state["optimizers"]["another"] = None
    (folder / "state.json").write_text(json.dumps(state))
    vouch(folder)
    with pytest.raises(CheckpointDamagedError, match="optimizers/another is missing"):
        read(folder)


@fuzz
@given(data=st.data())
def test_any_index(data, original, tmp_path_factory) -> None:
    folder = Path(shutil.copytree(original / NEWEST, tmp_path_factory.mktemp("fuzz") / NEWEST))
    index = with_changes(json.loads((folder / "index.json").read_bytes()), data.draw)
    (folder / "index.json").write_text(json.dumps(index))
    vouch(folder)
    for act in (lambda: verify(folder), lambda: load_weights(folder, network())):
        error = refusal(act)
        assert error is None or (isinstance(error, CheckpointDamagedError) and str(folder) in str(error))


@fuzz
@given(data=st.data())
def test_anything_of_a_ranks_own(data, original, tmp_path_factory) -> None:
    folder = Path(shutil.copytree(original / NEWEST, tmp_path_factory.mktemp("fuzz") / NEWEST))
    if data.draw(st.booleans()):
        change_own(folder, lambda told: with_changes(told, data.draw))
    else:
        header, values = split((folder / RANK).read_bytes()[:-32])
        forge_own(folder, join(with_changes(header, data.draw), values))
    for act in (
        lambda: verify(folder),
        lambda: read(folder).load_rank(0),
    ):
        error = refusal(act)
        assert error is None or (isinstance(error, CheckpointDamagedError) and str(folder) in str(error))


@fuzz
@given(data=st.data())
def test_any_manifest(data, original) -> None:
    content = json.loads((original / NEWEST / "manifest.json").read_bytes())["content"]
    changed = with_changes(content, data.draw)
    try:
        sealed = seal(changed)
    except ValueError:  # NaN, which JSON does not have
        return
    if refusal(lambda: Manifest.from_bytes(sealed)) is None:
        manifest = Manifest.from_bytes(sealed)
        assert isinstance(manifest.serial, int)
        assert all(isinstance(record, FileRecord) for record in manifest.files.values())


def seal(content):
    from leyden.handlers.checkpoint.files.manifest import _seal

    return _seal(content)


@fuzz
@given(st.binary(max_size=200))
def test_any_bytes(data) -> None:
    with pytest.raises(CheckpointDamagedError):
        Manifest.from_bytes(data)


def rewrite_header(file, change):
    """Changes the header of a safetensors file; the data stay."""
    header, values = split(file.read_bytes())
    file.write_bytes(join(change(header) or header, values))
    if (file.parent / "manifest.json").exists():
        vouch(file.parent)


def split(data):
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(header, values):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + values


def shift(header, name, offset):
    sharding = json.loads(header["__metadata__"]["DCP_SHARDING_INFO"])
    sharding[name]["saved_offsets"][0] = offset
    header["__metadata__"]["DCP_SHARDING_INFO"] = json.dumps(sharding)


@fuzz
@given(data=st.data())
def test_any_header_of_tensors(data, original, tmp_path_factory) -> None:
    folder = Path(shutil.copytree(original / NEWEST, tmp_path_factory.mktemp("fuzz") / NEWEST))

    def change(header):
        if data.draw(st.booleans()):
            return with_changes(header, data.draw)
        sharding = json.loads(header["__metadata__"]["DCP_SHARDING_INFO"])
        header["__metadata__"]["DCP_SHARDING_INFO"] = json.dumps(with_changes(sharding, data.draw))
        return header

    wanted = list(read(folder).tensors.values())
    rewrite_header(folder / TENSORS, change)
    error = refusal(lambda: read_tensors(folder, wanted))  # as where there is no index
    assert error is None or str(folder) in str(error)
    assert isinstance(refusal(lambda: load_weights(folder, network())), CheckpointDamagedError)


@fuzz
@given(data=st.data())
def test_any_header_of_exported_weights(data, tmp_path_factory) -> None:
    file = export_weights(network(), tmp_path_factory.mktemp("fuzz") / "w.safetensors")
    rewrite_header(file, lambda header: with_changes(header, data.draw))
    error = refusal(lambda: load_weights(file, network()))
    assert error is None or str(file) in str(error)


@fuzz
@given(data=st.data())
def test_any_header_in_another_file_system(data, original) -> None:
    """There leyden reads the headers itself."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(original / NEWEST), "/hostile", recursive=True)
    folder = "memory://hostile"
    try:
        wanted = list(read(folder).tensors.values())
        header, values = split(memory.cat(f"/hostile/{TENSORS}"))
        memory.pipe(f"/hostile/{TENSORS}", join(with_changes(header, data.draw), values))
        error = refusal(lambda: read_tensors(to_path(folder), wanted))
        assert error is None or folder in str(error)
    finally:
        memory.rm("/hostile", recursive=True)


def test_a_shape_without_room_in_another_file_system(original) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(original / NEWEST), "/large", recursive=True)
    try:
        header, values = split(memory.cat(f"/large/{TENSORS}"))
        header["models/default/model/0.weight"]["shape"] = [2**33, 4]
        memory.pipe(f"/large/{TENSORS}", join(header, values))
        claimed = TensorInfo("models/default/model/0.weight", (2**33, 4), torch.float32)
        with pytest.raises(CheckpointDamagedError, match=r"no room for models/default/model/0\.weight of shape"):
            read_tensors(to_path("memory://large"), [claimed])
    finally:
        memory.rm("/large", recursive=True)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40, 10**8 + 1])
def test_a_header_that_says_it_is_huge(length, kept, tmp_path) -> None:
    file = kept / NEWEST / TENSORS
    data = length.to_bytes(8, "little") + file.read_bytes()[8:]
    file.write_bytes(data)
    is_refused(kept / NEWEST, "its header does not have the SHA-256")
    with pytest.raises(CheckpointDamagedError, match="can't be read"):
        read_tensors(kept / NEWEST, [TensorInfo("models/default/model/0.weight", (3, 4), torch.float32)])
    (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(CheckpointDamagedError, match="can't be read"):
        load_weights(tmp_path / "w.safetensors", network())


# -- damage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [20, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_truncation_and_flipped_bits_at_random_places(places, kept) -> None:
    """All are found, and the checkpoint before is the one that is used."""
    dice = random.Random(places)
    files = sorted((kept / NEWEST).iterdir())
    found = {"flipped": 0, "cut": 0}
    for _ in range(places):
        path = dice.choice(files)
        whole = path.read_bytes()
        kind = dice.choice(sorted(found))
        place = dice.randrange(len(whole))
        damaged = bytearray(whole)
        if kind == "cut":
            del damaged[place:]
        else:
            damaged[place] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointDamagedError):
            verify(kept / NEWEST)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer = train(Checkpoint(kept, resume="auto"), 1)
        assert trainer.state.iteration == 3
        assert any(NEWEST in str(each.message) for each in caught)
        found[kind] += 1
        path.write_bytes(whole)
    print(f"{places} places: {found['flipped']} bits flipped, {found['cut']} files cut; all found, the one before used")
    verify(kept / NEWEST)
    assert train(Checkpoint(kept, resume="auto"), 2).state.iteration == 6

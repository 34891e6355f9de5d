"""Checkpoints in any file system that fsspec reaches: the same contents, whole or not there."""

import json
import subprocess
import sys
import uuid

import pytest
import torch
from fsspec import AbstractFileSystem
from torch import nn

from leyden.engine import Events
from leyden.handlers.checkpoint import Checkpoint, CheckpointDamagedError, load_weights, read, verify
from leyden.handlers.checkpoint.files.reader import read_tensors, write_tensors
from leyden.handlers.checkpoint.store.paths import RemotePath, to_path

KINDS = ["file", "memory", pytest.param("s3", marks=pytest.mark.timeout(120))]


@pytest.fixture(scope="module")
def s3_server():
    """A server that speaks S3, with one bucket."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    import boto3

    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name, value in (("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "secret"), ("DEFAULT_REGION", "us-east-1")):
            patch.setenv(f"AWS_{name}", value)
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield
        server.stop()


@pytest.fixture(params=KINDS)
def url(request, tmp_path):
    """A place of which nothing is there yet."""
    name = f"runs/{uuid.uuid4().hex}"
    if request.param == "file":
        return f"file://{tmp_path}/{name}"
    if request.param == "memory":
        return f"memory://{name}"
    request.getfixturevalue("s3_server")
    return f"s3://bucket/{name}"


def names(url):
    return sorted(path.name for path in to_path(url).iterdir())


def test_the_same_contents_as_in_a_local_directory(url, make_run, tmp_path) -> None:
    for directory in (url, tmp_path / "local"):
        run = make_run(Checkpoint(directory))
        run.trainer.run(run.data, max_epochs=4)
    expected = sorted(path.name for path in (tmp_path / "local").iterdir())
    assert names(url) == expected
    for name in expected:
        there, here = verify(f"{url}/{name}"), verify(tmp_path / "local" / name)
        assert there.files["state.json"] == here.files["state.json"]


def test_a_run_goes_on_from_there(url, make_run) -> None:
    whole = make_run()
    whole.trainer.run(whole.data, max_epochs=3)
    first = make_run(Checkpoint(url, resume="auto"))
    first.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=7), first.trainer.interrupt)
    first.trainer.run(first.data, max_epochs=3)
    second = make_run(Checkpoint(url, resume="auto"))
    second.trainer.run(second.data, max_epochs=3)
    assert first.losses + second.losses == whole.losses
    assert all(
        torch.equal(a, b)
        for a, b in zip(second.model.state_dict().values(), whole.model.state_dict().values(), strict=True)
    )


def test_a_directory_of_another_run_is_not_mixed_up_with_this_one(url, make_run) -> None:
    run = make_run(Checkpoint(url))
    run.trainer.run(run.data, max_epochs=1)
    again = make_run(Checkpoint(url))
    with pytest.raises(ValueError, match=r"has 1 checkpoints of an earlier run"):
        again.trainer.run(again.data, max_epochs=2)


def test_paths_that_the_handler_gives_can_be_read(url, make_run, metric_of, tmp_path) -> None:
    checkpoint = Checkpoint(url, best="score", keep=1)
    run = make_run(checkpoint)
    metric_of(run.trainer, [0.9, 0.1, 0.2])
    run.trainer.run(run.data, max_epochs=3)
    assert len(names(url)) == 2
    assert verify(checkpoint.best_path).epoch == 1
    assert read(checkpoint.last_path).manifest.epoch == 3
    assert str(checkpoint.last_path).endswith("epoch=0003-iteration=00000015")
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))
    load_weights(url, model)
    assert torch.equal(model[0].weight, run.model[0].weight)
    other = make_run(Checkpoint(tmp_path / "other", resume=checkpoint.best_path))
    other.trainer.run(other.data, max_epochs=2)
    assert other.trainer.state.iteration == 10


@pytest.fixture
def kept(make_run):
    """A place in memory with the checkpoints of two epochs."""
    url = f"memory://runs/{uuid.uuid4().hex}"
    run = make_run(Checkpoint(url))
    run.trainer.run(run.data, max_epochs=2)
    return to_path(url)


NEWEST = "epoch=0002-iteration=00000010"


def test_a_checkpoint_without_manifest_does_not_exist_and_is_cleaned_away(kept, make_run) -> None:
    (kept / NEWEST / "manifest.json").unlink()
    assert read(kept).manifest.epoch == 1
    run = make_run(Checkpoint(kept, resume="auto"))
    run.trainer.add_event_handler(Events.STARTED, lambda: found.extend(names(kept)))
    found = []
    run.trainer.run(run.data, max_epochs=2)
    assert found == [".lock", "epoch=0001-iteration=00000005"]
    assert names(kept) == ["epoch=0001-iteration=00000005", NEWEST]


def test_nothing_is_deleted_where_the_store_does_not_answer(kept, make_run, monkeypatch) -> None:
    filesystem = type(kept.filesystem)
    info = filesystem.info

    def go_on():
        run = make_run(Checkpoint(kept, resume="auto"))
        run.trainer.run(run.data, max_epochs=3)
        return run.losses

    def failing(self, path, **kwargs):
        if path.endswith("manifest.json"):
            raise OSError("the store is away")
        return info(self, path, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(filesystem, "info", failing)
        patch.setattr(filesystem, "isfile", AbstractFileSystem.isfile)  # as of S3: False after any error
        with pytest.raises(OSError, match="the store is away"):
            go_on()
    assert names(kept) == ["epoch=0001-iteration=00000005", NEWEST]
    assert len(go_on()) == 5


def test_the_manifest_is_written_last_and_goes_first(make_run, monkeypatch) -> None:
    url = f"memory://runs/{uuid.uuid4().hex}"
    kept = to_path(url)
    done = []
    run = make_run(Checkpoint(url, keep=1))
    filesystem = type(kept.filesystem)
    pipe_file, open_file = filesystem.pipe_file, filesystem.open
    remove_file, remove = filesystem.rm_file, filesystem.rm

    def note(what, path):
        if "epoch=" in str(path):
            done.append((what, str(path).partition("epoch=")[2]))

    monkeypatch.setattr(
        filesystem, "pipe_file", lambda self, path, *a, **k: note("write", path) or pipe_file(self, path, *a, **k)
    )
    monkeypatch.setattr(
        filesystem,
        "open",
        lambda self, path, mode="rb", *a, **k: (
            ("w" in mode and note("write", path)) or open_file(self, path, mode, *a, **k)
        ),
    )
    monkeypatch.setattr(filesystem, "rm_file", lambda self, path: note("delete", path) or remove_file(self, path))
    monkeypatch.setattr(
        filesystem, "rm", lambda self, path, *a, **k: note("delete all", path) or remove(self, path, *a, **k)
    )
    run.trainer.run(run.data, max_epochs=2)
    first, second = "0001-iteration=00000005", "0002-iteration=00000010"
    shard = "shard-00001-model-00001-of-00001.safetensors"
    files = (shard, "rank-00000.state", "index.json", "state.json", "manifest.json")
    in_order = list(dict.fromkeys(done))
    assert in_order == [
        *(("write", f"{first}/{name}") for name in files),
        *(("write", f"{second}/{name}") for name in files),
        ("delete", f"{first}/manifest.json"),
        ("delete all", first),
        *((what, each) for what, each in in_order[12:]),
    ]
    assert all(what == "delete" and each.startswith(first) for what, each in in_order[12:])


def test_nothing_half_written_is_left_where_the_store_fails(make_run, monkeypatch) -> None:
    url = f"memory://runs/{uuid.uuid4().hex}"
    run = make_run(Checkpoint(url))
    filesystem = type(to_path(url).filesystem)
    pipe_file = filesystem.pipe_file

    def failing(self, path, *args, **kwargs):
        if "iteration=00000010/state.json" in path:
            raise OSError("the store is away")
        return pipe_file(self, path, *args, **kwargs)

    monkeypatch.setattr(filesystem, "pipe_file", failing)
    with pytest.warns(UserWarning, match=rf"{url}/{NEWEST} could not be written: OSError: the store is away"):
        run.trainer.run(run.data, max_epochs=3)
    assert names(url) == ["epoch=0001-iteration=00000005", "epoch=0003-iteration=00000015"]


@pytest.mark.parametrize(
    "name",
    ["shard-00001-model-00001-of-00001.safetensors", "rank-00000.state", "index.json", "state.json", "manifest.json"],
)
def test_a_flipped_bit_is_found_and_the_one_before_used(name, kept, make_run) -> None:
    data = bytearray((kept / NEWEST / name).read_bytes())
    data[len(data) // 2] ^= 4
    (kept / NEWEST / name).write_bytes(bytes(data))
    with pytest.raises(CheckpointDamagedError):
        verify(kept / NEWEST)
    run = make_run(Checkpoint(kept, resume="auto"))
    epochs = []
    run.trainer.add_event_handler(Events.EPOCH_STARTED, lambda: epochs.append(run.trainer.state.epoch))
    with pytest.warns(UserWarning, match="a damaged checkpoint is passed over"):
        run.trainer.run(run.data, max_epochs=2)
    assert epochs == [2]


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 8,
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a": {}}',
        (60).to_bytes(8, "little") + json.dumps({"a": {"dtype": "X", "shape": [2], "data_offsets": [0, 8]}}).encode(),
    ],
)
def test_a_header_that_is_none(header, kept) -> None:
    (kept / NEWEST / "shard-00001-model-00001-of-00001.safetensors").write_bytes(header)
    with pytest.raises(CheckpointDamagedError, match=r"shard-00001.* has .* bytes instead of"):
        read(kept / NEWEST).load()
    wanted = read(kept / NEWEST).tensors.values()
    with pytest.raises(CheckpointDamagedError, match=r"the tensors of .* can't be read"):
        read_tensors(kept / NEWEST, wanted)  # as where there is no index


def test_a_tensor_of_every_kind(same) -> None:
    from leyden.handlers.checkpoint import TensorInfo

    tensors = {
        "a": torch.tensor(3.0),
        "b": torch.randn(3).bfloat16(),
        "c": torch.arange(12.0).reshape(3, 4).t(),
        "d": torch.empty(3, 0, 2),
        "e": torch.randn(2, 2, dtype=torch.complex128),
        "f": torch.tensor([True, False]),
        "g": torch.arange(5, dtype=torch.int8),
    }
    folder = to_path(f"memory://tensors/{uuid.uuid4().hex}")
    index = write_tensors(folder, tensors)
    infos = [TensorInfo(name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()]
    assert same(read_tensors(folder, infos), tensors)
    assert same(read_tensors(folder, infos, index=index), tensors)


@pytest.mark.parametrize("protocol", ["nowhere", "gopher"])
def test_a_protocol_that_nobody_knows(protocol) -> None:
    with pytest.raises(ValueError, match="Protocol not known"):
        Checkpoint(f"{protocol}://run")


def test_a_local_directory_needs_no_fsspec(tmp_path) -> None:
    """It comes along with torch.distributed.checkpoint, so it is looked for where that is not there."""
    code = (
        "import sys, leyden.handlers.checkpoint.store.paths as p; p.to_path('run'); assert 'fsspec' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_remote_path_is_like_a_path() -> None:
    path = RemotePath("memory://a/b/")
    assert (str(path), path.name, str(path.parent), str(path / "c")) == (
        "memory://a/b",
        "b",
        "memory://a",
        "memory://a/b/c",
    )
    assert path == RemotePath("memory://a/b")
    assert len({path, RemotePath("memory://a/b")}) == 1
    (path / "c").write_bytes(b"12")
    assert (path / "c").is_file()
    assert path.is_dir()
    assert [each.name for each in path.glob("*")] == ["c"]
    assert (path / "c").stat().st_size == 2

"""What a machine that loses power finds again: a checkpoint has its final name only once all of it is on the disk."""

import os
from pathlib import Path

import pytest
from run_to_kill import train


@pytest.fixture
def disk(monkeypatch):
    """What was flushed, by inode, and in `renamed` what each rename of a folder found not to be."""

    class Disk:
        def __init__(self):
            self.flushed = {}
            self.renamed = []
            self.directories = []

    seen = Disk()
    fsync, rename = os.fsync, os.rename

    def noting_fsync(descriptor):
        fsync(descriptor)
        found = os.fstat(descriptor)
        seen.flushed[found.st_ino] = found.st_size, found.st_mtime_ns

    def noting_rename(source, target, **options):
        if Path(target).name.startswith("epoch="):
            unflushed = []
            for path in (Path(source), *Path(source).iterdir()):
                found = path.stat()
                if seen.flushed.get(found.st_ino) != (found.st_size, found.st_mtime_ns):
                    unflushed.append(path.name)
            seen.renamed.append((Path(target), unflushed))
            seen.flushed.pop(Path(target).parent.stat().st_ino, None)
        elif Path(source).name.startswith("epoch="):  # an old one goes
            parent = Path(source).parent.stat()
            seen.directories.append(parent.st_ino in seen.flushed)
        rename(source, target, **options)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "rename", noting_rename)
    return seen


def test_all_files_are_flushed_before_the_final_name_and_that_before_an_old_one_goes(disk, tmp_path) -> None:
    train(str(tmp_path / "log"), 2, str(tmp_path / "kept"), every=5)
    assert len(disk.renamed) == 8  # every 5 of 36 steps, and the end
    assert [unflushed for _, unflushed in disk.renamed if unflushed] == []
    assert len(disk.directories) == 6
    assert all(disk.directories)


def test_a_flush_that_is_left_out_would_be_seen(disk, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    train(str(tmp_path / "log"), 1, str(tmp_path / "kept"), every=9)
    assert all(unflushed for _, unflushed in disk.renamed)

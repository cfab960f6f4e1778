"""Checkpoints come back as they were, or are called damaged."""

from __future__ import annotations

import errno
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dvbench import checkpoint
from dvbench.errors import UsageError, WorkError
from dvbench.files import write_text

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(3.5, dtype=torch.float64),
    "half": torch.ones(4, dtype=torch.bfloat16),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "strided": torch.arange(12.0).reshape(3, 4).T,
}
STATE = {"limits": {"std": 0.1 + 0.2}, "n": 3, "list": [1, 2]}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "deep" / "c.safetensors"
    checkpoint.write(path, TENSORS, STATE)
    tensors, state = checkpoint.read(path)
    assert state == STATE
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert [file.name for file in path.parent.iterdir()] == ["c.safetensors"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "c.safetensors"
    checkpoint.write(path, TENSORS, STATE)
    return path


@given(st.data())
def test_any_damage_is_found(whole, tmp_path_factory, data):
    content = bytearray(whole.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("damaged") / "c.safetensors"
    path.write_bytes(content)
    try:
        tensors, state = checkpoint.read(path)
    except UsageError as error:
        assert "is damaged: delete it" in str(error)  # noqa: PT017 - some bits (of padding) change nothing
    else:
        assert state == STATE
        assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


def test_a_link_stays_one_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    link, file = tmp_path / "link", tmp_path / "there" / "file"
    link.symlink_to(file)
    for text in ("new", "newer"):
        write_text(link, text)
        assert link.is_symlink()
        assert file.read_text() == text
    assert list(file.parent.iterdir()) == [file]


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_text(path, "told")
        assert os.read(reader, 10) == b"told"
    finally:
        os.close(reader)
    assert path.is_fifo()
    with pytest.raises(UsageError, match="cannot be written"):
        write_text(tmp_path, "a directory")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    checkpoint.write(path, TENSORS, STATE)
    before = path.read_bytes()

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkError, match="no space is left"):
        checkpoint.write(path, {"a": torch.zeros(3)}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]

"""Shared by all tests: one thread, a cache of their own, and a run that memorises."""

from __future__ import annotations

import pytest
import torch

import dvbench


@pytest.fixture(scope="session", autouse=True)
def _alone(tmp_path_factory):
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def memorising(tmp_path_factory):
    """The directory of a run whose network knows nothing but the training images, and so redraws them."""
    results = tmp_path_factory.mktemp("results")
    record = dvbench.run(
        "faces", backbone="perfect", basis="identity", ladder=[32], sampler="ddim", sample_steps=50, samples=16,
        device="cpu", results=results,
    )  # fmt: skip
    return results / record.benchmark / record.run_id

"""Shared by all tests: one thread, surroundings of their own, and hypothesis without deadlines."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

# A shared machine's clock says nothing of a test; the examples are the same in each run, so that failures come back.
settings.register_profile("dvbench", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("dvbench")


@pytest.fixture(scope="session", autouse=True)
def _threads():
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _surroundings(tmp_path_factory):
    """Keep the user's cache and terminal out of the tests; datasets made by one test serve the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        patch.setenv("DVBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield

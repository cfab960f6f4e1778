"""Pages for tests: records worth a page, and the tree of what came out."""

from __future__ import annotations

from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
from records import DDPM, curve, raw, save

from dvbench.picture import contact_sheet
from dvbench.report.literature import Claim

VOID = {"meta", "link", "img", "br", "input"}
FREQUENCIES, DATA = [1.0, 2.0, 4.0, 8.0], [100.0, 10.0, 1.0, 0.1]
CLAIM = Claim(
    dataset="CIFAR-10",
    resolution=32,
    method="DDPM",
    metric="FID",
    value=3.17,
    paper="Ho et al. 2020",
    arxiv="2006.11239",
    where="table 1",
)


class Tree(HTMLParser):
    """Builds an element tree and refuses tags that do not close."""

    def __init__(self, text):
        super().__init__()
        self.builder, self.open = ET.TreeBuilder(), []
        self.feed(text)
        assert self.open == []
        self.root = self.builder.close()

    def handle_starttag(self, tag, attrs):
        self.builder.start(tag, {name: value or "" for name, value in attrs})
        if tag in VOID:
            self.builder.end(tag)
        else:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.builder.start(tag, {name: value or "" for name, value in attrs})
        self.builder.end(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.builder.end(tag)

    def handle_data(self, data):
        if self.open:
            self.builder.data(data)


def parse(text):
    return Tree(text).root


def words(element):
    return " ".join(" ".join(element.itertext()).split())


def group(comparison, run_id):
    return next(group for group in comparison.groups if run_id in group.run_ids)


def metrics(value, *, power=1.0, watched=True):
    fd = raw()["metrics"][0] | {"low": value - 2, "high": value + 3, "value": value, "interval": "jackknife"}
    recall = fd | {"name": "recall", "value": 0.5, "low": 0.4, "high": 0.6, "higher_is_better": True, "floor": None}
    spectrum = {"frequencies": FREQUENCIES, "power": [power * data for data in DATA], "reference_power": DATA}
    lsd = fd | {"name": "lsd", "detector": None, "detector_hash": None, "resize": None, "floor": None} | spectrum
    points = curve((10000, 3 * value), (30000, 2 * value)) if watched else []
    return [fd | {"curve": points}, recall, lsd]


def fill(results):
    """Save DDPM and dct with two seeds each, haar on other threads, and one run of another benchmark."""
    for seed in (0, 1):
        alike = {"seed": seed, "cost.sample_batches": [{"samples": 50, "seconds": 4.0 + seed}] * 2}
        dear = {"cost.sample_flops": 250_000_000, "cost.train_seconds": 150.0 + seed}
        save(results, **DDPM | {"run_id": f"ddpm{seed}", "metrics": metrics(40.0 + seed)} | dear | alike)
        save(results, run_id=f"dct{seed}", metrics=metrics(20.0 + seed, power=1 + seed), **alike)
    change = {"method.basis": "haar", "environment.threads": 9, "environment.git_commit": "ab" * 20}
    save(results, run_id="haar", metrics=metrics(100.0, watched=False), **change)
    save(results, benchmark="faces", run_id="face")
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    (results / "cats" / "dct0" / "samples.png").write_bytes(contact_sheet(images))
    (results / "cats" / "haar" / "samples.png").write_bytes(b"no picture")
    return results

"""The page of a comparison: one HTML file with everything in it, which asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvbench.record import Environment
from dvbench.report.columns import Column, columns, interval
from dvbench.report.figures import Figure, arrow, at_cost, during_training, hollow, spectrum
from dvbench.report.groups import Group, Run, metrics_of
from dvbench.report.names import distinct
from dvbench.report.plots import style

if TYPE_CHECKING:
    from dvbench.report.compare import Comparison
    from dvbench.report.literature import Claim
    from dvbench.report.views import View

SAMPLES = "samples.png"


@dataclass(frozen=True)
class Sheet:
    """A picture of the first samples of a group's first seed, as a data URI; None where there is none to be read."""

    group: Group
    seed: int
    source: str | None
    size: tuple[int, int] | None


@dataclass(frozen=True)
class Section:
    """All that the page tells of one benchmark.

    ``measures`` {in words, how: the metrics that were measured so}; ``plots`` {metric: its figures, of sampling and of
    training}, the main metric first; ``cautions`` are told below the table.
    """

    name: str
    at: str | None
    groups: list[Group]
    dates: list[str]
    columns: list[Column]
    cautions: list[str]
    measures: dict[str, list[str]]
    plots: dict[str, tuple[list[Figure], list[Figure]]]
    spectrum: Figure | None
    sheets: list[Sheet]

    @property
    def runs(self) -> list[Run]:
        """The runs of all groups."""
        return [run for group in self.groups for run in group.runs]


def page(comparison: Comparison, claims: Sequence[Claim]) -> str:
    """Return the page of ``comparison``, with ``claims`` apart from all that was measured.

    Equal records make an equal page.
    """
    from jinja2 import Environment as Templates
    from jinja2 import PackageLoader, StrictUndefined
    from markupsafe import Markup

    templates = Templates(
        loader=PackageLoader("dvbench", "report"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css, script = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    groups = distinct(comparison.groups)
    names = dict.fromkeys(group.benchmark for group in groups)
    sections = [_section(name, groups, comparison.view, f"section {number}") for number, name in enumerate(names)]
    return templates.get_template("page.html.jinja").render(
        sections=sections,
        claims=claims,
        notes=comparison.notes,
        environments=_environments([run for section in sections for run in section.runs]),
        style=style,
        hollow=hollow,
        interval=interval,
        cautions=cautions,
        whole=Markup,  # what is drawn here is markup already
        css=Markup(css),  # noqa: S704 - a file of this package, as is the next
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def cautions(groups: Sequence[Group]) -> list[str]:
    """Return what has to be known of the verdicts on ``groups``, each thing once."""
    told = [group.caution(label) for group in groups for label in group.verdicts]
    return list(dict.fromkeys(words for words in told if words))


def _section(name: str, groups: Sequence[Group], view: View | None, key: str) -> Section:
    own = [group for group in groups if group.benchmark == name]
    records = [run.record for group in own for run in group.runs]
    found = list(metrics_of(own))
    measures: dict[str, list[str]] = {}
    for label in found:
        measures.setdefault(_measure(own, label), []).append(f"{label} {arrow(own, label)}")
    return Section(
        name,
        None if view is None else view.said(name),
        own,
        sorted({time[:10] for record in records for time in (record.started, record.finished or record.started)}),
        columns(own, whole=view is None),
        cautions(own),
        measures,
        {label: (at_cost(own, label, key), during_training(own, label, key)) for label in found},
        spectrum(own, key),
        [_sheet(group) for group in own],
    )


def _measure(groups: Sequence[Group], label: str) -> str:
    """Say of what and against what a metric was measured; where groups differ, every way."""
    found = [metric for group in groups for metric in group.measured.get(label, [])]
    told: dict[str, list[str | None]] = {
        "{} samples": [f"{metric.n:,}" for metric in found],
        "against {}": [metric.reference for metric in found],
        "detector {}": [metric.detector for metric in found],
        "images resized {}": [metric.resize for metric in found],
        "interval of one run: {}": [metric.interval for metric in found],
    }
    parts = [(words, dict.fromkeys(value for value in values if value)) for words, values in told.items()]
    return "; ".join(words.format(" or ".join(values)) for words, values in parts if values)


def _sheet(group: Group) -> Sheet:
    """Read the picture of a group's first seed."""
    from PIL import Image

    run = min(group.runs, key=lambda run: run.record.seed)
    try:
        data = (run.directory / SAMPLES).read_bytes()
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            size = image.size
    except (OSError, Image.DecompressionBombError):
        return Sheet(group, run.record.seed, None, None)
    return Sheet(group, run.record.seed, f"data:image/png;base64,{base64.b64encode(data).decode()}", size)


def _environments(runs: Sequence[Run]) -> list[tuple[dict[str, str], str]]:
    """Return each environment that differs from the others, and how many runs of which benchmark were made in it."""
    found: dict[tuple[tuple[str, str], ...], Counter[str]] = {}
    for run in runs:
        found.setdefault(tuple(_environment(run.record.environment).items()), Counter())[run.record.benchmark] += 1
    return [
        (dict(told), ", ".join(f"{name}: {count}" for name, count in benchmarks.items()))
        for told, benchmarks in found.items()
    ]


def _environment(environment: Environment) -> dict[str, str]:
    commit = (environment.git_commit or "")[:12]
    plugins = [f"{name} {version}" for name, version in environment.plugins.items() if name != "dvbench"]
    return {
        "device": " ".join(part for part in (environment.device, environment.device_name) if part),
        "threads": str(environment.threads or ""),
        "precision": environment.precision,
        "dvbench": environment.dvbench,
        "commit": f"{commit} (changed)" if environment.git_dirty else commit,
        "plugins": ", ".join(plugins),
        "PyTorch": environment.torch,
        "Python": environment.python,
        "platform": environment.platform,
    }

"""What metrics are called in tables, and in which order they stand there."""

from __future__ import annotations

from dvbench.record import Metric, Record

NAMES = {
    "fid": "FID",
    "fd": "FD",
    "fid_inf": "FID∞",
    "fd_inf": "FD∞",
    "kid": "KID",
    "precision": "precision",
    "recall": "recall",
    "lsd": "LSD",
}
MAIN = ("fid", "fd", "kid")  # what a table shows where nobody says what it should
_FRECHET = {"fid": "fd", "fid_inf": "fd_inf"}  # FID is the distance of one detector only
_UNITS = {"lsd": "dB"}


def label(metric: Metric) -> str:
    """Name a metric with its detector; "FID" alone is the distance of one detector only, to held-out images."""
    detector = (metric.detector or "").partition(" ")[0]  # its version follows
    about = [part for part in (_UNITS.get(metric.name), detector, metric.split) if part and part != "held-out"]
    name = metric.name
    if name in _FRECHET:
        if about == ["inception"]:
            return NAMES[name]
        name = name if detector == "inception" else _FRECHET[name]
    shown = NAMES.get(name, name)
    return f"{shown} ({', '.join(about)})" if about else shown


def labelled(record: Record) -> dict[str, Metric]:
    """Return the metrics of ``record`` by label; the first of each, should one be there against two references."""
    return {label(metric): metric for metric in reversed(record.metrics)}


def rank(metric: Metric) -> tuple[int, str]:
    """Return what sorts metrics: FID and FD first, those that nobody has heard of last."""
    names = list(NAMES)
    return names.index(metric.name) if metric.name in names else len(names), label(metric)


def is_ddpm(record: Record) -> bool:
    """Whether the run never changed the dimensionality."""
    return record.method.basis in {"identity", "dvbench:identity"}


def method(record: Record) -> str:
    """Return what people call the method: DDPM, or the basis with its ladder."""
    return "DDPM" if is_ddpm(record) else f"{record.method.basis} {'-'.join(map(str, record.method.ladder))}"

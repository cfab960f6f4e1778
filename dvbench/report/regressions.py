"""What has become worse than what it is held against, by more than the noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dvbench.report.table import significant

if TYPE_CHECKING:
    from dvbench.report.compare import Comparison
    from dvbench.report.groups import Group


def regressions(comparison: Comparison) -> list[str]:
    """Return a sentence for each metric and cost in which a group is worse than its baseline.

    Quality counts where the verdict is "worse"; FLOPs are exact; a clock counts where its whole interval, over several
    runs, is on the slower side.
    """
    return [
        f"{_named(group)} {told} {group.against.name} ({group.against.run_ids[0]}): {figures}"
        for group in comparison.groups
        if group.against is not None and group.why_not is None
        for told, figures in _worse(group)
    ]


def unjudged(comparison: Comparison) -> Iterator[str]:
    """Yield a sentence for each group that could not be found worse, whatever it is, and why."""
    for group in comparison.groups:
        if group.why_not:
            yield f"{_named(group)} is not compared: {group.why_not}"
        elif reasons := dict.fromkeys(reason for label in group.verdicts if (reason := group.caution(label))):
            yield f"{_named(group)} is not judged in quality: {'; '.join(reasons)}"


def _named(group: Group) -> str:
    return f"{group.benchmark}: {group.name} ({', '.join(group.run_ids)})"


def _worse(group: Group) -> Iterator[tuple[str, str]]:
    for label, verdict in group.verdicts.items():
        if verdict.says == "worse":
            found = verdict.difference
            low, high = (significant(end, 4) for end in (found.low, found.high))
            yield (
                f"is worse in {label} than",
                f"by {significant(found.value, 4)} ({low} to {high}, over {verdict.over})",
            )
    flops, clock = group.ratios["sample_flops"], group.ratios["sample_seconds"]
    if flops is not None and flops.value < 1:
        yield "needs more FLOPs a sample than", f"{significant(1 / flops.value, 4)} times as many"
    if clock is not None and clock.high is not None and clock.high < 1:
        yield "samples more slowly than", f"{significant(1 / clock.value, 4)} times as long"

"""What papers claim: figures that nobody measured here, and where each stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dvbench.errors import UsageError
from dvbench.report.table import Section


class Claim(BaseModel):
    """A figure that a paper claims of a method."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    dataset: str = Field(min_length=1)
    resolution: int = Field(ge=1, description="side of the images in pixels")
    method: str = Field(min_length=1)
    metric: str = Field(min_length=1)
    value: float
    paper: str = Field(min_length=1, description="authors and year")
    arxiv: str = Field(pattern=r"^\d{4}\.\d{4,5}$")
    where: str = Field(min_length=1, description="place in the paper")


def literature_file() -> Path:
    """Return where the claims lie: inside an installed package, or among the results of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "literature.yaml"
    return installed if installed.is_file() else package.parent / "results" / "literature.yaml"


def read(path: Path | None = None) -> list[Claim]:
    """Read the claims that come with dvbench, or those at ``path``; UsageError for a file that is none of claims."""
    path = path or literature_file()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return TypeAdapter(list[Claim]).validate_python(content)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}): restore it") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise UsageError(f"{path} holds no valid claims ({place}: {first['msg'].lower()}): mend it") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no valid YAML ({' '.join(str(error).split())}): mend it") from error


def section(claims: Sequence[Claim]) -> Section:
    """Return the claims as a table."""
    rows = [
        {
            "Method": claim.method,
            "dataset": f"{claim.dataset}, {claim.resolution} px",
            "paper": f"{claim.paper}\narXiv:{claim.arxiv}, {claim.where}",
            "metric": claim.metric,
            "claimed": f"{claim.value:g}",
        }
        for claim in claims
    ]
    return Section("claimed in papers, not measured here", pd.DataFrame(rows), texts=4)

"""What papers claim is told with its source, and apart from what was measured."""

import re
from collections import Counter

import pytest
from click.testing import CliRunner
from records import DDPM, save

from dvbench.cli.compare import compare as command
from dvbench.errors import UsageError
from dvbench.report import literature
from dvbench.report.literature import Claim, literature_file, read

ENTRY = {
    "dataset": "FFHQ",
    "resolution": "1024",
    "method": "DVDP",
    "metric": "FID",
    "value": "10.46",
    "paper": "Zhang et al. 2023",
    "arxiv": '"2211.16032"',
    "where": "abstract",
}


def written(path, **changes):
    entry = {key: value for key, value in (ENTRY | changes).items() if value is not None}
    path.write_text("- {" + ", ".join(f"{key}: {value}" for key, value in entry.items()) + "}\n")
    return path


def test_the_claims_that_come_with_dvbench_are_valid_and_each_stands_once():
    claims = read()
    assert claims
    places = Counter((claim.arxiv, claim.where, claim.dataset, claim.resolution, claim.method) for claim in claims)
    assert max(places.values()) == 1
    assert {claim.value for claim in claims if claim.arxiv == "2211.16032"} == {52.40, 10.46}


def test_a_claim_is_read_as_it_is_written(tmp_path):
    (claim,) = read(written(tmp_path / "claims.yaml"))
    expected = {"dataset": "FFHQ", "resolution": 1024, "method": "DVDP", "metric": "FID", "value": 10.46}
    expected |= {"paper": "Zhang et al. 2023", "arxiv": "2211.16032", "where": "abstract"}
    assert claim.model_dump() == expected


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"where": None}, "0.where"),
        ({"where": '""'}, "0.where"),
        ({"value": "low"}, "0.value"),
        ({"value": ".nan"}, "0.value"),
        ({"arxiv": "2211.16032"}, "0.arxiv"),  # a number
        ({"arxiv": '"16032"'}, "0.arxiv"),
        ({"resolution": "0"}, "0.resolution"),
        ({"more": "1"}, "0.more"),
    ],
)
def test_a_claim_without_its_source_or_with_a_wrong_value_is_refused_and_placed(tmp_path, changes, place):
    path = written(tmp_path / "claims.yaml", **changes)
    with pytest.raises(UsageError, match=rf"{re.escape(str(path))} holds no valid claims \({re.escape(place)}: "):
        read(path)


@pytest.mark.parametrize(("content", "told"), [("- {", "no valid YAML"), ("claims", "the whole"), (None, "read")])
def test_a_damaged_file_is_one_sentence(tmp_path, content, told):
    path = tmp_path / "claims.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=told) as error:
        read(path)
    assert "\n" not in str(error.value)


def test_the_file_is_found_inside_an_installed_package_and_in_a_checkout(tmp_path, monkeypatch):
    assert literature_file().is_file()
    module = tmp_path / "dvbench" / "report" / "literature.py"
    monkeypatch.setattr(literature, "__file__", str(module))
    assert literature_file() == tmp_path / "results" / "literature.yaml"
    module.parent.mkdir(parents=True)
    (tmp_path / "dvbench" / "literature.yaml").write_text("[]")
    assert literature_file() == tmp_path / "dvbench" / "literature.yaml"


@pytest.mark.parametrize("style", ["table", "markdown", "latex", "csv"])
def test_claims_stand_below_what_was_measured_and_are_called_claims(tmp_path, style):
    save(tmp_path, **DDPM)
    arguments = ["--results", str(tmp_path), "--format", style]
    without = CliRunner().invoke(command, arguments).stdout
    shown = CliRunner().invoke(command, [*arguments, "--literature"]).stdout
    assert "claimed" not in without
    measured, _, claimed = shown.partition("claimed in papers, not measured here" if style != "csv" else "\nclaimed,")
    assert "real against real" in measured or style == "csv"
    for claim in read():
        assert f"{claim.value:g}" in claimed
        assert claim.arxiv in claimed
    assert "DVDP" not in measured


def test_claims_are_frozen():
    (claim, *_) = read()
    with pytest.raises(ValueError, match="frozen"):
        claim.value = 1.0
    assert isinstance(claim, Claim)

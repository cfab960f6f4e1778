"""Sets tables for a terminal, in Markdown, in LaTeX, and as CSV."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from dvbench.report.literature import Claim, section
from dvbench.report.table import Section, sections

if TYPE_CHECKING:
    from dvbench.report.compare import Comparison

WIDTH = 120  # columns of a file, which has no edge to wrap at
GAP = 2  # spaces between columns in a terminal
MARKDOWN = re.compile(r"([\\`*_\[\]<|~&$])")  # what GitHub's dialect would take for more than a character
LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "#$%&_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        **{character: f"{{{character}}}" for character in "[]*"},  # after a line's end they would be an option of it
        "↓": r"$\downarrow$",
        "↑": r"$\uparrow$",
        "±": r"$\pm$",
        "∞": r"$\infty$",
        "×": r"$\times$",  # noqa: RUF001
        "–": r"\textendash{}",  # noqa: RUF001
        "…": r"\ldots{}",
    }
)


def render(style: str, comparison: Comparison, claims: Sequence[Claim], metrics: str | None) -> str:
    """Return the comparison in ``style``, with ``claims`` apart; ``metrics`` are the columns of tables."""
    if style == "json":
        return json.dumps(comparison.to_json(), indent=1, allow_nan=False) + "\n"
    if style == "csv":
        return csv(comparison, claims)
    if style == "html":
        from dvbench.report.html import page

        return page(comparison, claims)
    shown = everything(comparison, claims, metrics)
    return {"markdown": markdown, "latex": latex, "table": plain}[style](shown)


def everything(comparison: Comparison, claims: Sequence[Claim], metrics: str | None) -> list[Section]:
    """Return the tables of what was measured, and below them that of the claims."""
    return [*sections(comparison, metrics), *([section(claims)] if claims else [])]


def plain(tables: Sequence[Section]) -> str:
    """Return the tables as a terminal without colours shows them."""
    file = io.StringIO()
    Console(file=file, width=WIDTH).print(terminal(tables, WIDTH))
    return file.getvalue()


def terminal(tables: Sequence[Section], width: int) -> Group:
    """Return one table below the other for rich to print, none wider than ``width`` but for a single column."""
    parts: list[RenderableType] = []
    for table in tables:
        for part in _fitting(table, width):
            parts += [_table(part)] if part.title else ["", _table(part)]
        parts += [*map(Text, table.notes), ""]
    return Group(*parts)


def markdown(tables: Sequence[Section]) -> str:
    """Return the tables as GitHub's Markdown shows them."""
    return "\n\n".join(_markdown(table) for table in tables) + "\n"


def latex(tables: Sequence[Section]) -> str:
    r"""Return a table environment for each section; the document has to say ``\usepackage{booktabs}``."""
    return "\n\n".join(_latex(table) for table in tables) + "\n"


def csv(comparison: Comparison, claims: Sequence[Claim]) -> str:
    """Return raw values, a row for each group; claims stand below, in columns of their own."""
    measured = comparison.frame.assign(source="measured")
    told = (
        pd.DataFrame([claim.model_dump() for claim in claims], dtype=object)
        .add_prefix("claimed ")
        .assign(source="claimed")
    )
    frame = pd.concat([measured.astype(object), told]) if claims else measured
    return str(frame.set_index("source").to_csv(lineterminator="\n"))


def _fitting(held: Section, width: int) -> Iterator[Section]:
    """Yield ``held``, in parts where it is too wide: the words stand in each, the figures go on from part to part."""
    columns = [(head, *held.rows[head]) for head in held.rows.columns]
    widths = [GAP + max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]
    words = list(range(held.texts))
    shown: list[int] = []
    for number in range(held.texts, len(columns)):
        if shown and sum(widths[each] for each in (*words, *shown, number)) - GAP > width:
            yield _part(held, words, shown)
            held, shown = replace(held, title=""), []
        shown.append(number)
    yield _part(held, words, shown)


def _part(held: Section, words: list[int], shown: list[int]) -> Section:
    """Return those columns of ``held``, without rows that have no figure there."""
    there = (held.rows.iloc[:, shown] != "").any(axis=1)
    rows = held.rows.iloc[:, [*words, *shown]][there]
    return replace(held, rows=rows, ruled=int(there[: held.ruled].sum()))


def _table(held: Section) -> Table:
    table = Table(title=Text(held.title, "bold"), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.padding = (0, GAP - 1, 0, 0)  # the box brings the other space
    for number, head in enumerate(held.rows.columns):
        words = number < held.texts
        table.add_column(Text(head), justify="left" if words else "right", no_wrap=not words, overflow="fold")
    for number, row in enumerate(_rows(held)):
        dim = "dim" if number < held.ruled else ""
        cells = [Text(cell, dim) for cell in row]
        first, newline, rest = row[0].partition("\n")
        cells[0] = Text.assemble((first, dim), (newline + rest, "dim"))
        table.add_row(*cells, end_section=number + 1 == held.ruled)
    return table


def _rows(held: Section) -> list[list[str]]:
    return [list(map(str, row)) for row in held.rows.itertuples(index=False)]


def _markdown(held: Section) -> str:
    lines = [[_marked(head, " ") for head in held.rows.columns]]
    lines.append([":--" if number < held.texts else "--:" for number in range(len(lines[0]))])
    lines += [[_marked(cell, "<br>") for cell in row] for row in _rows(held)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([f"**{_marked(held.title, ' ')}**", table, *(_marked(note, " ") for note in held.notes)])


def _marked(text: str, newline: str) -> str:
    return MARKDOWN.sub(r"\\\1", text).replace("\n", newline)


def _latex(held: Section) -> str:
    rows = _rows(held)
    sides = ["l" if number < held.texts else "r" for number in range(len(held.rows.columns))]
    ruled = {held.ruled} - {0, len(rows)}
    lines = [_line(held.rows.columns, sides), r"\midrule"]
    for number, row in enumerate(rows):
        lines += [r"\midrule"] * (number in ruled) + [_line(row, sides)]
    return "\n".join([
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escaped(held.title)}}}",
        rf"\begin{{tabular}}{{{''.join(sides)}}}",
        r"\toprule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip\footnotesize {_escaped(note)}" for note in held.notes),
        r"\end{table}",
    ])  # fmt: skip


def _line(cells: Iterable[str], sides: Sequence[str]) -> str:
    return " & ".join(_stacked(cell, side) for cell, side in zip(cells, sides, strict=True)) + r" \\"


def _stacked(cell: str, side: str) -> str:
    """Return a cell's text, its lines one below the other."""
    lines = [_escaped(line) for line in cell.split("\n")]
    stack = r" \\ ".join(lines)
    return stack if len(lines) == 1 else rf"\begin{{tabular}}[t]{{@{{}}{side}@{{}}}}{stack}\end{{tabular}}"


def _escaped(text: str) -> str:
    return re.sub("-(?=-)", "-{}", text.translate(LATEX))  # LaTeX would join two hyphens to a dash

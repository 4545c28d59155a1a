"""The table of an ablation for people: terminal text, Markdown, a page with a figure, and the files of all of them.

<LANDSLIDE_HOME>/reports/ablation/<name>/table.csv    every figure, see `landslide.ablation.table.ablation_table`
                                         table.txt    for terminals
                                         table.md
                                         table.html   with the figure in it
                                         figure.png
                                         curves.png   our learning curves over published ones, if there are any
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tabulate import tabulate

from landslide.ablation.record import SCORES as RECORDED_SCORES
from landslide.ablation.table import SCORES, AblationRow
from landslide.files import atomic_write

_HEADINGS = {"f1_macro": "F1", "miou": "mIoU", "f1_landslide": "landslide F1"}
_VARIANTS = {
    "_head_average": ("mean of the heads", ["f1_macro"]),
    "_tta": ("mean of the turned patches", ["f1_macro"]),
    "_in_scene": ("in scene", ["f1_macro", "f1_landslide"]),
}
_ABSENT = "-"
_OURS, _PUBLISHED = "#1f6f8b", "#c8553d"
_STYLE = """body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3em .7em; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
div { overflow-x: auto; }
img { max-width: 100%; }"""


def render_text(table: pd.DataFrame, name: str, reference: str) -> str:
    """Return the table for a terminal.

    Args:
        table: What `landslide.ablation.table.ablation_table` returned.
        name: Name of the table.
        reference: Where the published figures come from.
    """
    drawn = _drawn(_cells(table, reference), "simple")
    return "\n".join([f"{name}: {_protocol(table)}", "", drawn, "", *_notes(table, reference)])


def render_markdown(table: pd.DataFrame, name: str, reference: str) -> str:
    """Return the table as Markdown; arguments as for `render_text`."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in _cells(table, reference)]
    notes = [line for note in _notes(table, reference) for line in ("", note)]
    return "\n".join([f"# {name}", "", f"{_protocol(table).capitalize()}.", "", _drawn(cells, "pipe"), *notes, ""])


def render_html(table: pd.DataFrame, name: str, reference: str, figures: Mapping[str, bytes]) -> str:
    """Return the table and figures (PNG, by what they show) as one page without other files; else as `render_text`."""
    heading, *rows = _cells(table, reference)
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    images = {shown: base64.b64encode(figure).decode() for shown, figure in figures.items()}
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(name)}</title>',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{html.escape(name)}</h1>",
            f"<p>{html.escape(_protocol(table).capitalize())}.</p>",
            "<div><table><thead><tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in heading) + "</tr></thead>",
            "<tbody>" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</tbody></table></div>",
            *(f"<p>{html.escape(note)}</p>" for note in _notes(table, reference)),
            *(f'<p><img alt="{shown}" src="data:image/png;base64,{image}"></p>' for shown, image in images.items()),
            "</body></html>",
            "",
        ]
    )


def ablation_figure(table: pd.DataFrame, name: str, reference: str) -> Figure:
    """Draw macro F1 and mIoU of every row: our score with its interval, and the published figure.

    Args:
        table: What `landslide.ablation.table.ablation_table` returned.
        name: Name of the table.
        reference: Where the published figures come from.
    """
    figure = Figure(figsize=(10, 1.6 + 0.42 * len(table)), layout="constrained")
    position = np.arange(len(table))
    axes = figure.subplots(1, 2, sharey=True)
    for axis, score in zip(axes, ("f1_macro", "miou"), strict=True):
        value = table[score].to_numpy(float)
        ends = table[[f"{score}_low", f"{score}_high"]].to_numpy(float)
        axis.hlines(position, ends[:, 0], ends[:, 1], color=_OURS, linewidth=2)
        axis.plot(value, position, "o", color=_OURS, label="ours, with 95 % interval")
        published = table[f"paper_{score}"].to_numpy(float)
        axis.plot(published, position, "D", color=_PUBLISHED, fillstyle="none", label=reference)
        axis.set_xlabel(f"{_HEADINGS[score]}, %")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(position, table["row"])
    axes[0].set_ylim(len(table) - 0.5, -0.5)
    figure.suptitle(name, fontsize=11)
    handles, labels = axes[0].get_legend_handles_labels()
    shown = 2 if table[["paper_f1_macro", "paper_miou"]].notna().any(axis=None) else 1
    figure.legend(handles[:shown], labels[:shown], loc="outside lower center", ncols=2, frameon=False)
    return figure


def recorded_curves_figure(rows: Sequence[AblationRow], reference: str) -> Figure | None:
    """Draw the test scores of our trainings by epoch over those of published trainings.

    Args:
        rows: The rows of the table.
        reference: Where the published figures come from.

    Returns:
        One line of panels, F1 and mIoU, for every fold of a row of which both are known; None if there is none.
    """
    panels = [
        (row, fold, [one.tests[fold] for one in row.finished if one.tests.get(fold)])
        for row in rows
        for fold in sorted(row.recorded)
    ]
    panels = [panel for panel in panels if panel[2]]
    if not panels:
        return None
    figure = Figure(figsize=(10, 0.6 + 2.6 * len(panels)), layout="constrained")
    for line, (row, fold, trainings) in zip(
        figure.subplots(len(panels), 2, sharex=True, squeeze=False), panels, strict=True
    ):
        published = np.array(row.recorded[fold])
        for column, (axis, score) in enumerate(zip(line, RECORDED_SCORES, strict=True), start=1):
            axis.plot(published[:, 0], 100 * published[:, column], ".-", color=_PUBLISHED, label=reference)
            for number, tests in enumerate(trainings):
                epochs, values = [test["epoch"] for test in tests], [100 * test[score] for test in tests]
                axis.plot(epochs, values, ".-", color=_OURS, label=None if number else "ours")
            axis.set(title=f"{row.name}, fold {fold}", ylabel=f"{_HEADINGS[score]}, %")
            axis.grid(alpha=0.3)
        line[0].legend(frameon=False)
    for axis in figure.axes[-2:]:
        axis.set_xlabel("epoch")
    return figure


def report_files(table: pd.DataFrame, name: str, reference: str, *, curves: Figure | None = None) -> dict[str, bytes]:
    """Return all files of the report by name; arguments as for `render_text`, and a figure of learning curves."""
    figures = {"figure.png": ("scores with their intervals", ablation_figure(table, name, reference))}
    if curves is not None:
        figures["curves.png"] = ("learning curves", curves)
    drawn = {file: (shown, _png(figure)) for file, (shown, figure) in figures.items()}
    texts = {
        "table.csv": table.to_csv(index=False),
        "table.txt": render_text(table, name, reference) + "\n",
        "table.md": render_markdown(table, name, reference),
        "table.html": render_html(table, name, reference, dict(drawn.values())),
    }
    return {
        **{file: text.encode() for file, text in texts.items()},
        **{file: content for file, (_, content) in drawn.items()},
    }


def _png(figure: Figure) -> bytes:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120)
    return drawn.getvalue()


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files atomically to a folder, which is created if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(content)


def _drawn(cells: list[list[str]], style: str) -> str:
    """Draw a table in a style of tabulate: headings, then rows; numbers are at the right of their columns."""
    heading, *rows = cells
    alignment = ["left", *["right"] * (len(heading) - 1)]
    return str(tabulate(rows, heading, tablefmt=style, colalign=alignment, disable_numparse=True))


def _cells(table: pd.DataFrame, reference: str) -> list[list[str]]:
    """Return the cells as text: the headings, then a list a row."""
    columns: dict[str, list[str]] = {"row": [str(name) for name in table["row"]]}
    one_protocol = len(table[["scheme", "folds", "selection"]].drop_duplicates()) == 1
    if not one_protocol:
        columns["protocol"] = [_protocol(table.iloc[[i]]) for i in range(len(table))]
    for score, heading in _HEADINGS.items():
        columns[f"{heading} [95 %]"] = [
            f"{_number(row[score])} {_interval(row, score)}".strip() for _, row in table.iterrows()
        ]
        if (spread := table[f"{score}_spread"]).notna().any():
            columns[f"{heading} ±"] = [_number(value) for value in spread]
        if table[f"paper_{score}"].notna().any():
            columns[f"{heading}, {reference}"] = [_number(value) for value in table[f"paper_{score}"]]
            columns[f"{heading} difference"] = [_number(value, "+.2f") for value in table[f"{score}_minus_paper"]]
    for variant, (heading, shown) in _VARIANTS.items():
        for score in shown:
            if (scores := table[f"{score}{variant}"]).notna().any():
                columns[f"{_HEADINGS[score]}, {heading}"] = [_number(value) for value in scores]
    if len(table) > 1:
        columns["F1 over first row [95 %]"] = [
            f"{_number(row['f1_macro_gain'], '+.2f')} {_interval(row, 'f1_macro_gain', '+.2f')}".strip()
            for _, row in table.iterrows()
        ]
    columns["parameters, M"] = [f"{value / 1e6:.2f}" for value in table["parameters"]]
    if table["paper_parameters"].notna().any():
        columns[f"parameters, {reference}"] = [_number(value, ".1f") for value in table["paper_parameters"]]
    columns["GFLOP"] = [_number(value, ".1f") for value in table["gflop"]]
    columns["training"] = [_duration(value) for value in table["seconds"]]
    return [list(columns), *map(list, zip(*columns.values(), strict=True))]


def _protocol(table: pd.DataFrame) -> str:
    """Say how the rows were split and selected, as far as they agree."""
    if len(table[["scheme", "folds", "selection"]].drop_duplicates()) > 1:
        return "rows of different protocols"
    scheme, folds, selection = table[["scheme", "folds", "selection"]].iloc[0]
    *others, last = (fold.strip() for fold in folds.split(","))
    scored = "all folds" if folds == "all" else f"folds {', '.join(others)} and {last}" if others else f"fold {last}"
    chosen = {"test_fold": "the test fold itself", "inner_validation": "inner validation"}.get(selection, "?")
    return f"{scheme} folds, {scored} scored, epoch chosen on {chosen}"


def _notes(table: pd.DataFrame, reference: str) -> list[str]:
    notes = [
        "Scores in percent at threshold 0.5, means over the scored folds; F1 and mIoU are means over both classes. "
        "Intervals: block bootstrap, over the seeds as well if there are several; ± is the standard deviation over "
        "the seeds."
    ]
    if table[[f"paper_{score}" for score in SCORES]].notna().any(axis=None):
        notes.append(f"Published figures: {reference}.")
    return notes + [f"FAILED {row['row']}: {row['failure']}" for _, row in table.iterrows() if row["failure"]]


def _interval(row: pd.Series, prefix: str, form: str = ".2f") -> str:
    low, high = row[f"{prefix}_low"], row[f"{prefix}_high"]
    return "" if np.isnan(low) else f"[{low:{form}}, {high:{form}}]"


def _number(value: float, form: str = ".2f") -> str:
    return _ABSENT if np.isnan(value) else f"{value:{form}}"


def _duration(seconds: float) -> str:
    if np.isnan(seconds):
        return _ABSENT
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 3600:.2f} h"

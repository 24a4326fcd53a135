"""The table of a comparison in the terminal: checkpoints, then the filters that changed most."""

from collections.abc import Iterable
from math import isnan

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kernelviz_callback.comparison.comparison import Column, Comparison
from kernelviz_callback.filters.words import describe_filters
from kernelviz_callback.health.verdict_names import VERDICT_COLOURS, VERDICT_NAMES, VerdictName

_NONE = "-"
# Characters of a label, and of verdicts, that stay on one line if the terminal is narrow.
_LABEL_WIDTH = 26
_VERDICT_WIDTH = 14


def comparison_table(comparison: Comparison, *, most: int = 12) -> RenderableType:
    """Make the table of a comparison for the terminal.

    Args:
        comparison: The comparison.
        most: Number of filters to list, those that changed most first.
    """
    first = comparison.first
    title = Text(f"{first.layer}: {describe_filters(first.shape)}", style="bold")
    statements = [Padding(Text(s), (0, 0, 0, 2)) for s in comparison.statements]
    return Group(
        title, *statements, _checkpoints(comparison), *_most_changed_filters(comparison, most)
    )


def _checkpoints(comparison: Comparison) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    longest = max(len(column.label) for column in comparison.columns)
    table.add_column("checkpoint", overflow="fold", min_width=min(longest, _LABEL_WIDTH))
    for heading in ("step", "drift", "cosine", "correlation"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdicts", overflow="fold", min_width=_VERDICT_WIDTH)
    for column in comparison.columns:
        numbers = comparison.numbers(column)
        table.add_row(
            Text(column.label),
            _NONE if column.step is None else f"{column.step:,}",
            *(_number(numbers[n]) for n in ("drift", "mean_cosine", "mean_correlation")),
            _verdict_counts(column),
        )
    return table


def _most_changed_filters(comparison: Comparison, most: int) -> Iterable[RenderableType]:
    order = comparison.most_changed()[:most]
    last = comparison.last
    if not order:
        return
    heading = f"the {len(order)} that changed most in {last.label}"
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=None)
    same = all(int(p) == i for i, p in enumerate(last.partner.tolist()))
    headings = ["filter", *([] if same else ["partner"]), "change", "cosine", "correlation"]
    for name in headings:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdicts that came (+), went (-) or stayed", overflow="fold")
    new, gone, now = comparison.new_verdicts(), comparison.gone_verdicts(), last.verdicts()
    for i in order:
        partner = int(last.partner[i])
        row = [str(i)] + ([] if same else [_NONE if partner < 0 else str(partner)])
        row += [
            _number(values[i].item())
            for values in (last.change_from_first, last.cosine_to_first, last.correlation)
        ]
        table.add_row(
            *row,
            Text(" ").join(
                [_verdict(n, "+") for n in sorted(new[i])]
                + [_verdict(n, "-") for n in sorted(gone[i])]
                + [_verdict(n, "") for n in sorted(now[i] - new[i])]
            ),
        )
    yield Text()
    yield Text(heading, style="bold")
    yield table


def _verdict_counts(column: Column) -> Text:
    counted = [(name, len(column.health.flagged(name))) for name in VERDICT_NAMES]
    texts = [Text(f"{n} {name}", style=_style(name)) for name, n in counted if n]
    return Text(", ").join(texts) if texts else Text(_NONE)


def _verdict(name: VerdictName, sign: str) -> Text:
    return Text(f"{sign}{name}", style=_style(name))


def _style(name: VerdictName) -> str:
    red, green, blue = VERDICT_COLOURS[name]
    return f"rgb({red},{green},{blue})"


def _number(value: float) -> str:
    return _NONE if isnan(value) else f"{value:.3g}"

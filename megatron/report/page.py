"""The report as one HTML page that needs nothing else: styles inline, figures as base64, every text
escaped."""

import base64
from collections.abc import Iterable
from html import escape
from string import Template
from typing import NamedTuple

from megatron.report.figures import colour_of

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
$style
</style>
</head>
<body>
<main>
<h1>$title</h1>
$body
</main>
</body>
</html>
""")

# In dark mode the figures are inverted and their hues turned back, so that one PNG serves both.
STYLE = """\
:root {
  color-scheme: light dark;
  --ink: #1f2328; --faint: #59636e; --line: #d9dee3; --page: #ffffff; --panel: #f4f6f8; --figure: none;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e9ec; --faint: #9aa4ae; --line: #343a41; --page: #121212; --panel: #1b1f24;
    --figure: invert(0.93) hue-rotate(180deg);
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 72rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.01em; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 0.75rem; padding-top: 0.75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 0.5rem; }
p { max-width: 46rem; margin: 0 0 0.75rem; overflow-wrap: anywhere; }
.reading { max-width: 46rem; margin: 1.25rem 0; padding: 0.9rem 1.1rem; }
.reading, pre { background: var(--panel); border-left: 4px solid var(--line); border-radius: 4px; }
.reading p:last-child { margin: 0; color: var(--faint); }
.note { color: var(--faint); font-size: 0.9rem; }
.scroll { overflow-x: auto; margin: 0 0 1rem; }
table { border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td {
  padding: 0.38rem 1.4rem 0.38rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line);
}
thead th {
  border-bottom: 2px solid var(--line); min-width: 6.5rem; max-width: 14rem; overflow-wrap: anywhere;
}
tbody th { font-weight: 500; color: var(--faint); }
td small { display: block; color: var(--faint); }
.run::before {
  content: ""; display: inline-block; width: 0.7em; height: 0.7em; margin-right: 0.45em; border-radius: 50%;
}
.run::before { background: var(--run); filter: var(--figure); }
.charts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 1.25rem 1.75rem;
}
.charts + * { margin-top: 1.25rem; }
figure { margin: 0; }
img { display: block; width: 100%; height: auto; filter: var(--figure); }
pre {
  margin: 0 0 1rem; padding: 1rem 1.1rem; font-size: 0.85rem; white-space: pre-wrap; overflow-wrap: anywhere;
}
@media print { h2, figure, tr { break-inside: avoid; } }"""


class Section(NamedTuple):
    """A heading, and HTML made by the functions below."""

    heading: str
    body: str


def page(title: str, opening: str, sections: Iterable[Section]) -> str:
    """The whole page; sections without a body are left out."""
    parts = [
        opening,
        *(f"<section>\n<h2>{escape(heading)}</h2>\n{body}\n</section>" for heading, body in sections if body),
    ]
    return PAGE.substitute(title=escape(title), style=STYLE, body="\n".join(parts))


def paragraphs(lines: Iterable[str], kind: str = "") -> str:
    """One paragraph a line of text, of the CSS class `kind`."""
    attribute = f' class="{kind}"' if kind else ""
    return "\n".join(f"<p{attribute}>{escape(line)}</p>" for line in lines)


def box(lines: Iterable[str]) -> str:
    """Paragraphs that stand out."""
    return f'<div class="reading">\n{paragraphs(lines)}\n</div>'


def table(corner: str, names: Iterable[str], rows: Iterable[Iterable[str]], *, coloured: bool = True) -> str:
    """A table whose rows start with their heading. `coloured`: the columns are runs and carry their
    colours. What follows a line break in a cell is set small."""
    heads = "".join(
        f'<th scope="col"{_colour(i) if coloured else ""}>{escape(name)}</th>' for i, name in enumerate(names)
    )
    lines = "\n".join(_row(*row) for row in rows)
    head = f'<thead>\n<tr><th scope="col">{escape(corner)}</th>{heads}</tr>\n</thead>'
    return f'<div class="scroll">\n<table>\n{head}\n<tbody>\n{lines}\n</tbody>\n</table>\n</div>'


def _colour(index: int) -> str:
    return f' class="run" style="--run: {colour_of(index)}"'


def _row(heading: str, *cells: str) -> str:
    return (
        f'<tr><th scope="row">{escape(heading)}</th>'
        + "".join(f"<td>{_cell(cell)}</td>" for cell in cells)
        + "</tr>"
    )


def _cell(text: str) -> str:
    value, _, detail = text.partition("\n")
    return escape(value) + (f"<small>{escape(detail)}</small>" if detail else "")


def charts(images: Iterable[tuple[str, bytes]]) -> str:
    """Figures side by side, or below each other where there is no room. An image is its description and
    its PNG bytes."""
    encoded = [(escape(words), base64.b64encode(data).decode()) for words, data in images]
    figures = "\n".join(
        f'<figure><img alt="{words}" src="data:image/png;base64,{data}"></figure>' for words, data in encoded
    )
    return f'<div class="charts">\n{figures}\n</div>' if figures else ""


def sample(name: str, text: str) -> str:
    """Generated text as it is."""
    return f"<h3>{escape(name)}</h3>\n<pre>{escape(text)}</pre>"

"""One HTML file that needs nothing else: tables and pictures, for a telephone too and without a network."""

import base64
import html

from ctx_flax.files import printable

# No script, nothing from elsewhere: a browser refuses what this forgot.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 68rem;
  margin: 0 auto; padding: 0 1rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 1.5rem 0 0.25rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 0.5rem; border-top: 1px solid #ccc; padding-top: 1rem; }
nav a { display: inline-block; margin-right: 1rem; padding: 0.25rem 0; color: #0050a0; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; display: block; }
figure .wide img { min-width: 36rem; }
figcaption { color: #444; font-size: 0.9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.75rem 0; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.75rem 0.25rem 0;
  border-bottom: 1px solid #ddd; overflow-wrap: normal; min-width: 4.5rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
summary { cursor: pointer; padding: 0.5rem 0; }
"""


def page(title, intro, sections):
  """The HTML of a whole page.

  Args:
    title: text.
    intro: text below the title.
    sections: [(id, heading, HTML), ...].
  """
  links = ''.join(f'<a href="#{name}">{escaped(heading)}</a>' for name, heading, _ in sections)
  parts = ''.join(
    f'<section id="{name}"><h2>{escaped(heading)}</h2>\n{content}</section>\n'
    for name, heading, content in sections
  )
  return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escaped(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escaped(title)}</h1>
{paragraph(intro)}<nav>{links}</nav>
{parts}</body>
</html>
"""


def paragraph(text):
  return f'<p>{escaped(text)}</p>\n'


def table(columns, rows):
  """A table of texts and numbers; numbers stand at the right, and cells of `Markup` are taken as they are."""
  numeric = [all(isinstance(row[i], int | float) for row in rows) and bool(rows) for i in range(len(columns))]
  attribute = lambda i: ' class="number"' if numeric[i] else ''
  head = ''.join(f'<th{attribute(i)}>{escaped(name)}</th>' for i, name in enumerate(columns))
  body = ''.join(
    '<tr>' + ''.join(f'<td{attribute(i)}>{_cell(value)}</td>' for i, value in enumerate(row)) + '</tr>\n'
    for row in rows
  )
  return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n'


def escaped(text):
  """Any text, such as a file name of any bytes, as it stands in the page and in its attributes."""
  return html.escape(printable(text), quote=True)


class Markup(str):
  """Text that is HTML already."""


def picture(path, caption):
  """A PNG file with its caption, as part of the page."""
  text = escaped(caption)
  shown = image(path.read_bytes(), caption)
  return f'<figure><div class="wide">{shown}</div><figcaption>{text}</figcaption></figure>\n'


def image(png, text):
  """The bytes of a PNG as part of the page; `text` is read to those who do not see it."""
  data = base64.b64encode(png).decode()
  return Markup(f'<img alt="{escaped(text)}" src="data:image/png;base64,{data}">')


def details(summary, content):
  """What is folded until it is wanted."""
  return f'<details><summary>{escaped(summary)}</summary>\n{content}</details>\n'


def _cell(value):
  if isinstance(value, Markup):
    return value
  if isinstance(value, float):
    return f'{value:,.4g}'
  return f'{value:,}' if isinstance(value, int) and not isinstance(value, bool) else escaped(value)

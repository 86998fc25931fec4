"""What the site takes from elsewhere: result tables, notebooks, and formulas as MathML.

Formulas become MathML while the site is built, which browsers draw by themselves: no script, no
web font, nothing to be fetched.
"""

import base64
import html
import pathlib
import re
from typing import Any

import latex2mathml.converter
import nbformat
from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).parents[1]
FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Adds experiments/results and experiments/notebooks as pages."""
    results = ROOT / "experiments" / "results"
    for path in sorted(results.rglob("*")):
        if path.suffix in (".md", ".png", ".json"):
            place = f"results/{path.relative_to(results).as_posix()}"
            files.append(File.generated(config, place, abs_src_path=str(path)))
    for path in sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb")):
        text, images = read_notebook(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, content in images.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def read_notebook(path: pathlib.Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its plots by file name."""
    parts, images = [], {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}_{len(images) + 1}.png"
                images[name] = base64.b64decode(data["image/png"])
                parts.append(f"![What the cell above draws]({name})")
            elif output.get("name") != "stderr":
                text = output.get("text") or data.get("text/plain", "")
                parts.append(f"``` {{ .text .output }}\n{text.rstrip()}\n```")
    parts.append(f"*This page is `experiments/notebooks/{path.name}`, as it ran.*")
    return "\n\n".join(parts), images


def on_page_content(content: str, **_: Any) -> str:
    """Formulas in LaTeX, as arithmatex marks them, become MathML."""

    def convert(match: re.Match[str]) -> str:
        latex = html.unescape(match[2]).strip()[2:-2]
        display = "block" if match[1] == "div" else "inline"
        mathml = latex2mathml.converter.convert(latex, display=display)
        if "\\" in mathml:
            raise ValueError(f"formula {latex!r}: holds a command that the converter does not know")
        return f'<div class="formula">{mathml}</div>' if display == "block" else mathml

    return FORMULA.sub(convert, content)

"""Addition and negation by both searches for alpha in one run."""

import json
import shutil

from tests.small_run import orthoreg

OPTIONS = [
    "--config.methods=full",
    "--config.evaluation.alphas=0,0.5,1",
    "--config.evaluation.other_search=True",
    "--config.evaluation.feature_images=0",
    "--config.evaluation.disentanglement_tasks=",
]


def test_either_search_finds_beside_the_other_what_it_finds_alone(
    inputs, finished, tmp_path, capsys
):
    runs = {}
    for search in ("refined", "grid"):
        folder = tmp_path / search
        shutil.copytree(finished, folder)
        chosen = f"--config.evaluation.alpha_search={search}"
        assert orthoreg("evaluate", inputs, folder, chosen, *OPTIONS) == 0
        (runs[search],) = json.loads((folder / "results.json").read_text())["runs"]
        assert orthoreg("report", None, folder) == 0
        out = capsys.readouterr().out
        title = {"refined": "Summary, α from the grid", "grid": "Summary, α refined"}[search]
        for text in (out, (folder / "table.md").read_text(), (folder / "report.html").read_text()):
            assert title in text
    refined, grid = runs["refined"], runs["grid"]
    assert grid["addition"]["alphas"] == [0.0, 0.5, 1.0] != refined["addition"]["alphas"]
    for run, other in ((refined, grid), (grid, refined)):
        assert run["other_search"]["negation"] == other["negation"]
        assert run["other_search"]["addition"] == other["addition"] | {"per_task": None}

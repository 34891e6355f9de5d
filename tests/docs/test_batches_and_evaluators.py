"""What docs/batches-and-evaluators.md shows does what it says."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "batches-and-evaluators.md"


def test_the_page_runs_from_top_to_bottom(capsys):
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(snippets) == 3
    names = {"__name__": "page"}
    exec("\n".join(snippets), names)
    printed = capsys.readouterr().out.splitlines()
    assert float(printed[0]) == names["evaluator"].state.metrics["largest"]
    assert printed[1] == "torch.Size([10, 2])"
    assert all(names[trainer].state.step == 1 for trainer in ("by_key", "by_place", "by_parameter"))

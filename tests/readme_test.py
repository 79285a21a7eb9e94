"""What the README shows runs as it is shown."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_loop_of_ones_own_runs_and_restores(tmp_path):
    code = "\n".join(re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL))
    code += """
assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, restored))
moved = params["dense"]["kernel"] != params0["dense"]["kernel"]
assert moved.sum(0).tolist() == [1, 1, 1, 1]
close = jax.tree.map(lambda a, b: bool(jnp.allclose(a, b, atol=1e-6)), params, tuned)
assert jax.tree.all(close)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_every_file_that_the_map_names_is_there():
    root = README.parent
    text = README.read_text().split("## Where things are\n\n```\n")[1]
    for name in re.findall(r"[\w/]+(?:\.py|/)", text.split("```")[0]):
        top = name.split("/")[0] in ("configs", "colabs", "results", "subtune_jax")
        assert (root / ("." if top else "subtune_jax") / name).exists(), name

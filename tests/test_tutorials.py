"""The tutorials' notebooks belong to their scripts. `make test-docs` executes them."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "scripts" / "notebooks"
SCRIPT = """# %% [markdown]
# # 9. Title
#
# `torchrun --nproc_per_node 2 9.py`

# %%
x = 1

# %% [markdown]
# Text
# - with a list

# %%
y = "# %%"
"""


def check(*arguments):
    command = [sys.executable, NOTEBOOKS, "--check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_committed_notebooks_have_their_scripts_cells():
    result = check()
    assert result.returncode == 0, result.stdout


def test_each_script_has_a_notebook_and_the_other_way_round():
    files = sorted((ROOT / "examples" / "tutorials").iterdir())
    scripts, notebooks = ([f.stem for f in files if f.suffix == kind] for kind in (".py", ".ipynb"))
    assert scripts == notebooks and scripts


def test_compares_cells(tmp_path):
    script, notebook = tmp_path / "9.py", tmp_path / "9.ipynb"
    script.write_text(SCRIPT)
    assert check(script).returncode == 1
    start = "from bluefog_pg.notebook import cluster\n\nranks = cluster(2)"
    cells = [
        ("markdown", "# 9. Title\n\n`torchrun --nproc_per_node 2 9.py`"),
        ("code", f"{start}  # so many processes: cells that begin with %%px run on all of them"),
        ("code", "%%px\nx = 1"),
        ("markdown", "Text\n- with a list"),
        ("code", '%%px\ny = "# %%"'),
        ("code", "ranks.stop()"),
    ]
    cells = [{"cell_type": kind, "source": text.splitlines(True)} for kind, text in cells]
    notebook.write_text(json.dumps({"cells": cells}))
    assert check(script).returncode == 0
    script.write_text(SCRIPT.replace("x = 1", "x = 2"))
    result = check(script)
    assert result.returncode == 1 and "run make tutorials" in result.stdout

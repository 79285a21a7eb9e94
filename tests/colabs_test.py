"""Notebooks run from the first cell to the last, on a small task of their kind."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "colabs"
COMMON = {  # the same cells, on drawn images and a small network: offline, in seconds
    "task": {"name": "structured", "examples": 200, "image_size": 32},
    "backbone": {
        "name": "efficientnet_lite0",
        "weights": None,
        "image_size": 32,
        "stages": ((1, 3, 1, 1, 8), (1, 5, 2, 2, 8)),
        "widths": (8, 16),
    },
    "optimizer": {"probe_steps": 3},
    "train_steps": 4,
    "batch_size": 16,
}
PLACE = {"name": "structured", "property": "location"}  # a second task
SMALL = {
    "quickstart": COMMON | {"method": {"name": "magnitude", "fraction": 0.1}},
    "gradients": COMMON
    | {
        "method": {"name": "gps", "batches": 4},
        "grid": {"tasks": {"count": {}, "place": {"task": PLACE}}},
        "train_examples": 0,
    },
    "subtuning": COMMON | {"train_examples": 0, "greedy": {"max_items": 1}},
    "moving": {
        "task": {"name": "text_file", "path": "reviews.csv"},
        "backbone": {"name": "bert", "variant": (8, 1, 2, 16, 97, 8), "length": 8},
        "method": {"name": "dps_dense", "stage_steps": 2},
        "train_examples": 0,
        "validation_examples": 0,
        "train_steps": 8,
        "batch_size": 16,
    },
}


def notebooks():
    return sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(path, tmp_path):
    lines = [f"film number {i},{'ab'[i % 2]}" for i in range(80)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *lines]))
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if "OVERRIDES = {}" in cell.source]
    assert len(cells) == 1, "one cell must read OVERRIDES = {}"
    small = f"OVERRIDES = {SMALL[path.stem]}"
    cells[0].source = cells[0].source.replace("OVERRIDES = {}", small)
    options = {"timeout": 300, "resources": {"metadata": {"path": str(tmp_path)}}}
    one_device = {
        **os.environ,
        "XLA_FLAGS": "",
    }  # as most who read it have: compiles faster
    NotebookClient(notebook, kernel_name="python3", **options).execute(env=one_device)


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs"), cell.source
        assert cell.get("execution_count") is None

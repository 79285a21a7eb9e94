"""Pages made from the code say what the code says."""

import importlib.util

import pages
import pytest

import subtune_jax as st
from subtune_jax.commands import keys
from subtune_jax.core import registry


@pytest.fixture(scope="module")
def generate():
    file = pages.ROOT / "docs" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def written(generate, tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    generate.write(folder)
    return folder


def test_the_reference_has_every_public_name(written):
    text = "".join(path.read_text() for path in written.glob("st*.md"))
    for name in st.__all__:
        assert f"st.{name}" in text, name


def test_the_page_of_keys_has_every_key_of_every_plug_in(written):
    text = (written / "keys.md").read_text()
    assert all(f"| `{key.name}` |" in text for key in keys.of_command("compare"))
    for package in ("methods", "tasks", "backbones"):
        for name in registry.plugins(package):
            assert f"### `{name}`" in text
            assert all(f"`{k.name}`" in text for k in keys.of_plugin(package, name))


def test_the_table_of_methods_has_a_line_for_each(written):
    lines = (written / "parts" / "methods.md").read_text().splitlines()[2:]
    assert len(lines) == len(registry.plugins("methods"))
    assert all(len(line) > 30 for line in lines)


def test_a_docstring_in_the_form_of_google_becomes_lists(generate):
    docstring = "The sum.\n\n>>> 1 + 1\n2\n\nArgs:\n  a: one,\n    or more.\n"
    text = generate.markdown(docstring)
    assert "```python\n>>> 1 + 1\n2\n```" in text
    assert "**Args**" in text and "- `a`: one,\n    or more." in text


def test_pages_that_have_not_changed_are_not_written_again(generate, written):
    before = (written / "keys.md").stat().st_mtime_ns
    generate.write(written)
    assert (written / "keys.md").stat().st_mtime_ns == before


@pytest.mark.parametrize("page", sorted((pages.ROOT / "docs" / "results").glob("*.md")))
def test_the_tables_of_results_are_those_of_the_files_in_results(generate, page):
    text = page.read_text()
    assert generate.with_tables(text) == text  # python docs/generate.py mends it
    assert ("<!-- table" in text) == (page.stem != "index")
    if page.stem != "index":
        assert text.count("<!-- table") == text.count("\n|---|")


def test_a_table_that_was_changed_is_told(generate):
    page = pages.ROOT / "docs" / "results" / "quickstart.md"
    text = page.read_text().replace(".878", ".879", 1)
    assert generate.with_tables(text) == page.read_text() != text


def test_every_benchmark_has_its_ratios_on_a_page(written):
    text = (written / "benchmarks.md").read_text()
    for path in (pages.ROOT / "results" / "bench").glob("*.json"):
        assert f"## `results/bench/{path.name}`" in text
    assert text.count("subtune bench") >= 13

"""What README, CONTRIBUTING and docs/ show, works as it is shown."""

import re
import subprocess
import sys

import pages
import pytest

from subtune_jax.commands import keys

WITH_PYTHON = [page for page in pages.DOCS if pages.blocks(page, "python")]
COMMANDS = [  # those of CONTRIBUTING are of plug-ins that it shows: contributing_test
    (page, words)
    for page in (pages.ROOT / "README.md", *pages.DOCS)
    for words in pages.commands(page)
]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=pages.name)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here: dict = {"__name__": "page"}
    for number, block in enumerate(pages.blocks(page, "python")):
        if block.note != "notest":
            exec(compile(block.text, f"{page.name}, block {number}", "exec"), here)


@pytest.mark.parametrize(
    "page, words", COMMANDS, ids=[f"{p.stem}-{'_'.join(w[:2])}" for p, w in COMMANDS]
)
def test_a_command_of_a_page_exists_with_its_config_its_keys_and_its_flags(
    page, words, monkeypatch, capsys
):
    monkeypatch.chdir(pages.ROOT)
    pages.check(words, capsys)


def test_pages_show_commands_of_every_kind():
    shown = {words[0] for _, words in COMMANDS}
    assert {*keys.SECTIONS, "delta", "fetch", "methods"} - {"seeds"} <= shown


@pytest.mark.parametrize("page", pages.DOCS, ids=pages.name)
def test_a_page_says_first_what_its_reader_can_do_after_it(page):
    if page.stem != "changes":
        assert "After this page" in page.read_text()[:500]


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_every_link_of_a_page_leads_somewhere(page):
    text = re.sub(r"```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith("http") and "generated/" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.slow  # half a minute
def test_the_pages_are_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "trees"), "docs", str(tmp_path / "html")],
        cwd=pages.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for page in ("index", "generated/keys", "generated/st.masks", "results/gps"):
        assert (tmp_path / "html" / f"{page}.html").exists()

"""Pages made from the code and from results: keys, plug-ins, reference, tables.

    python docs/generate.py

`conf.py` calls `write` at every build, so that no page is behind the code. Docstrings
are read as Markdown with the sections of Google's form. The tables of `docs/results/`
are committed, so that they can be read without a build: the command above writes them
anew from `results/`, and a test compares.
"""

import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import subtune_jax as st
from subtune_jax.commands import catalogue, configs, keys
from subtune_jax.core import registry
from subtune_jax.report import tables
from subtune_jax.study import study_file, study_tables
from subtune_jax.training import settings

ROOT = Path(__file__).parents[1]
END = "<!-- end of table -->"
SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Source|Example)s?:(.*)")


def write(folder: Path) -> None:
    """Writes all pages below `folder`."""
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    for package in settings.PLUGINS.values():
        _write(parts / f"{package}.md", plugin_table(package))
    _write(folder / "keys.md", keys_page())
    _write(folder / "benchmarks.md", benchmarks_page())
    for page in folder.glob("st.*.md"):
        page.unlink()
    modules, others = public()
    for name, module in modules.items():
        _write(folder / f"st.{name}.md", module_page(name, module))
    _write(folder / "st.md", names_page(others))


def public() -> tuple[dict[str, ModuleType], dict[str, Any]]:
    """What `subtune_jax` hands on: modules by name, and everything else by name."""
    values = {name: getattr(st, name) for name in st.__all__}
    modules = {n: v for n, v in values.items() if inspect.ismodule(v)}
    return modules, {n: v for n, v in values.items() if n not in modules}


def plugin_table(package: str) -> str:
    """Name and one line of every plug-in, the name linked to its keys."""
    rows = [
        (f"[`{name}`](#{_anchor(package, name)})", catalogue.summary(package, name))
        for name in registry.plugins(package)
    ]
    return _table(("name", "what it is"), rows)


def keys_page() -> str:
    """Every key of every section and plug-in."""
    parts = [
        "# Every config key\n",
        "On this page you can look up any key of a config: its type, its default and "
        "what it does. It is generated from the signatures and docstrings of the "
        "code. [](../commands.md) says how keys are set, and which commands read "
        "which section.\n",
        "## Keys of no section\n",
        _keys_table(keys.top()),
    ]
    for section in configs.SECTIONS:
        readers = [c for c, sections in keys.SECTIONS.items() if section in sections]
        named = ", ".join(f"`{command}`" for command in readers)
        parts += [f"## `{section}`\n", f"Read by {named}.\n"]
        parts.append(_keys_table(keys.of_section(section)))
    for section, package in settings.PLUGINS.items():
        parts.append(f"## `{section}`: {package}\n")
        for name in registry.plugins(package):
            parts += [f"({_anchor(package, name)})=", f"### `{name}`\n"]
            parts.append(catalogue.summary(package, name) + "\n")
            listed = keys.of_plugin(package, name)
            parts.append(_keys_table(listed) if listed else "It has no keys.\n")
    return "\n".join(parts)


def benchmarks_page() -> str:
    """The ratios and checks of every file in `results/bench/`."""
    parts = [
        "# All benchmarks\n",
        "On this page you can look up every ratio that was measured. Each file is one "
        "run of `subtune bench`, by the command that it names.\n",
    ]
    for path in sorted((ROOT / "results" / "bench").glob("*.json")):
        study = study_file.read(path)
        commands = {row["command"] for row in study["benchmarks"].values()}
        parts += [f"## `{path.relative_to(ROOT)}`\n"]
        parts += [f"`{command}`\n" for command in sorted(commands)]
        parts.append(study_tables.benchmark_table(study))
    return "\n".join(parts)


def with_tables(text: str) -> str:
    """The page with its tables, `<!-- table KIND STUDY ... -->`, as they are today."""

    def table(match: re.Match[str]) -> str:
        kind, *names = match[1].split()
        studies = [study_file.read(ROOT / "results" / f"{n}.json") for n in names]
        return f"<!-- table {match[1]} -->\n{_result_table(kind, studies)}{END}"

    return re.sub(rf"<!-- table ([\w ]+) -->\n.*?{END}", table, text, flags=re.DOTALL)


def _result_table(kind: str, studies: list[Any]) -> str:
    if kind == "seeds":
        return study_tables.seed_table(studies[0])
    if kind == "profiles":
        return study_tables.profile_table(studies[0])
    summaries = [study_file.summary(study) for study in studies]
    rows = [row for summary in summaries for row in summary["rows"]]
    if kind == "searches":
        return study_tables.search_table(rows)
    if kind == "correlations":
        text = tables.correlations(summaries[0]["profiles"])
        return text[text.index("|") :]
    return tables.trainings([row for row in rows if "rate" in row])


def module_page(name: str, module: ModuleType) -> str:
    """The functions and classes of one public module, `st.NAME`."""
    listed = getattr(module, "__all__", None) or [
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and getattr(value, "__module__", "") == module.__name__
        and (inspect.isfunction(value) or inspect.isclass(value))
    ]
    parts = [f"# `st.{name}`\n", markdown(inspect.getdoc(module) or "")]
    parts += [entry(f"st.{name}.{key}", getattr(module, key)) for key in listed]
    return "\n".join(parts)


def names_page(values: dict[str, Any]) -> str:
    """What is public and no module: functions, and the contracts of plug-ins."""
    functions = {n: v for n, v in values.items() if inspect.isfunction(v)}
    rest = {n: v for n, v in values.items() if n not in functions}
    parts = ["# Functions and contracts\n", "## Functions\n"]
    parts += [entry(f"st.{name}", value) for name, value in functions.items()]
    parts += ["## What plug-ins return and see\n"]
    parts += [entry(f"st.{name}", value) for name, value in rest.items()]
    return "\n".join(parts)


def entry(name: str, value: Any) -> str:
    """One function, class or constant, with its docstring."""
    if inspect.isfunction(value):
        kind, signature = "function", _signature(value)
    elif inspect.isclass(value):
        kind, signature = "class", ""
    else:
        return f"```{{py:data}} {name}\n:value: {value!r}\n```\n"
    text = markdown(inspect.getdoc(value) or "")
    return f"`````{{py:{kind}}} {name}{signature}\n\n{text}\n`````\n"


def markdown(text: str) -> str:
    """A docstring in Google's form as Markdown: sections become lists."""
    lines: list[str] = []
    inside = fenced = False
    for line in text.splitlines():
        section = SECTION.fullmatch(line)
        if line.startswith(">>> ") and not fenced:
            lines.append("```python")
            fenced = True
        if fenced and not line:
            lines.append("```")
            fenced = False
        if section:
            inside = True
            lines += [f"**{section[1]}**", "", section[2].strip()]
        elif inside and (item := re.match(r"  ([\w*, ]+): (.*)", line)):
            lines.append(f"- `{item[1]}`: {item[2]}")
        elif inside and line.startswith("  "):
            lines.append(line[2:] if line[2:3] in ("|", "-") else line)
        else:
            inside = inside and not line
            lines.append(line)
    return "\n".join([*lines, "```"] if fenced else lines)


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    text = re.sub(r"\b(?:\w+\.)+(?=[A-Za-z_]\w*)", "", str(signature))
    return re.sub(r"<[^<>]*>", "...", text)


def _keys_table(listed: Iterable[keys.Key]) -> str:
    rows = [
        (
            f"`{key.name}`",
            f"`{key.kind}`",
            f"`{key.default or '-'}`",
            _upper(key.meaning),
        )
        for key in listed
    ]
    return _table(("key", "type", "default", "meaning"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head)]
    lines += [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _anchor(package: str, name: str) -> str:
    return f"{package}-{name}".replace("_", "-")


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:  # Sphinx reads what is new
        path.write_text(text)


if __name__ == "__main__":
    write(ROOT / "docs" / "generated")
    for page in (ROOT / "docs" / "results").glob("*.md"):
        _write(page, with_tables(page.read_text()))

"""The extras of the package: what each installs, and what to say where it is absent.

`pip install subtune-jax` is enough for `st.*` but `st.run`; the commands that train
need `pip install 'subtune-jax[train]'`.
"""

import importlib.util

# Names that Python imports, by the extra that `pyproject.toml` lists them in.
MODULES = {
    "train": (
        "grain",
        "matplotlib",
        "PIL",
        "rich",
        "safetensors",
        "tensorboardX",
        "tokenizers",
    ),
    "onnx": ("onnx",),
    "bench": ("torch",),
}


def absent(extra: str) -> list[str]:
    """The modules of an extra that are not installed."""
    return [name for name in MODULES[extra] if importlib.util.find_spec(name) is None]


def line(what: str, modules: list[str]) -> str | None:
    """One line for the user: `what` needs `modules`; None where no extra has them."""
    for extra, names in MODULES.items():
        if modules and set(modules) <= set(names):
            needed = ", ".join(modules)
            return f"{what} needs {needed}; pip install 'subtune-jax[{extra}]'"
    return None


def told(what: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """`error` with the line above as its message, where there is one."""
    top = (error.name or "").partition(".")[0]
    message = line(what, [top])
    return error if message is None else ModuleNotFoundError(message, name=top)

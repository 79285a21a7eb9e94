"""The process: what it lacks, what it says and keeps, and how it ends.

`pip install subtune-jax` is enough for `st.*` but `st.run`; the commands that train
need `pip install 'subtune-jax[train]'`. Exit codes: 0 on success; 2 on a usage or input
error, with one line on stderr and no traceback; 1 otherwise. Nothing here imports jax
before it needs it: `subtune --help` answers at once.
"""

import ctypes
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

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
# Of <malloc.h>: (parameter, value). One heap, nothing by mmap, nothing given back.
TUNABLES = ((-8, 1), (-4, 0), (-1, 2**31 - 1), (-2, 2**30))


def say(line: str) -> None:
    """One line on stderr, by process 0."""
    import jax

    if jax.process_index() == 0:
        print(line, file=sys.stderr, flush=True)


def latest() -> Callable[[str], None]:
    """Says lines on stderr: the latest one on a terminal, all of them otherwise.

    Process 0 alone does.
    """
    import jax

    if jax.process_index() != 0:
        return lambda line: None
    if not sys.stderr.isatty():
        return lambda line: print(line, file=sys.stderr, flush=True)

    def over(line: str) -> None:
        width = os.get_terminal_size(sys.stderr.fileno()).columns
        print(f"\r\033[K{line[: width - 1]}", end="", file=sys.stderr, flush=True)

    return over


def size(count: int) -> str:
    """Bytes in three digits, such as `"291 kB"`."""
    for unit_size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit_size:
            return f"{count / unit_size:.3g} {unit}"
    return f"{count} B"


def guard(prog: str, work: Callable[[], Path | None]) -> int:
    """Runs `work`, prints the path that it returns, and maps errors to exit codes."""
    try:
        path = work()
    except FloatingPointError as error:
        print(f"{prog}: {_line(error)}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        if not _ours(error):
            raise
        print(f"{prog}: {_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{prog}: interrupted; the same command resumes", file=sys.stderr)
        return 1
    if path is not None:
        print(path)
    return 0


def _ours(error: BaseException) -> bool:
    """Was it raised by this project or a config, or by the operating system?

    A ValueError from inside jax or NumPy is a defect of ours, and keeps its traceback.
    """
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    file = "" if frame is None else frame.tb_frame.f_code.co_filename
    here = str(Path(__file__).parents[1])
    return isinstance(error, OSError) or file.startswith(here) or "config" in file


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def absent(extra: str) -> list[str]:
    """The modules of an extra that are not installed."""
    return [name for name in MODULES[extra] if importlib.util.find_spec(name) is None]


def lacking(what: str, modules: list[str]) -> str | None:
    """One line for the user: `what` needs `modules`; None where no extra has them."""
    for extra, names in MODULES.items():
        if modules and set(modules) <= set(names):
            needed = ", ".join(modules)
            return f"{what} needs {needed}; pip install 'subtune-jax[{extra}]'"
    return None


def told(what: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """`error` with the line above as its message, where there is one."""
    top = (error.name or "").partition(".")[0]
    message = lacking(what, [top])
    return error if message is None else ModuleNotFoundError(message, name=top)


def keep_memory() -> bool:
    """Tells glibc to keep freed memory; whether it could be told.

    XLA's CPU backend allocates the temporary buffer of a program at every call, and
    glibc gives blocks of that size back to the system at once: each step faults its
    pages in anew, which costs a step of EfficientNet-Lite0 about a third of its time.
    The process stays as large as it once was.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent from musl
    return mallopt is not None and all(mallopt(*pair) == 1 for pair in TUNABLES)


def cache_compilations() -> None:
    """Keeps compiled programs on disk: a second start compiles nothing again."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_root() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def cache_root() -> Path:
    """Of programs, weights and data: `$SUBTUNE_CACHE`, else `~/.cache/subtune_jax`."""
    own = os.environ.get("SUBTUNE_CACHE")
    return Path(own) if own else Path.home() / ".cache" / "subtune_jax"

"""Weights: files of arrays, read without trusting them, and trees filled from them.

A file becomes a flat dict, name -> array, with the names of whoever wrote it. A
backbone renames these and `fill` puts them into the shapes it wants, strictly: what
is missing, left over, misshaped or not finite is an error, never a default.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from subtune_jax.core import trees
from subtune_jax.core.contracts import Variables
from subtune_jax.models.weights import onnx_file, torch_file

SHOWN = 4  # names listed of each kind of misfit


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name; its suffix says which format it has.

    Args:
      path: `.npz`; `.safetensors`; `.pth`, `.pt` or `.bin` of `torch.save`; `.onnx`.
        Or a folder that holds `model.safetensors` or `pytorch_model.bin`. Nothing in
        a file is executed. Arrays may be read-only, in any order and any float type.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: another suffix, a damaged file, or content that is not arrays.
    """
    path = _file(Path(path))
    if path.suffix not in _READERS:
        known = ", ".join(_READERS)
        raise ValueError(f"{path} has suffix {path.suffix!r}; there are {known}")
    return _READERS[path.suffix](path)


def fill(template: Any, entries: Mapping[str, np.ndarray], source: Any) -> Any:
    """`template` with its leaves replaced by float32 arrays from `entries`.

    Args:
      template: nested dict of leaves with a `shape`, or `Variables` of two of them.
      entries: path of a leaf, `a/b/c` without "params" or "stats", -> array.
      source: where the entries come from, for the message.

    Raises:
      ValueError: an entry is missing, left over, of another shape or not finite.
    """
    parts = template if isinstance(template, Variables) else (template,)
    shapes = {
        path: tuple(leaf.shape)
        for part in parts
        for path, leaf in trees.flatten(part).items()
    }
    _check_fit(shapes, entries, source)
    arrays = {path: _float32(path, entries[path], source) for path in shapes}
    filled = [
        trees.nest({path: arrays[path] for path in trees.flatten(part)})
        for part in parts
    ]
    return Variables(*filled) if isinstance(template, Variables) else filled[0]


def _file(path: Path) -> Path:
    """`path`, or the file that holds the weights in the folder `path`."""
    if path.is_dir():
        known = ("model.safetensors", "pytorch_model.bin")
        for name in known:
            if (path / name).is_file():
                return path / name
        raise FileNotFoundError(f"no {' or '.join(known)} in the folder {path}")
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}")
    return path


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an .npz archive, or it is cut short")
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = np.asarray(archive[name])
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read as .npz: {_line(error)}") from error
    for name, array in arrays.items():
        if array.dtype.kind == "V" and array.dtype.itemsize == 2:
            arrays[name] = array.view(jnp.bfloat16)  # NumPy forgets this type's name
    return arrays


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, TypeError, AttributeError, OSError) as error:
        # A type that NumPy lacks, such as float8, surfaces as a Type/AttributeError.
        message = f"{path} cannot be read as .safetensors: {_line(error)}"
        raise ValueError(message) from error


_READERS = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".pth": torch_file.read,
    ".pt": torch_file.read,
    ".bin": torch_file.read,
    ".onnx": onnx_file.read,
}


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _check_fit(
    shapes: Mapping[str, tuple[int, ...]], entries: Mapping[str, Any], source: Any
) -> None:
    missing = sorted(shapes.keys() - entries.keys())
    extra = sorted(entries.keys() - shapes.keys())
    misshaped = [
        f"{path} is {list(np.shape(entries[path]))}, not {list(shapes[path])}"
        for path in sorted(shapes.keys() & entries.keys())
        if tuple(np.shape(entries[path])) != shapes[path]
    ]
    kinds = {"missing": missing, "extra": extra, "misshaped": misshaped}
    wrong = [_list(kind, names) for kind, names in kinds.items() if names]
    if wrong:
        raise ValueError(f"{source} does not fit: {'; '.join(wrong)}")


def _list(kind: str, names: list[str]) -> str:
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} {kind} ({', '.join(names[:SHOWN])}{more})"


def _float32(path: str, entry: np.ndarray, source: Any) -> np.ndarray:
    with np.errstate(over="ignore"):  # float64 beyond float32: caught just below
        array = np.array(entry, np.float32, order="C")
    if not np.isfinite(array).all():
        raise ValueError(f"{source}: {path} holds values that are not finite")
    return array

"""Named arrays in one file: `.safetensors` or `.npz`, told by the name's end.

The package safetensors, of the extra `[train]`, is imported when such a file is met.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

ENDINGS = (".safetensors", ".npz")


def write(
    path: str | Path, arrays: Mapping[str, np.ndarray], notes: Mapping[str, str]
) -> Path:
    """Writes `arrays` and `notes`, atomically, and returns `path`.

    Notes are the metadata of a safetensors file, and arrays of text in an npz.

        tensor_file.write("base.safetensors", delta.flatten(base), {"seed": "0"})

    Args:
      path: a new file, or one to replace; its folder is made.
      arrays: by name, of any shapes.
      notes: by name; names must not be those of arrays.

    Raises:
      ValueError: another ending, or a type that the format does not have.
    """
    path = Path(path)
    _ending(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        if path.suffix == ".npz":
            for name, array in arrays.items():
                if array.dtype.kind not in "biufc":
                    what = f"{name!r} is {array.dtype.name}"
                    raise ValueError(f"{what}, which .npz lacks; use .safetensors")
            np.savez(partial, allow_pickle=False, **arrays, **notes)
        else:
            _save_safetensors(path, partial, arrays, notes)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of numbers in a file, by name; notes are left out.

        base = trees.nest(tensor_file.read("base.safetensors"))

    Raises:
      FileNotFoundError: there is none.
      ValueError: another ending, or damaged.
    """
    path = Path(path)
    _ending(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors import numpy as safetensors

            return safetensors.load_file(path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except ModuleNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib, NumPy and safetensors have their own
        raise ValueError(f"{path} is damaged, or no {path.suffix} file") from error
    return {name: array for name, array in arrays.items() if array.dtype.kind != "U"}


def _save_safetensors(
    path: Path,
    partial: Path,
    arrays: Mapping[str, np.ndarray],
    notes: Mapping[str, str],
) -> None:
    from safetensors import SafetensorError
    from safetensors import numpy as safetensors

    try:
        safetensors.save_file(dict(arrays), partial, metadata=dict(notes))
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} cannot hold these arrays: {error}") from error


def _ending(path: Path) -> None:
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path} ends in {path.suffix!r}; there are {ENDINGS}")

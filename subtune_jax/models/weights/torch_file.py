"""Files of `torch.save`, read without torch and without running their pickles.

A file is raw storages and one pickle that says how tensors view them: a zip of them
since torch 1.6, one after the other before. A pickle is a program; this one may call
three names, all answered by functions of ours, and pass around the names of types.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file before torch 1.6
_PROTOCOL = 1001  # the second one
_LEGACY = pickle.dumps(_MAGIC, 2)
_WRAPPERS = ("state_dict", "model")  # where checkpoints keep the state dict
_TYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
Storage = Callable[[str, np.dtype, int], np.ndarray]  # (key, type, items) -> flat array


class _Type(NamedTuple):
    """What a pickle gets for `torch.FloatStorage`: its name, nothing callable."""

    name: str


class _Refused(pickle.UnpicklingError):
    """The file asks for something that is not on our list."""


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of the state dict in `path`, by name, as read-only views.

    A dict that holds the state dict under `"state_dict"` or `"model"` will do.

    Raises:
      ValueError: not such a file, a damaged one, or a pickle that names anything but
        tensors; the message names it.
    """
    with path.open("rb") as file:
        legacy = file.read(len(_LEGACY)) == _LEGACY
    if not legacy and not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a file of torch.save, or it is cut short")
    try:
        content = _read_legacy(path) if legacy else _read_zip(path)
    except _Refused as refused:
        raise ValueError(f"{path} is refused: {refused}") from refused
    except Exception as error:
        # A damaged pickle may raise anything, its own documentation says.
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{path} is damaged: {what}") from error
    return _state(content, path)


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl"]
        if len(names) != 1:
            raise _Refused(f"it holds {len(names)} files data.pkl, not one")
        folder = names[0].removesuffix("data.pkl")
        ordered = f"{folder}byteorder" in archive.namelist()
        swap = ordered and archive.read(f"{folder}byteorder") == b"big"

        def storage(key: str, dtype: np.dtype, items: int) -> np.ndarray:
            raw = archive.read(f"{folder}data/{key}")
            if len(raw) != items * dtype.itemsize:
                raise _Refused(f"storage {key} has {len(raw)} bytes, not {items} items")
            flat = np.frombuffer(raw, dtype)
            return flat.byteswap() if swap else flat

        with archive.open(names[0]) as file:
            return _Unpickler(file, storage).load()


def _read_legacy(path: Path) -> Any:
    storages: dict[str, np.ndarray] = {}
    size = path.stat().st_size

    def storage(key: str, dtype: np.dtype, items: int) -> np.ndarray:
        if not 0 <= items * dtype.itemsize <= size:
            raise _Refused(f"storage {key} of {items} items is larger than the file")
        storages[key] = np.empty(items, dtype)  # its bytes follow the pickle
        return storages[key]

    with path.open("rb") as file:
        if [_Unpickler(file, storage).load() for _ in range(2)] != [_MAGIC, _PROTOCOL]:
            raise _Refused("its protocol is unknown")
        _Unpickler(file, storage).load()  # the writer's word sizes
        content = _Unpickler(file, storage).load()
        for key in _Unpickler(file, storage).load():
            flat = storages.pop(key)
            items = int.from_bytes(file.read(8), "little")
            into = flat.view(np.uint8).data
            if items != flat.size or file.readinto(into) != flat.nbytes:
                raise _Refused(f"storage {key} is cut short")
    if storages:
        raise _Refused(f"{len(storages)} storages are absent")
    return content


class _Unpickler(pickle.Unpickler):
    """Knows dicts, lists, numbers, strings and tensors; refuses the rest."""

    def __init__(self, file: Any, storage: Storage):
        super().__init__(file, encoding="utf-8")
        self.storage = storage
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle may call or pass around, all of it ours."""
        if module == "torch" and name in _TYPES:
            return _Type(name)
        # New functions each time: a pickle can set attributes of what it is given.
        known = {
            ("collections", "OrderedDict"): lambda *pairs: OrderedDict(*pairs),
            ("torch._utils", "_rebuild_tensor_v2"): lambda *parts: _view(*parts[:4]),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *rest: tensor,
        }
        if (module, name) not in known:
            raise _Refused(f"its pickle asks for {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The storage that `pid` names, read once however many tensors share it."""
        what, kind, key, _, items, *window = pid
        if what != "storage" or not isinstance(kind, _Type) or any(window):
            raise _Refused(f"its pickle asks for the persistent object {what!r}")
        if key not in self.storages:
            self.storages[key] = self.storage(key, np.dtype(_TYPES[kind.name]), items)
        return self.storages[key]


def _view(storage: Any, offset: Any, shape: Any, strides: Any) -> np.ndarray:
    """The tensor `[*shape]` that begins at `offset` of `storage`, all in items."""
    if not isinstance(storage, np.ndarray) or storage.ndim != 1:
        raise _Refused("a tensor is built on something that is not a storage")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or any(type(n) is not int or n < 0 for n in numbers):
        raise _Refused(f"a tensor has shape {shape} and strides {strides}")
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    last = sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if offset + last >= storage.size:
        raise _Refused(f"a tensor of shape {shape} leaves its storage")
    return np.lib.stride_tricks.as_strided(
        storage[offset:],
        shape,
        [step * storage.itemsize for step in strides],
        writeable=False,
    )


def _state(content: Any, path: Path) -> dict[str, np.ndarray]:
    """The dict of tensors in `content`, its wrapper taken off."""
    if isinstance(content, Mapping):
        for wrapper in _WRAPPERS:
            if isinstance(content.get(wrapper), Mapping):
                content = content[wrapper]
                break
        if content and all(isinstance(v, np.ndarray) for v in content.values()):
            return {str(name): array for name, array in content.items()}
    kind = type(content).__name__
    raise ValueError(f"{path} holds a {kind} that is not a dict of tensors")

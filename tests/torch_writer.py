"""Writes what `torch.save` writes, both formats, with no torch installed."""

import io
import pickle
import struct
import zipfile

import numpy as np

KINDS = {
    "float64": "Double",
    "float32": "Float",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "int64": "Long",
    "bool": "Bool",
}


def entry(name, flat, key, shape, strides, offset=0, *, legacy=False):
    """One item of a state dict: a view of the storage `flat` that is called `key`."""
    kind = f"{KINDS[flat.dtype.name]}Storage"
    pid = text("storage") + name_of("torch", kind) + text(key) + text("cpu")
    pid += number(flat.size) + (b"N" if legacy else b"")
    parts = b"(" + pid + b"tQ" + number(offset) + numbers(shape) + numbers(strides)
    hooks = b"\x89" + name_of("collections", "OrderedDict") + b")R"
    tensor = name_of("torch._utils", "_rebuild_tensor_v2") + b"(" + parts + hooks
    return text(name) + tensor + b"tR"


def parameter(item):
    """The same item as an `nn.Parameter`."""
    cut = item.index(b"c")  # after the name
    rest = b"\x88" + name_of("collections", "OrderedDict") + b")RtR"
    rebuild = name_of("torch._utils", "_rebuild_parameter")
    return item[:cut] + rebuild + b"(" + item[cut:] + rest


def mapping(*items):
    return name_of("collections", "OrderedDict") + b")R(" + b"".join(items) + b"u"


def program(content):
    return b"\x80\x02" + content + b"."


def zipped(content, storages):
    """A file since torch 1.6, from the pickle's content and `key -> storage`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", program(content))
        archive.writestr("archive/byteorder", "little")
        for key, flat in storages.items():
            archive.writestr(f"archive/data/{key}", flat.tobytes())
    return buffer.getvalue()


def legacy(content, storages):
    """A file before torch 1.6."""
    words = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    heads = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, words)]
    keys = pickle.dumps(list(storages), 2)
    flats = [struct.pack("<q", f.size) + f.tobytes() for f in storages.values()]
    return b"".join([*heads, program(content), keys, *flats])


def state_dict(arrays, *, old=False):
    """The file of a state dict of contiguous tensors."""
    items, storages = [], {}
    for count, (name, array) in enumerate(arrays.items()):
        key = str(count)
        array = np.asarray(array, order="C")
        storages[key] = array.reshape(-1)
        strides = [step // array.itemsize for step in array.strides]
        items.append(entry(name, storages[key], key, array.shape, strides, legacy=old))
    return (legacy if old else zipped)(mapping(*items), storages)


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def name_of(module, name):
    return f"c{module}\n{name}\n".encode()

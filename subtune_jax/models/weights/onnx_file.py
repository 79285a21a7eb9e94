"""ONNX files: the arrays of a graph, by name or by the node that uses them."""

from pathlib import Path

import numpy as np

_ANONYMOUS = "onnx::"  # how exporters name a constant that has no name


def read(path: Path) -> dict[str, np.ndarray]:
    """The initializers of the graph in `path`.

    An anonymous one goes by the name of each node that uses it (`/fc1/MatMul`); where
    one node uses several, the second and later ones keep their own names.

    Raises:
      ValueError: the file is not ONNX, or damaged; or the optional package `onnx` is
        absent.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
        from onnx import numpy_helper
    except ImportError as error:
        what = f"reading {path} needs the package 'onnx'"
        raise ValueError(f"{what}; install subtune-jax[onnx]") from error
    try:
        graph = onnx.load(path).graph
        arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    except (DecodeError, ValueError, TypeError, OSError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read as .onnx: {line}") from error
    if not arrays:
        raise ValueError(f"{path} holds no arrays, or is not an ONNX file")
    named = {k: v for k, v in arrays.items() if not k.startswith(_ANONYMOUS)}
    for node in graph.node:
        for name in node.input:
            if name in arrays and name not in named:
                key = name if node.name in named or not node.name else node.name
                named[key] = arrays[name]
    return named

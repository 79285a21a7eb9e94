"""Weights files: what is in them is read exactly, and nothing else happens."""

import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch_writer

from subtune_jax import fetch
from subtune_jax.core.contracts import Variables
from subtune_jax.models.weights import weight_files

FORMATS = {"zip": torch_writer.zipped, "legacy": torch_writer.legacy}


def arrays():
    rng = np.random.default_rng(0)
    return {
        "a.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "a.bias": rng.normal(size=(3,)).astype(np.float64),
        "half": rng.normal(size=(2, 2)).astype(np.float16),
        "brain": rng.normal(size=(5,)).astype(jnp.bfloat16),
        "count": np.array(7, np.int64),
    }


def write(path):
    """The arrays in the format of the suffix; legacy torch for `.pt`."""
    if path.suffix == ".npz":
        np.savez(path, **arrays())
    elif path.suffix == ".safetensors":
        safetensors.numpy.save_file(arrays(), path)
    elif path.suffix == ".onnx":
        onnx.save(graph(), path)
    else:
        path.write_bytes(torch_writer.state_dict(arrays(), old=path.suffix == ".pt"))
    return path


def graph():
    tensors = [
        onnx.numpy_helper.from_array(array, name)
        for name, array in (
            ("layer.bias", np.arange(4, dtype=np.float32)),
            ("onnx::MatMul_17", np.arange(12, dtype=np.float32).reshape(3, 4)),
        )
    ]
    value = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "onnx::MatMul_17"], ["y"], "/fc1/MatMul"),
        onnx.helper.make_node("Add", ["y", "layer.bias"], ["z"], "/fc1/Add"),
    ]
    ends = [[value(name, 1, ["n", n])] for name, n in (("x", 3), ("z", 4))]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", *ends, tensors))


def message(call, *arguments, error=ValueError):
    """The one line that `call` fails with."""
    with pytest.raises(error) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth", ".pt", ".bin"])
def test_arrays_come_back_bit_for_bit_with_their_types(tmp_path, suffix):
    got = weight_files.read(write(tmp_path / f"w{suffix}"))
    assert got.keys() == arrays().keys()
    for name, want in arrays().items():
        assert got[name].dtype == want.dtype and got[name].shape == want.shape
        assert got[name].tobytes() == want.tobytes()


@pytest.mark.parametrize("form", FORMATS)
def test_torch_views_keep_offsets_strides_and_shared_storages(tmp_path, form):
    flat = np.arange(24, dtype=np.float32)
    views = {
        "plain": ((4, 6), (6, 1), 0),
        "transposed": ((6, 4), (1, 6), 0),
        "inside": ((2, 3), (6, 2), 7),
        "expanded": ((2, 2), (0, 1), 5),
        "scalar": ((), (), 23),
        "empty": ((0, 3), (3, 1), 0),
    }
    old = form == "legacy"
    items = [
        torch_writer.entry(name, flat, "0", *view, legacy=old)
        for name, view in views.items()
    ]
    items[1] = torch_writer.parameter(items[1])
    whole = torch_writer.text("state_dict") + torch_writer.mapping(*items)
    content = torch_writer.mapping(torch_writer.text("epoch") + b"K\x03", whole)
    path = tmp_path / "w.pth"
    path.write_bytes(FORMATS[form](content, {"0": flat}))
    got = weight_files.read(path)
    assert got.keys() == views.keys()
    for name, (shape, strides, offset) in views.items():
        want = np.empty(shape, np.float32)
        for index in np.ndindex(*shape):
            want[index] = flat[offset + sum(np.multiply(index, strides))]
        np.testing.assert_array_equal(got[name], want, name)


@pytest.mark.parametrize("new", [True, False])
def test_torchs_own_files_are_read(tmp_path, new):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = net.state_dict() | {
        "half": torch.ones(3).to(torch.bfloat16),
        "view": torch.arange(6).reshape(2, 3).T,
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    file = tmp_path / "w.pth"
    torch.save(state, file, _use_new_zipfile_serialization=new)
    got = weight_files.read(file)
    assert got.keys() == state.keys()
    for name, tensor in state.items():
        want = tensor.detach().float().numpy()
        np.testing.assert_array_equal(got[name].astype(np.float32), want)


def test_the_real_legacy_file_is_read():
    folder = fetch.cached("efficientnet_lite0")
    if folder is None:
        pytest.skip("asset efficientnet_lite0 is not in the cache")
    got = weight_files.read(folder / "efficientnet-lite0-57934424.pth")
    assert len(got) == 296
    assert sum(a.size for n, a in got.items() if n.endswith(("weight", "bias"))) > 4e6
    assert all(np.isfinite(array).all() for array in got.values())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "module, name",
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("subtune_jax.models.weights.weight_files", "read"),
    ],
)
def test_a_pickle_that_calls_anything_else_is_refused_unrun(
    tmp_path, form, module, name
):
    mark = tmp_path / "ran"
    call = torch_writer.name_of(module, name) + b"("
    call += torch_writer.text(f"touch {mark}") + b"tR"
    path = tmp_path / "w.pth"
    path.write_bytes(
        FORMATS[form](torch_writer.mapping(torch_writer.text("x") + call), {})
    )
    said = message(weight_files.read, path)
    assert f"{module}.{name}" in said and str(path) in said
    assert not mark.exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "view",
    [
        ((5, 5), (5, 1), 0),
        ((4, 6), (6, 1), 1),
        ((2,), (-1,), 1),
        ((1,), (1,), 24),
        ((2,), (1, 1), 0),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path, form, view):
    flat = np.arange(24, dtype=np.float32)
    item = torch_writer.entry("x", flat, "0", *view, legacy=form == "legacy")
    path = tmp_path / "w.pth"
    path.write_bytes(FORMATS[form](torch_writer.mapping(item), {"0": flat}))
    assert "refused" in message(weight_files.read, path)


def test_a_storage_of_another_size_is_refused(tmp_path):
    flat = np.arange(24, dtype=np.float32)
    path = tmp_path / "w.pth"
    for form, old in ((torch_writer.zipped, False), (torch_writer.legacy, True)):
        item = torch_writer.entry("x", flat, "0", (2,), (1,), legacy=old)
        for other in (flat[:20], np.tile(flat, 2)):
            path.write_bytes(form(torch_writer.mapping(item), {"0": other}))
            assert "storage 0" in message(weight_files.read, path)


def test_a_pickle_of_no_tensors_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(torch_writer.zipped(b"]", {}))
    assert "a list that is not" in message(weight_files.read, path)
    item = torch_writer.text("lr") + b"K\x03"
    path.write_bytes(torch_writer.zipped(torch_writer.mapping(item), {}))
    assert "not a dict of tensors" in message(weight_files.read, path)


@pytest.mark.parametrize(
    "suffix", [".npz", ".safetensors", ".pth", ".pt", ".bin", ".onnx"]
)
def test_a_file_cut_short_or_of_another_format_is_one_clear_line(tmp_path, suffix):
    path = write(tmp_path / f"w{suffix}")
    whole = path.read_bytes()
    for share in (0, 1, 3, 5, 8, 12, 15):
        path.write_bytes(whole[: len(whole) * share // 16])
        assert str(path) in message(weight_files.read, path)
    path.write_bytes(b"<html>404 not found</html>\n" * 9)
    assert str(path) in message(weight_files.read, path)


def test_a_damaged_storage_is_an_error(tmp_path):
    path = write(tmp_path / "w.pth")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("archive/data/0").header_offset
    data[place + 80] ^= 0xFF
    path.write_bytes(data)
    assert "damaged" in message(weight_files.read, path)


def test_an_npz_with_pickled_objects_is_refused(tmp_path):
    np.savez(tmp_path / "w.npz", x=np.array([{}], object))
    assert "Object arrays" in message(weight_files.read, tmp_path / "w.npz")


def test_a_missing_file_an_empty_folder_and_a_suffix_are_named(tmp_path):
    said = message(weight_files.read, tmp_path / "no.npz", error=FileNotFoundError)
    assert "no.npz" in said
    said = message(weight_files.read, tmp_path, error=FileNotFoundError)
    assert "model.safetensors" in said
    (tmp_path / "w.h5").touch()
    assert ".h5" in message(weight_files.read, tmp_path / "w.h5")


def test_a_folder_holds_its_weights_by_the_usual_name(tmp_path):
    write(tmp_path / "model.safetensors")
    assert weight_files.read(tmp_path).keys() == arrays().keys()


def test_anonymous_onnx_weights_go_by_their_node(tmp_path, monkeypatch):
    path = write(tmp_path / "w.onnx")
    got = weight_files.read(path)
    assert got.keys() == {"layer.bias", "/fc1/MatMul"}
    assert got["/fc1/MatMul"].shape == (3, 4)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "subtune-jax[onnx]" in message(weight_files.read, path)


def shapes():
    def leaf(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    return {"one": {"kernel": leaf(2, 3), "bias": leaf(3)}, "two": {"scale": leaf(4)}}


def entries():
    return {
        "one/kernel": np.arange(6, dtype=np.float64).reshape(3, 2).T,
        "one/bias": np.arange(3, dtype=jnp.bfloat16),
        "two/scale": np.arange(4, dtype=np.int32),
    }


def test_fill_keeps_structure_and_casts_to_float32():
    tree = weight_files.fill(shapes(), entries(), "here")
    assert tree.keys() == {"one", "two"}
    kernel = tree["one"]["kernel"]
    np.testing.assert_array_equal(kernel, [[0, 2, 4], [1, 3, 5]])
    for array in (kernel, tree["one"]["bias"], tree["two"]["scale"]):
        assert array.dtype == np.float32 and array.flags.c_contiguous
    parts = Variables({"one": shapes()["one"]}, {"two": shapes()["two"]})
    filled = weight_files.fill(parts, entries(), "here")
    assert filled.params.keys() == {"one"} and filled.stats.keys() == {"two"}


def test_fill_lists_all_that_is_missing_extra_and_misshaped():
    arrays = entries() | {f"more{n}": np.zeros(1) for n in range(6)}
    arrays["one/kernel"] = np.zeros((3, 2))
    del arrays["one/bias"], arrays["two/scale"]
    said = message(weight_files.fill, shapes(), arrays, "w.npz")
    assert said.startswith("w.npz does not fit: 2 missing (one/bias, two/scale)")
    assert "6 extra (more0, more1, more2, more3, ...)" in said
    assert "1 misshaped (one/kernel is [3, 2], not [2, 3])" in said


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_fill_names_a_weight_that_is_not_finite(bad):
    arrays = entries()
    arrays["one/kernel"] = np.full((2, 3), bad)
    assert "w.npz: one/kernel" in message(weight_files.fill, shapes(), arrays, "w.npz")

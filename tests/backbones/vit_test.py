"""Vision transformers: the network of every file format, against a slow one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy
import scipy.ndimage
import torch_writer
from flax import nnx
from PIL import Image

from subtune_jax import fetch
from subtune_jax.backbones import vit
from subtune_jax.core import trees
from subtune_jax.models import attention
from subtune_jax.models.weights import position_tables

WIDTH, DEPTH, HEADS, PATCH, SIZE = 12, 2, 3, 4, 12
ERF = np.vectorize(math.erf)


def draw(layer_scale=False, seed=0):
    """Weights by neutral names, kernels `[out, in]`, large enough to matter.

    Only tokens are small, near the square root of an epsilon, so that it shows.
    """
    rng = np.random.default_rng(seed)
    shapes = {
        "patch": (WIDTH, 3, PATCH, PATCH),
        "patch_bias": (WIDTH,),
        "token": (WIDTH,),
        "table": (1 + (SIZE // PATCH) ** 2, WIDTH),
        "norm": (WIDTH,),
        "norm_bias": (WIDTH,),
    }
    for b in range(DEPTH):
        for name in ("q", "k", "v", "o"):
            shapes |= {f"{b}{name}": (WIDTH, WIDTH), f"{b}{name}_bias": (WIDTH,)}
        shapes |= {f"{b}up": (4 * WIDTH, WIDTH), f"{b}up_bias": (4 * WIDTH,)}
        shapes |= {f"{b}down": (WIDTH, 4 * WIDTH), f"{b}down_bias": (WIDTH,)}
        for n in (1, 2):
            shapes |= {f"{b}norm{n}": (WIDTH,), f"{b}norm{n}_bias": (WIDTH,)}
            if layer_scale:
                shapes[f"{b}scale{n}"] = (WIDTH,)
    small = ("patch", "patch_bias", "token", "table")
    return {
        name: rng.normal(0, 5e-4 if name in small else 0.5, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def slow(w, images, epsilon, gelu):
    """The features of each image by loops over patches, heads and tokens, float64."""
    w = {name: array.astype(np.float64) for name, array in w.items()}

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(
            x.var(-1, keepdims=True) + epsilon
        )
        return x * w[name] + w[f"{name}_bias"]

    def dense(x, name):
        return x @ w[name].T + w[f"{name}_bias"]

    rows = []
    for image in images.astype(np.float64):
        tokens = [w["token"]]
        for i in range(0, SIZE, PATCH):
            for j in range(0, SIZE, PATCH):
                cut = image[i : i + PATCH, j : j + PATCH].transpose(2, 0, 1)
                tokens.append((w["patch"] * cut).sum((1, 2, 3)) + w["patch_bias"])
        x = np.stack(tokens) + w["table"]
        for b in range(DEPTH):
            y = norm(x, f"{b}norm1")
            q, k, v = (dense(y, f"{b}{name}") for name in "qkv")
            read = np.zeros_like(x)
            for h in range(HEADS):
                own = slice(h * WIDTH // HEADS, (h + 1) * WIDTH // HEADS)
                for t in range(len(x)):
                    score = np.exp(k[:, own] @ q[t, own] / np.sqrt(WIDTH // HEADS))
                    read[t, own] = score @ v[:, own] / score.sum()
            x = x + dense(read, f"{b}o") * w.get(f"{b}scale1", 1)
            y = dense(norm(x, f"{b}norm2"), f"{b}up")
            if gelu == "exact":
                y = y * (1 + ERF(y / np.sqrt(2))) / 2
            else:
                y = y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3))) / 2
            x = x + dense(y, f"{b}down") * w.get(f"{b}scale2", 1)
        rows.append(norm(x, "norm")[0])
    return np.stack(rows)


def pairs(w, names):
    """`weight` and `bias` entries: their name -> ours."""
    out = {}
    for theirs, ours in names.items():
        out |= {f"{theirs}.weight": w[ours], f"{theirs}.bias": w[f"{ours}_bias"]}
    return out


def timm(w):
    out = {"cls_token": w["token"][None, None], "pos_embed": w["table"][None]}
    out |= pairs(w, {"patch_embed.proj": "patch", "norm": "norm"})
    for b in range(DEPTH):
        block = {"norm1": "norm1", "norm2": "norm2", "attn.proj": "o"}
        block |= {"mlp.fc1": "up", "mlp.fc2": "down"}
        out |= pairs(w, {f"blocks.{b}.{t}": f"{b}{o}" for t, o in block.items()})
        for theirs, ours in (("weight", ""), ("bias", "_bias")):
            parts = [w[f"{b}{name}{ours}"] for name in "qkv"]
            out[f"blocks.{b}.attn.qkv.{theirs}"] = np.concatenate(parts)
        for n in (1, 2):
            if f"{b}scale{n}" in w:
                out[f"blocks.{b}.ls{n}.gamma"] = w[f"{b}scale{n}"]
    head = {"head.weight": np.ones((5, WIDTH)), "head.bias": np.ones(5)}
    return out | {name: array.astype(np.float32) for name, array in head.items()}


def hugging_face(w, prefix="vit."):
    dino = "0scale1" in w
    stem = f"{prefix}embeddings."
    out = {f"{stem}cls_token": w["token"][None, None]}
    out[f"{stem}position_embeddings"] = w["table"][None]
    names = {f"{stem}patch_embeddings.projection": "patch"}
    names[f"{prefix}layernorm"] = "norm"
    norms = ("norm1", "norm2") if dino else ("layernorm_before", "layernorm_after")
    block = {norms[0]: "norm1", norms[1]: "norm2", "attention.output.dense": "o"}
    mlp = ("mlp.fc1", "mlp.fc2") if dino else ("intermediate.dense", "output.dense")
    block |= {mlp[0]: "up", mlp[1]: "down"}
    for name, ours in (("query", "q"), ("key", "k"), ("value", "v")):
        block[f"attention.attention.{name}"] = ours
    for b in range(DEPTH):
        layer = f"{prefix}encoder.layer.{b}."
        names |= {f"{layer}{theirs}": f"{b}{ours}" for theirs, ours in block.items()}
        for n in (1, 2) if dino else ():
            out[f"{layer}layer_scale{n}.lambda1"] = w[f"{b}scale{n}"]
    extra = {"classifier.weight": w["norm"][None], "classifier.bias": w["norm"][:1]}
    return out | pairs(w, names) | extra


def torchvision(w):
    out = {"class_token": w["token"][None, None]}
    out["encoder.pos_embedding"] = w["table"][None]
    names = {"conv_proj": "patch", "encoder.ln": "norm", "heads.head": "norm"}
    block = {"ln_1": "norm1", "ln_2": "norm2", "self_attention.out_proj": "o"}
    block |= {"mlp.0": "up", "mlp.3": "down"}
    for b in range(DEPTH):
        layer = f"encoder.layers.encoder_layer_{b}."
        names |= {f"{layer}{theirs}": f"{b}{ours}" for theirs, ours in block.items()}
        for theirs, ours in (("weight", ""), ("bias", "_bias")):
            parts = [w[f"{b}{name}{ours}"] for name in "qkv"]
            out[f"{layer}self_attention.in_proj_{theirs}"] = np.concatenate(parts)
    return out | pairs(w, names)


def jax_npz(w, *, old):
    """The names before Flax Linen (`old`) or since, as big_vision writes them."""
    norms = ("LayerNorm_0", "LayerNorm_2" if old else "LayerNorm_1")
    attn = f"MultiHeadDotProductAttention_{1 if old else 0}"
    mlp = f"MlpBlock_{3 if old else 0}"
    table = "Transformer/posembed_input/pos_embedding" if old else "pos_embedding"
    out = {"cls": w["token"][None, None], table: w["table"][None]}
    out |= {"embedding/kernel": w["patch"].transpose(2, 3, 1, 0)}
    out |= {"embedding/bias": w["patch_bias"]}

    def norm(theirs, ours):
        return {f"{theirs}/scale": w[ours], f"{theirs}/bias": w[f"{ours}_bias"]}

    out |= norm("Transformer/encoder_norm", "norm")
    split = (HEADS, WIDTH // HEADS)
    for b in range(DEPTH):
        block = f"Transformer/encoderblock_{b}"
        for n in (1, 2):
            out |= norm(f"{block}/{norms[n - 1]}", f"{b}norm{n}")
        for theirs, ours in (("query", "q"), ("key", "k"), ("value", "v")):
            kernel = w[f"{b}{ours}"].T.reshape(WIDTH, *split)
            out[f"{block}/{attn}/{theirs}/kernel"] = kernel
            out[f"{block}/{attn}/{theirs}/bias"] = w[f"{b}{ours}_bias"].reshape(split)
        out[f"{block}/{attn}/out/kernel"] = w[f"{b}o"].T.reshape(*split, WIDTH)
        out[f"{block}/{attn}/out/bias"] = w[f"{b}o_bias"]
        for n, ours in enumerate(("up", "down")):
            out[f"{block}/{mlp}/Dense_{n}/kernel"] = w[f"{b}{ours}"].T
            out[f"{block}/{mlp}/Dense_{n}/bias"] = w[f"{b}{ours}_bias"]
    out["head/kernel"] = np.ones((WIDTH, 5), np.float32)
    out["pre_logits/bias"] = np.ones(WIDTH, np.float32)
    return (
        out
        if old
        else {f"params/{n}": a for n, a in out.items()} | {"opt/x": w["norm"]}
    )


def write(path, arrays):
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        path.parent.mkdir(exist_ok=True)
        safetensors.numpy.save_file(arrays, path)
    else:
        path.write_bytes(torch_writer.state_dict(arrays))
    return path


def shape(layer_scale=False):
    return (WIDTH, DEPTH, HEADS, PATCH, layer_scale)


def features(backbone, images, dtype=jnp.float32):
    variables = backbone.load()
    x = jnp.asarray(images, dtype)
    return np.asarray(backbone.apply(*variables, x, stop="head")[0].astype("float32"))


def pixels(count=2, size=SIZE):
    rng = np.random.default_rng(1)
    return rng.normal(size=(count, size, size, 3)).astype(np.float32)


FILES = {
    "timm.pth": (timm, False, "exact", 1e-6),
    "timm.safetensors": (timm, True, "exact", 1e-6),
    "hf/model.safetensors": (hugging_face, False, "exact", 1e-12),
    "bare.bin": (lambda w: hugging_face(w, ""), False, "exact", 1e-12),
    "dino.safetensors": (lambda w: hugging_face(w, "dinov2."), True, "exact", 1e-6),
    "torchvision.pth": (torchvision, False, "exact", 1e-6),
    "old.npz": (lambda w: jax_npz(w, old=True), False, "tanh", 1e-6),
    "new.npz": (lambda w: jax_npz(w, old=False), False, "tanh", 1e-6),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_each_library_gives_its_librarys_features(tmp_path, name):
    layout, scale, gelu, epsilon = FILES[name]
    w = draw(scale)
    path = write(tmp_path / name, layout(w))
    source = path.parent if name.startswith("hf/") else path
    backbone = vit.make(shape(scale), str(source), SIZE)
    want = slow(w, pixels(), epsilon, gelu)
    np.testing.assert_allclose(features(backbone, pixels()), want, atol=2e-5)
    # Another GELU or epsilon would have failed.
    other = slow(w, pixels(), epsilon, "tanh" if gelu == "exact" else "exact")
    assert np.abs(other - want).max() > 1e-4
    other = slow(w, pixels(), 1e-6 if epsilon == 1e-12 else 1e-12, gelu)
    assert np.abs(other - want).max() > 1e-4


def test_epsilon_gelu_and_pixels_come_from_the_layout_or_the_caller(tmp_path):
    w = draw()
    path = str(write(tmp_path / "w.pth", timm(w)))
    tanh = vit.make(shape(), path, SIZE, gelu="tanh", epsilon=0.1, normalize="imagenet")
    want = slow(w, pixels(), 0.1, "tanh")
    np.testing.assert_allclose(features(tanh, pixels()), want, atol=2e-5)
    assert tanh.normalize[0][0] == 123.675
    assert vit.make(shape(), path, SIZE).normalize == ((127.5,) * 3, (127.5,) * 3)


def test_the_real_s14_gives_the_onnx_files_own_features():
    if fetch.cached("vit_s14") is None:
        pytest.skip("asset vit_s14 is not in the cache")
    model = onnx.load(fetch.path("vit_s14") / "vit_s_focus.onnx")
    name = "/backbone/layernorm/Add_1_output_0"
    model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    x = pixels(1, 224)
    (tokens,) = session.run([name], {"input_image": x.transpose(0, 3, 1, 2)})
    got = features(vit.make("S/14", "vit_s14"), x)
    error = np.abs(got - tokens[:, 0]).max() / np.abs(tokens[:, 0]).max()
    assert error < 1e-5  # measured 9e-7; the promise is 1e-3


def said(*arguments, **options):
    with pytest.raises(ValueError) as caught:
        vit.make(*arguments, **options).load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_that_does_not_fit_is_refused_with_names(tmp_path):
    full = timm(draw())
    path = tmp_path / "w.safetensors"
    write(path, {n: a for n, a in full.items() if n != "blocks.1.mlp.fc2.bias"})
    assert "1 missing (block02/fc2/bias)" in said(shape(), str(path), SIZE)
    write(path, full | {"reg_token": np.ones(3, np.float32)})
    assert "1 extra (reg_token)" in said(shape(), str(path), SIZE)
    write(path, timm(draw(layer_scale=True)))
    assert "4 extra (block01/scale1" in said(shape(), str(path), SIZE)
    write(path, full)
    wide = said((24, DEPTH, HEADS, PATCH), str(path), SIZE)
    assert "misshaped (block01/attn/key/bias is [12], not [24], " in wide
    write(path, {"fc.weight": np.ones(3, np.float32)})
    assert "no ViT" in said(shape(), str(path), SIZE)
    bad = full | {"norm.bias": np.full(WIDTH, np.nan, np.float32)}
    write(path, bad)
    assert "norm/bias" in said(shape(), str(path), SIZE)


def test_an_npz_of_another_number_of_heads_is_refused(tmp_path):
    path = write(tmp_path / "w.npz", jax_npz(draw(), old=True))
    heads = said((WIDTH, DEPTH, 2, PATCH, False), str(path), SIZE)
    assert "block01/attn/key/kernel is [12, 3, 4], not [12, 12]" in heads


def test_unusable_arguments_are_refused():
    assert "S/16" in said("S/15")
    assert "multiples of the patch, 16" in said("S/16", image_size=100)
    assert "divisible" in said((16, 2, 3, 8), image_size=16)
    assert "exact" in said(**vit.TINY, gelu="exakt")
    assert "imagenet" in said(**vit.TINY, normalize="image")


def test_the_random_base_is_the_seeds_and_holds_no_head():
    one, same, other = (vit.make(**vit.TINY, seed=s).load().params for s in (0, 0, 1))
    assert one.keys() == {"embed", "block01", "block02", "norm"}
    one, same, other = map(trees.flatten, (one, same, other))
    assert all(np.array_equal(one[path], same[path]) for path in one)
    assert not np.array_equal(one["embed/kernel"], other["embed/kernel"])


def test_bfloat16_images_are_computed_in_bfloat16():
    backbone = vit.make(**vit.TINY)
    params = backbone.init(jax.random.key(0), 3).params
    x = pixels(2, 16)
    low, _ = backbone.apply(params, {}, jnp.asarray(x, jnp.bfloat16), stop="head")
    assert low.dtype == jnp.bfloat16
    high, _ = backbone.apply(params, {}, x, stop="head")
    np.testing.assert_allclose(low.astype(jnp.float32), high, atol=0.06)


def test_gelu_is_exact_to_float32_with_its_gradient():
    x = np.linspace(-8, 8, 801)
    cdf = (1 + ERF(x / np.sqrt(2))) / 2
    slope = cdf + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    narrow = jnp.asarray(x, jnp.float32)
    np.testing.assert_allclose(attention.gelu(narrow), x * cdf, atol=1e-6)
    got = jax.vmap(jax.grad(attention.gelu))(narrow)
    np.testing.assert_allclose(got, slope, atol=1e-6)


def test_masked_tokens_are_not_read():
    layer = attention.Attention(8, 2, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 8)), jnp.float32)
    mask = jnp.array([[1, 1, 1, 0, 0]] * 2)
    np.testing.assert_allclose(layer(x, mask)[:, :3], layer(x[:, :3]), atol=1e-5)


def keys_cubic(d, a):
    d = abs(d)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def slow_cubic(grid, new):
    """Bicubic as PyTorch's: each new point from its 4 x 4 neighbours."""
    old = len(grid)
    out = np.zeros((new, new, grid.shape[2]))
    for i in range(new):
        for j in range(new):
            y, x = ((n + 0.5) * old / new - 0.5 for n in (i, j))
            for p in range(math.floor(y) - 1, math.floor(y) + 3):
                for q in range(math.floor(x) - 1, math.floor(x) + 3):
                    weight = keys_cubic(y - p, -0.75) * keys_cubic(x - q, -0.75)
                    inside = np.clip([p, q], 0, old - 1)
                    out[i, j] += weight * grid[inside[0], inside[1]]
    return out


def pillow_cubic(grid, new):
    planes = [
        np.asarray(Image.fromarray(plane).resize((new, new), Image.Resampling.BICUBIC))
        for plane in grid.astype(np.float32).transpose(2, 0, 1)
    ]
    return np.stack(planes, -1)


def zoom(grid, new):
    return scipy.ndimage.zoom(grid, (new / len(grid), new / len(grid), 1), order=1)


ORACLES = {"cubic": slow_cubic, "antialiased": pillow_cubic, "linear": zoom}


@pytest.mark.parametrize("how", ORACLES)
@pytest.mark.parametrize("old, new", [(3, 5), (5, 3), (7, 2), (4, 4)])
def test_position_tables_are_resampled_as_their_library_does(how, old, new):
    table = np.random.default_rng(0).normal(size=(1 + old * old, 6))
    got = position_tables.resample(table, 1 + new * new, how)
    np.testing.assert_array_equal(got[0], table[0])
    want = (
        ORACLES[how](table[1:].reshape(old, old, 6), new) if old != new else table[1:]
    )
    np.testing.assert_allclose(got[1:], want.reshape(new * new, 6), atol=1e-5)


def test_a_table_without_a_class_position_gets_zeros():
    table = np.random.default_rng(0).normal(size=(9, 6))
    got = position_tables.resample(table, 10, "cubic")
    np.testing.assert_array_equal(got, np.concatenate([np.zeros((1, 6)), table]))
    with pytest.raises(ValueError, match="8 positions"):
        position_tables.resample(table[:8], 10, "cubic")


def test_a_loaded_base_is_resampled_to_the_image_size(tmp_path):
    w = draw()
    path = str(write(tmp_path / "w.npz", jax_npz(w, old=True)))
    table = vit.make(shape(), path, 5 * PATCH).load().params["embed"]["position"]
    want = zoom(w["table"][1:].reshape(3, 3, WIDTH), 5).reshape(25, WIDTH)
    np.testing.assert_allclose(table[1:], want, atol=1e-6)

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from subtune_jax import fetch
from subtune_jax.backbones import efficientnet_lite0
from subtune_jax.core import trees

FILE_NAMES = {  # of the blocks of TINY, as the file calls them
    "stem/conv": "_conv_stem",
    "stem/norm": "_bn0",
    "block01/filter": "_blocks.0._depthwise_conv",
    "block01/filter_norm": "_blocks.0._bn1",
    "block01/project": "_blocks.0._project_conv",
    "block01/project_norm": "_blocks.0._bn2",
    "block02/expand": "_blocks.1._expand_conv",
    "block02/expand_norm": "_blocks.1._bn0",
    "block02/filter": "_blocks.1._depthwise_conv",
    "block02/filter_norm": "_blocks.1._bn1",
    "block02/project": "_blocks.1._project_conv",
    "block02/project_norm": "_blocks.1._bn2",
    "top/conv": "_conv_head",
    "top/norm": "_bn1",
}


def tiny(weights=None):
    return efficientnet_lite0.make(
        **{**efficientnet_lite0.TINY, "weights": weights and str(weights)}
    )


def drawn(seed=0):
    """Variables of the tiny network with norms that do something, and an input."""
    rng = np.random.default_rng(seed)
    params, stats = tiny().init(jax.random.key(seed), 3)

    def move(path, leaf):
        low, high = {"var": (0.2, 2), "scale": (0.5, 2)}.get(
            path.split("/")[-1], (-1, 1)
        )
        return leaf if "kernel" in path else rng.uniform(low, high, leaf.shape)

    params, stats = (trees.map_leaves(move, tree) for tree in (params, stats))
    return *jax.tree.map(jnp.float32, (params, stats)), rng.normal(size=(2, 32, 32, 3))


@pytest.fixture
def state(monkeypatch):
    """A state dict of the tiny network, which every file is said to hold."""
    params, stats, _ = drawn()
    values = trees.flatten({**params, "head": {}}) | trees.flatten(stats)
    new = {"scale": "weight", "mean": "running_mean", "var": "running_var"}
    entries = {}
    for path, value in values.items():
        owner, leaf = path.rsplit("/", 1)
        name, value = FILE_NAMES[owner], np.asarray(value)
        if leaf == "kernel":
            leaf, value = "weight", value.transpose(3, 2, 0, 1)  # torch: out, in, k, k
        entries[f"{name}.{new.get(leaf, leaf)}"] = value
        if leaf == "var":
            entries[f"{name}.num_batches_tracked"] = np.int64(7)
    entries |= {"_fc.weight": np.ones((9, 16)), "_fc.bias": np.ones(9)}
    monkeypatch.setattr(efficientnet_lite0.weight_files, "read", lambda path: entries)
    return entries


def test_a_file_fills_every_leaf_of_the_base(state):
    base = tiny("file.pth").load()
    params, stats, _ = drawn()
    params.pop("head")
    jax.tree.map(np.testing.assert_array_equal, tuple(base), (params, stats))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("_bn1.bias"), "1 missing .top/norm/bias"),
        (lambda s: s.update({"_se.weight": np.ones(3)}), "1 extra ._se/"),
        (lambda s: s.update({"_bn1.bias": np.ones(3)}), "1 misshaped .top/norm/bias"),
        (lambda s: s.update({"_fc.scale": np.ones(3)}), None),
    ],
    ids=["missing", "extra", "misshaped", "classifier"],
)
def test_a_file_that_does_not_fit_is_refused(state, change, message):
    change(state)
    if message is None:  # the classifier is new for every task
        tiny("file.pth").load()
        return
    with pytest.raises(ValueError, match=message):
        tiny("file.pth").load()


def test_a_file_of_another_network_is_refused(state):
    with pytest.raises(ValueError, match="file.pth does not fit: .* missing"):
        efficientnet_lite0.make("file.pth").load()


def test_there_must_be_a_file():
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        tiny("nowhere.pth").load()


def windows(x, size, stride):
    """For each kernel offset: (i, j), the pixels it meets; padding as TensorFlow's."""
    down = -(-x.shape[1] // stride)
    before = max((down - 1) * stride + size - x.shape[1], 0) // 2
    padded = np.pad(x, ((0, 0), (before, size), (before, size), (0, 0)))
    end = stride * down
    for i, j in np.ndindex(size, size):
        yield (i, j), padded[:, i : i + end : stride, j : j + end : stride]


def literal_forward(params, stats, x):
    """The tiny network in NumPy and float64, layer by layer."""
    params, stats = jax.tree.map(lambda a: np.asarray(a, np.float64), (params, stats))

    def norm(block, name, x):
        own, running = params[block][name], stats[block][name]
        normal = (x - running["mean"]) / np.sqrt(running["var"] + 1e-3)
        return normal * own["scale"] + own["bias"]

    def relu6(x):
        return np.clip(x, 0, 6)

    kernel = params["stem"]["conv"]["kernel"]
    x = sum(w @ kernel[i, j] for (i, j), w in windows(x, 3, 2))
    x = relu6(norm("stem", "norm", x))
    for block, size, stride in [("block01", 3, 1), ("block02", 5, 2)]:
        y, own = x, params[block]
        if "expand" in own:
            y = relu6(norm(block, "expand_norm", y @ own["expand"]["kernel"][0, 0]))
        kernel = own["filter"]["kernel"]
        y = sum(w * kernel[i, j, 0] for (i, j), w in windows(y, size, stride))
        y = relu6(norm(block, "filter_norm", y)) @ own["project"]["kernel"][0, 0]
        y = norm(block, "project_norm", y)
        x = x + y if block == "block01" else y
    x = relu6(norm("top", "norm", x @ params["top"]["conv"]["kernel"][0, 0]))
    return x.mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]


def test_the_network_is_its_definition():
    params, stats, x = drawn()
    logits, after = jax.jit(tiny().apply)(params, stats, jnp.float32(x))
    truth = literal_forward(params, stats, x)
    np.testing.assert_allclose(logits, truth, rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after, stats)


def test_only_blocks_in_training_move_their_statistics():
    params, stats, x = drawn()
    training = ("block01", "top")
    _, after = jax.jit(lambda *a: tiny().apply(*a, training=training))(
        params, stats, jnp.float32(x)
    )
    for path, old in trees.flatten(stats).items():
        moved = not np.array_equal(old, trees.flatten(after)[path])
        assert moved == path.startswith(training), path


STRIDED = [("stem", "conv/kernel"), ("block02", "filter/kernel")]


def products(params, pixels):
    """Floating-point operations of each block's convolutions, forward, one image."""
    counts = {}
    for block, own in params.items():
        counts[block] = 0
        for path, leaf in trees.flatten(own).items():
            if (block, path) in STRIDED:
                pixels //= 2  # "expand" is sorted before "filter"
            if path.endswith("kernel"):
                counts[block] += 2 * leaf.size * (1 if block == "head" else pixels**2)
    return counts


@pytest.mark.parametrize("block", ["stem", "block02", "top"])
def test_training_a_block_costs_its_products_and_no_more(block):
    stages = efficientnet_lite0.STAGES[:2]
    backbone = efficientnet_lite0.make(None, 64, stages=stages, widths=(32, 256))
    params, stats = jax.eval_shape(lambda: backbone.init(jax.random.key(0), 2))
    x, order = jax.ShapeDtypeStruct((4, 64, 64, 3), jnp.float32), backbone.blocks
    forward = products({name: params[name] for name in order}, 64)

    def loss(own, rest, stats, x):
        return backbone.apply({**rest, **own}, stats, x)[0].sum()

    step = jax.jit(jax.value_and_grad(loss))
    rest = {name: params[name] for name in order if name != block}
    cost = step.lower({block: params[block]}, rest, stats, x).compile().cost_analysis()
    # All forward; above the block the gradient of inputs; in it that of kernels too.
    above = order[order.index(block) + 1 :]
    need = sum(forward.values()) + sum(forward[name] for name in above)
    need += forward[block] * (2 if "block" in block else 1)
    assert cost["flops"] / 4 < 1.1 * need


@pytest.mark.parametrize("pixels", [128, 57])
def test_the_real_network_has_its_blocks_and_sizes(pixels):
    backbone = efficientnet_lite0.make(weights=None, image_size=pixels)
    assert backbone.blocks == (
        "stem",
        *(f"block{number:02d}" for number in range(1, 17)),
        "top",
        "head",
    )
    variables = jax.eval_shape(lambda: backbone.init(jax.random.key(0), 1000))
    assert sum(p.size for p in jax.tree.leaves(variables.params)) == 4_652_008
    x = jax.ShapeDtypeStruct((2, *backbone.input_shape), jnp.bfloat16)
    features, _ = jax.eval_shape(
        lambda v, x: backbone.apply(*v, x, stop="top"), variables, x
    )
    assert features.shape == (2, -(-pixels // 32), -(-pixels // 32), 320)
    assert features.dtype == jnp.bfloat16


def test_real_weights_recognise_real_photos():
    asset, photos = (
        fetch.cached(name) for name in ("efficientnet_lite0", "imagenet_photos")
    )
    if asset is None or photos is None:
        pytest.skip("not fetched: efficientnet_lite0, imagenet_photos")
    files = sorted(photos.glob("imagenet_*.jpg"))
    labels = [int(re.fullmatch(r"imagenet_\d+_(\d+)", file.stem)[1]) for file in files]
    assert len(files) == 20
    backbone = efficientnet_lite0.make()
    base = backbone.load()
    params = {**base.params, "head": efficientnet_lite0.imagenet_head()}
    x = np.stack([central(Image.open(file).convert("RGB"), 224) for file in files])
    mean, std = backbone.normalize
    logits, _ = jax.jit(backbone.apply)(
        params, base.stats, jnp.float32((x - np.array(mean)) / np.array(std))
    )
    assert np.sum(np.argmax(np.asarray(logits), -1) == labels) >= 18


def central(image, size):
    """As the network was evaluated: the central square, 7/8 of the shorter side."""
    side = min(image.size) * size / (size + 32)
    left, upper = ((length - side) / 2 for length in image.size)
    box = (left, upper, left + side, upper + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))

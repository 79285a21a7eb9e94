"""Residual networks: torchvision's and timm's own numbers, and a slow definition."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch_writer
from jax import lax

from subtune_jax.backbones import resnet
from subtune_jax.core import trees

LAYOUTS = {"18": (2, (2, 2, 2, 2), 1), "50": (3, (3, 4, 6, 3), 4)}
CLASSES = 10
SEEN = ("bn1", "layer2.0.downsample.1", "layer3.1.bn2", "layer4.1.bn1")
# What `reference` gives, in float64: eight logits of two images with the norms in
# evaluation mode, then in training mode, and means and variances that it leaves.
REFERENCE = {
    "18": [
        [
            1.727338431,
            0.622219427,
            -0.0118932808,
            -0.3393387782,
            1.671112352,
            0.7840357803,
            -0.09015005438,
            -0.3632579849,
        ],
        [
            1.456222061,
            0.708990336,
            -1.198247379,
            1.109652222,
            2.04884532,
            1.328273799,
            0.4307495976,
            0.01904960045,
        ],
        [0.1154382354, -0.1503968051, -0.1664344912, -0.240182907],
        [0.80734959, 1.141382273, 1.210120581, 0.9172603888],
    ],
    "50": [
        [
            1.50237511,
            2.520255146,
            -2.665550752,
            0.172374614,
            1.430254309,
            2.52770655,
            -2.660756227,
            0.1498310535,
        ],
        [
            4.724673496,
            5.922131922,
            -3.3385379,
            0.1704432678,
            2.108525114,
            4.219903106,
            -4.288894523,
            1.17889487,
        ],
        [0.1154382354, -0.08491941613, -0.1754372495, -0.1696400918],
        [0.80734959, 1.116614995, 1.213334174, 0.917597259],
    ],
}


def file_shapes(variant):
    """Names and shapes in a file of ResNet-18 or -50, as torchvision and timm say."""
    depth, counts, expansion = LAYOUTS[variant]
    shapes = {}

    def unit(conv, norm, inputs, outputs, size):
        shapes[f"{conv}.weight"] = (outputs, inputs, size, size)
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{leaf}"] = (outputs,)
        shapes[f"{norm}.num_batches_tracked"] = ()

    unit("conv1", "bn1", 3, 64, 7)
    inputs = 64
    for stage, count in enumerate(counts, 1):
        width = 32 * 2**stage
        for b in range(count):
            own, outputs = f"layer{stage}.{b}", width * expansion
            ends = [inputs, *[width] * (depth - 1), outputs]
            for i in range(depth):
                size = 3 if depth == 2 or i == 1 else 1
                unit(f"{own}.conv{i + 1}", f"{own}.bn{i + 1}", *ends[i : i + 2], size)
            if b == 0 and (stage > 1 or inputs != outputs):
                unit(f"{own}.downsample.0", f"{own}.downsample.1", inputs, outputs, 1)
            inputs = outputs
    return shapes | {"fc.weight": (CLASSES, inputs), "fc.bias": (CLASSES,)}


def draw(name, shape):
    """The array of that name: what it holds depends on nothing else."""
    # RandomState's numbers are the same in every version of NumPy.
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.array(7)
    if len(shape) == 4:
        values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) == 1 and name.endswith("weight"):
        values = rng.uniform(0.2, 0.8, shape)
    else:
        values = 0.1 * rng.standard_normal(shape)
    return values.astype(np.float32)


def drawn(variant):
    return {name: draw(name, shape) for name, shape in file_shapes(variant).items()}


def pixels(count=2, size=64):
    return np.random.RandomState(0).standard_normal((count, size, size, 3))


def reference(library, variant):
    """The numbers in REFERENCE, from the library itself."""
    models = pytest.importorskip(library)
    import torch

    if library == "timm":
        model = models.create_model(f"resnet{variant}", num_classes=CLASSES)
    else:
        model = getattr(models, f"resnet{variant}")(num_classes=CLASSES)
    state = {name: torch.tensor(array) for name, array in drawn(variant).items()}
    model.load_state_dict(state, strict=True)
    model.double()
    x = torch.tensor(pixels().transpose(0, 3, 1, 2))
    with torch.no_grad():
        both = [model.train(mode)(x)[:, :4].flatten() for mode in (False, True)]
    after = model.state_dict()
    means = [float(after[f"{norm}.running_mean"][0]) for norm in SEEN]
    variances = [float(after[f"{norm}.running_var"][0]) for norm in SEEN]
    return [*(logits.tolist() for logits in both), means, variances]


@pytest.mark.parametrize("variant", LAYOUTS)
@pytest.mark.parametrize("library", ["torchvision.models", "timm"])
def test_the_reference_is_the_librarys(library, variant):
    for numbers, truth in zip(
        reference(library, variant), REFERENCE[variant], strict=True
    ):
        np.testing.assert_allclose(numbers, truth, rtol=1e-8)


def write(path, arrays):
    if path.suffix == ".safetensors":
        safetensors.numpy.save_file(arrays, path)
    else:
        path.write_bytes(torch_writer.state_dict(arrays))
    return str(path)


def run(backbone, params, stats, x, training=()):
    apply = jax.jit(functools.partial(backbone.apply, training=training))
    return apply(params, stats, jnp.asarray(x, jnp.float32))


@pytest.mark.parametrize("variant, suffix", [("18", ".pth"), ("50", ".safetensors")])
def test_a_file_gives_its_librarys_outputs_and_statistics(variant, suffix, tmp_path):
    arrays = drawn(variant)
    path = write(tmp_path / f"weights{suffix}", arrays)
    backbone = resnet.make(variant, path, image_size=64)
    params, stats = backbone.load()
    params["head"] = {"kernel": arrays["fc.weight"].T, "bias": arrays["fc.bias"]}
    frozen, same = run(backbone, params, stats, pixels())
    trained, moved = run(backbone, params, stats, pixels(), backbone.blocks)
    jax.tree.map(np.testing.assert_array_equal, same, stats)
    running = [
        moved["stem"]["norm"],
        moved["layer2_0"]["shortcut"]["norm"],
        moved["layer3_1"]["norm2"],
        moved["layer4_1"]["norm1"],
    ]
    computed = [frozen[:, :4].ravel(), trained[:, :4].ravel()]
    computed += [[norm[leaf][0] for norm in running] for leaf in ("mean", "var")]
    for values, truth in zip(computed, REFERENCE[variant], strict=True):
        error = np.abs(np.subtract(values, truth)).max() / np.abs(truth).max()
        assert error < 1e-4  # measured 4e-7 frozen, 4e-5 trained: 8 pixels a norm


def seen_by(x, size, stride):
    """For each offset of a kernel, the pixels that it meets; torch's padding."""
    around = (size // 2, size // 2)
    padded = np.pad(x, ((0, 0), around, around, (0, 0)))
    down, right = x.shape[1:3]
    for i, j in np.ndindex(size, size):
        yield (i, j), padded[:, i : i + down : stride, j : j + right : stride]


def literal(params, stats, x, training):
    """ResNet-26 in NumPy and float64, layer by layer: logits and new statistics."""
    params, stats = jax.tree.map(lambda a: np.array(a, np.float64), (params, stats))
    moved = {}

    def unit(x, block, number, stride=1):
        kernel = params[block][f"conv{number}"]["kernel"]
        x = sum(p @ kernel[at] for at, p in seen_by(x, len(kernel), stride))
        own, old = params[block][f"norm{number}"], stats[block][f"norm{number}"]
        mean, var = old["mean"], old["var"]
        if training:
            mean, var, count = x.mean((0, 1, 2)), x.var((0, 1, 2)), x[..., 0].size
            path = f"{block}/norm{number}"
            moved[f"{path}/mean"] = 0.9 * old["mean"] + 0.1 * mean
            moved[f"{path}/var"] = 0.9 * old["var"] + 0.1 * var * count / (count - 1)
        return (x - mean) / np.sqrt(var + 1e-5) * own["scale"] + own["bias"]

    x = np.maximum(unit(x, "stem", ""), 0)
    for stage in (1, 2, 3):
        for number in range(4):
            block = f"layer{stage}_{number}"
            stride = 2 if stage > 1 and number == 0 else 1
            y = np.maximum(unit(x, block, 1, stride), 0)
            y = unit(y, block, 2)
            channels = (y.shape[3] - x.shape[3]) // 2
            x = x[:, ::stride, ::stride]
            x = np.pad(x, ((0, 0), (0, 0), (0, 0), (channels, channels)))
            x = np.maximum(x + y, 0)
    logits = x.mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]
    return logits, moved


def small(size, seed=0):
    """ResNet-26 with norms that do something, and images."""
    rng = np.random.default_rng(seed)
    backbone = resnet.make("26", image_size=size)
    params, stats = jax.jit(backbone.init, static_argnums=1)(jax.random.key(0), 3)

    def move(path, leaf):
        low, high = {"var": (0.5, 2), "scale": (0.3, 1)}.get(
            path.split("/")[-1], (-1, 1)
        )
        return leaf if "conv" in path else rng.uniform(low, high, leaf.shape)

    params, stats = (trees.map_leaves(move, tree) for tree in (params, stats))
    params, stats = jax.tree.map(jnp.float32, (params, stats))
    return backbone, params, stats, rng.normal(size=(4, size, size, 3))


@pytest.mark.parametrize("size", [8, 9])
def test_the_small_network_is_its_definition_in_both_modes(size):
    backbone, params, stats, x = small(size)
    for training in ((), backbone.blocks):
        logits, after = run(backbone, params, stats, x, training)
        truth, moved = literal(params, stats, x, bool(training))
        error = np.abs(logits - truth).max() / np.abs(truth).max()
        assert error < 1e-4
        for path, value in trees.flatten(after).items():
            old = trees.flatten(stats)[path]
            np.testing.assert_allclose(value, moved.get(path, old), 1e-4, 1e-4)


def test_one_block_is_trained_by_the_gradient_of_its_definition():
    backbone, params, stats, x = small(8)
    rng = np.random.default_rng(1)
    here = jax.tree.map(lambda a: np.array(a, np.float64), params["layer1_0"])
    way = jax.tree.map(lambda a: rng.normal(size=a.shape), here)

    def loss(own):
        logits, _ = backbone.apply({**params, "layer1_0": own}, stats, jnp.float32(x))
        return jnp.sum(jnp.square(logits))

    def moved(step):
        there = jax.tree.map(lambda a, w: a + step * w, here, way)
        logits, _ = literal({**params, "layer1_0": there}, stats, x, False)
        return np.sum(np.square(logits))

    gradient = jax.jit(jax.grad(loss))(params["layer1_0"])
    slopes = jax.tree.map(lambda g, w: np.sum(g * w), gradient, way)
    truth = (moved(1e-6) - moved(-1e-6)) / 2e-6
    np.testing.assert_allclose(sum(jax.tree.leaves(slopes)), truth, rtol=1e-3)


@pytest.mark.parametrize("pixels", [(6, 6), (7, 5), (1, 2)], ids=str)
def test_the_pool_is_the_native_one_in_value_and_gradient(pixels):
    rng = np.random.default_rng(0)
    x = jnp.float32(rng.normal(size=(2, *pixels, 3)) - 2)  # zeros would be the largest

    def native(x):
        around = ((0, 0), (1, 1), (1, 1), (0, 0))
        window = (1, 3, 3, 1), (1, 2, 2, 1), around
        return lax.reduce_window(x, -jnp.inf, lax.max, *window)

    pooled, truth = resnet._max_pool(x), native(x)
    np.testing.assert_array_equal(pooled, truth)
    one, two = (
        jax.grad(lambda x, pool=pool: jnp.sum(jnp.sin(pool(x))))(x)
        for pool in (resnet._max_pool, native)
    )
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "variant, count, base",
    # Parameters below the head, as the libraries count them.
    [("18", 8, 11_176_512), ("26", 12, 366_288), ("50", 16, 23_508_032)],
)
def test_every_parameter_is_in_one_of_the_blocks(variant, count, base):
    backbone = resnet.make(variant)
    stages = resnet.VARIANTS[variant].stages
    inner = [f"layer{s}_{b}" for s, row in enumerate(stages, 1) for b in range(row[1])]
    assert backbone.blocks == ("stem", *inner, "head")
    assert len(inner) == count
    params, stats = jax.eval_shape(lambda: backbone.init(jax.random.key(0), 7))
    assert params.keys() == set(backbone.blocks) and stats.keys() < params.keys()
    head = params.pop("head")
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == base
    assert head["kernel"].shape[1] == 7


@pytest.mark.parametrize("variant", ["18", "50"])
@pytest.mark.parametrize("size", [57, 96])
def test_images_of_any_size_reach_the_head_as_one_row(variant, size):
    backbone = resnet.make(variant, image_size=size)
    variables = jax.eval_shape(lambda: backbone.init(jax.random.key(0), 7))
    x = jax.ShapeDtypeStruct((2, *backbone.input_shape), jnp.bfloat16)
    shapes = [
        jax.eval_shape(
            lambda v, x, s=stop: backbone.apply(*v, x, stop=s)[0], variables, x
        )
        for stop in ("layer4_1", "head")
    ]
    width = 512 * LAYOUTS[variant][2]
    maps = -(-size // 32)
    assert [s.shape for s in shapes] == [(2, maps, maps, width), (2, width)]
    assert {s.dtype for s in shapes} == {jnp.dtype(jnp.bfloat16)}


SHORT = (64, False, (("basic", 1, 64),))  # ResNet-18 as far as its first block


def short_file():
    stages = ("layer1.1", "layer2", "layer3", "layer4")
    return {n: a for n, a in drawn("18").items() if not n.startswith(stages)}


def test_a_file_of_a_network_that_was_wrapped_for_devices_is_the_same(tmp_path):
    arrays = short_file()
    plain = write(tmp_path / "plain.pth", arrays)
    wrapped = {f"module.{name}": array for name, array in arrays.items()}
    wrapped = write(tmp_path / "wrapped.pth", wrapped)
    one, two = (resnet.make(SHORT, path).load() for path in (plain, wrapped))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    kernel = one.params["layer1_0"]["conv2"]["kernel"]
    theirs = arrays["layer1.0.conv2.weight"]
    np.testing.assert_array_equal(kernel, theirs.transpose(2, 3, 1, 0))


def said(*arguments, **options):
    with pytest.raises(ValueError) as caught:
        resnet.make(*arguments, **options).load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_that_does_not_fit_is_refused_with_names(tmp_path):
    arrays, path = short_file(), tmp_path / "w.safetensors"
    less = {name: a for name, a in arrays.items() if name != "layer1.0.bn2.bias"}
    assert "1 missing (layer1_0/norm2/bias)" in said(SHORT, write(path, less))
    more = arrays | {"layer1.0.se.fc1.weight": np.ones(3, np.float32)}
    assert "1 extra (layer1_0/se.fc1/scale)" in said(SHORT, write(path, more))
    wide = arrays | {"bn1.weight": np.ones(3, np.float32)}
    misshaped = said(SHORT, write(path, wide))
    assert "1 misshaped (stem/norm/scale is [3], not [64])" in misshaped
    assert "w.safetensors does not fit: " in said("18", write(path, arrays))


def test_unusable_arguments_are_refused():
    assert "variant='51' is not known; did you mean '50'" in said("51")
    assert "there are 18, 26, 50" in said("wide")
    assert "kind='basics' is not known; did you mean 'basic'" in said(
        (8, True, (("basics", 1, 8),))
    )
    with pytest.raises(FileNotFoundError, match="no weights file nowhere.pth"):
        resnet.make("18", "nowhere.pth").load()


def test_the_random_base_is_the_seeds_and_holds_no_head():
    one, same, other = (
        resnet.make(**resnet.TINY, seed=seed).load() for seed in (0, 0, 1)
    )
    assert one.params.keys() == {"stem", "layer1_0", "layer2_0", "layer3_0"}
    jax.tree.map(np.testing.assert_array_equal, one, same)
    kernels = (base.params["layer3_0"]["conv2"]["kernel"] for base in (one, other))
    assert not np.array_equal(*kernels)

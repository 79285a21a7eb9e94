"""Methods that choose single elements, against their rules written out in loops."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subtune_jax.core import registry, trees
from subtune_jax.core.method import Evidence
from subtune_jax.selection import masks

SHAPES = {
    "stem/conv/kernel": (2, 2, 1, 4),
    "stem/norm/scale": (4,),
    "block1/dense/kernel": (4, 6),
    "block1/dense/bias": (6,),
    "block1/norm/scale": (6,),
    "block2/conv/kernel": (2, 2, 3, 5),
    "block2/conv/bias": (5,),
    "head/kernel": (5, 3),
    "head/bias": (3,),
}
BASE = [path for path in SHAPES if not path.startswith("head/")]
KERNELS = [path for path in BASE if path.endswith("kernel")]
REPEATED = [path for path in BASE if path.startswith("block")]
BLOCKS, EPOCH, ROWS = ("stem", "block1", "block2", "head"), 3, 4


def draw(seed, lead=(), whole=True, scale=1):
    """Small whole numbers, with ties and exact gradients, or numbers without any."""
    rng = np.random.default_rng(seed)

    def numbers(shape):
        if whole:
            return scale * rng.integers(-3, 4, shape).astype(np.float32)
        return scale * rng.normal(size=shape).astype(np.float32)

    return {path: numbers((*lead, *shape)) for path, shape in SHAPES.items()}


def loss_fn(params, batch):
    """Half the squared distance to each example, their mean: the gradient is known."""
    flat = trees.flatten(params)
    parts = [jnp.sum(jnp.square(flat[path] - batch[path])) for path in SHAPES]
    return sum(parts) / len(batch["head/bias"]) / 2


def make_evidence(whole=True, loss=loss_fn, seed=0):
    def batches(count):
        for number in range(count):
            # Far from the base, so that gradients of batches differ in sign.
            yield draw(100 + number, (ROWS,), whole, scale=4)

    params = jax.tree.map(jnp.asarray, trees.nest(draw(1, whole=whole)))
    return Evidence(params, BLOCKS, loss, batches, seed, EPOCH)


def examples(evidence, count):
    """The first examples, one at a time, in float64."""
    for batch in evidence.batches(-(-count // ROWS)):
        for row in range(min(ROWS, count)):
            yield {path: x[row].astype(np.float64) for path, x in batch.items()}
        count -= ROWS


def gradients(evidence, count):
    """The gradient of each of the first batches, by hand, in float64."""
    base = weights(evidence)
    for batch in evidence.batches(count):
        mean = {path: x.astype(np.float64).mean(0) for path, x in batch.items()}
        yield {path: base[path] - mean[path] for path in SHAPES}


def weights(evidence):
    flat = trees.flatten(evidence.params)
    return {path: np.asarray(leaf, np.float64) for path, leaf in flat.items()}


def best(scores, count):
    """Marks the largest of all: everything sorted; ties by path, then by place."""
    places = [(p, i) for p in sorted(scores) for i in range(scores[p].size)]
    places.sort(key=lambda place: -scores[place[0]].flat[place[1]])  # stable
    marks = {path: np.zeros(score.shape, bool) for path, score in scores.items()}
    for path, index in places[:count]:
        marks[path].flat[index] = True
    return marks


def best_of_each(scores, fraction):
    marks = {}
    for path, score in scores.items():
        marks |= best({path: score}, max(int(fraction * score.size + 0.5), 1))
    return marks


def select(method, evidence, **arguments):
    return registry.load("methods", {"name": method, **arguments}).init(evidence)


def assert_is(evidence, mask, expected):
    """`mask` is `expected`, element by element, and False elsewhere."""
    flags = trees.flatten(masks.expand(evidence.params, mask))
    assert flags.keys() == SHAPES.keys()
    for path, flag in flags.items():
        wanted = expected.get(path, np.zeros(SHAPES[path], bool))
        np.testing.assert_array_equal(flag, wanted, err_msg=path)


def count(evidence, mask):
    return masks.count(evidence.params, mask)


@pytest.mark.parametrize("number", [1, 6, 12, 100])
@pytest.mark.parametrize("fraction", [0.2, 0.5, 1.0])
def test_fish_takes_the_largest_squares_of_examples_in_the_whole_base(number, fraction):
    evidence = make_evidence()
    base, total = weights(evidence), {path: 0.0 for path in BASE}
    for example in examples(evidence, min(number, EPOCH * ROWS)):
        total = {p: total[p] + (base[p] - example[p]) ** 2 for p in BASE}
    head = 5 * 3 + 3
    budget = int(fraction * sum(x.size for x in base.values()) + 0.5)
    mask = select("fish", evidence, fraction=fraction, examples=number).mask
    assert_is(evidence, mask, best(total, budget - head))
    assert count(evidence, mask) + head == budget


@pytest.mark.parametrize(("whole", "clip_norm"), [(True, 0.0), (False, 8.0)])
@pytest.mark.parametrize("batches", [0, 1, 2])
def test_child_tuning_d_takes_the_largest_squares_of_clipped_batches(
    whole, clip_norm, batches
):
    evidence = make_evidence(whole)
    total, shrunk = {path: np.zeros(SHAPES[path]) for path in REPEATED}, set()
    for gradient in gradients(evidence, batches or EPOCH):
        for path in REPEATED:
            norm = np.sqrt(sum(x**2 for x in gradient[path].flat))
            factor = min(1.0, clip_norm / norm) if clip_norm else 1.0
            total[path] += (factor * gradient[path]) ** 2
            shrunk.add(factor < 1)
    assert shrunk == ({True, False} if clip_norm else {False})
    arguments = {"batches": batches, "clip_norm": clip_norm}
    mask = select("child_tuning_d", evidence, **arguments).mask
    assert_is(evidence, mask, best(total, 30))  # 0.3 of 101


def test_child_tuning_d_leaves_gradients_below_the_bound_alone():
    evidence = make_evidence()
    free, loose = (
        select("child_tuning_d", evidence, clip_norm=norm).mask for norm in (0.0, 1e3)
    )
    jax.tree.map(np.testing.assert_array_equal, free, loose)


def test_child_tuning_d_trains_whole_what_is_outside_the_blocks():
    evidence = make_evidence()
    outside = [path for path in BASE if path not in REPEATED]
    extras = select("child_tuning_d", evidence).extras
    assert_is(evidence, extras, {p: np.ones(SHAPES[p], bool) for p in outside})
    extras = select("child_tuning_d", evidence, pattern="block2").extras
    assert count(evidence, extras) == 16 + 4 + 24 + 6 + 6
    assert select("child_tuning_d", evidence, outside=False).extras is None


@pytest.mark.parametrize("batches", [0, 1, 5])
@pytest.mark.parametrize("fraction", [0.005, 0.25])
def test_sam_takes_of_every_array_the_largest_sums_of_signed_gradients(
    batches, fraction
):
    evidence = make_evidence()
    grads = list(gradients(evidence, batches or EPOCH))
    sums = {path: np.abs(sum(g[path] for g in grads)) for path in BASE}
    mask = select("sam", evidence, fraction=fraction, batches=batches).mask
    assert_is(evidence, mask, best_of_each(sums, fraction))


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("fraction", [0.008, 0.25])
def test_sift_takes_of_every_kernel_the_largest_gradient_of_the_first_batch(
    batches, fraction
):
    evidence = make_evidence()
    grads = list(gradients(evidence, batches))
    sums = {path: np.abs(sum(g[path] for g in grads)) for path in KERNELS}
    arguments = {} if batches == 1 else {"batches": batches}
    mask = select("sift", evidence, fraction=fraction, **arguments).mask
    assert_is(evidence, mask, best_of_each(sums, fraction))


def test_the_pattern_that_sift_documents_is_the_attention_of_a_vit():
    module = importlib.import_module("subtune_jax.methods.sift")
    pattern = module.__doc__.split('among=r"')[1].split('"')[0]
    vit = importlib.import_module("subtune_jax.backbones.vit")
    backbone = vit.make(**vit.TINY)
    init = jax.eval_shape(lambda key: backbone.init(key, 3), jax.random.key(0))
    expected = {
        f"{block}/attn/{part}/{leaf}"
        for block in ("block01", "block02")
        for part in ("query", "key", "value", "out")
        for leaf in ("kernel", "bias")
    }
    assert set(masks.find(init.params, pattern)) == expected


def literal_structure(shape, fraction):
    """Every f-th neuron and the diagonal, f from 1 until that is no more than asked."""
    fan_in, out = int(np.prod(shape[:-1])), shape[-1]
    for every in range(1, out + 1):
        flags = np.zeros((fan_in, out), bool)
        for i in range(fan_in):
            for j in range(out):
                flags[i, j] = i == j or j % every == 0
        if flags.sum() <= max(int(fraction * flags.size + 0.5), 1):
            break
    return flags.reshape(shape)


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.45, 0.6, 1.0])
def test_shira_struct_is_every_nth_neuron_and_the_diagonal(fraction):
    evidence = make_evidence()
    mask = select("shira", evidence, kind="struct", fraction=fraction).mask
    expected = {path: literal_structure(SHAPES[path], fraction) for path in KERNELS}
    assert_is(evidence, mask, expected)


def test_shira_struct_of_a_third_of_a_convolution_is_two_neurons_and_a_diagonal():
    mask = select("shira", make_evidence(), kind="struct", fraction=0.45).mask
    flags = mask["block2"]["conv"]["kernel"].reshape(12, 5)
    rows = [[i == j or j in (0, 3) for j in range(5)] for i in range(12)]
    np.testing.assert_array_equal(flags, rows)  # 24 + 3 of at most 27
    nothing = select("shira", make_evidence(), kind="struct", fraction=0.0).mask
    assert not any(np.any(flag) for flag in jax.tree.leaves(nothing))


@pytest.mark.parametrize("fraction", [0.01, 0.25])
@pytest.mark.parametrize("kind", ["magnitude", "gradient", "snip"])
@pytest.mark.parametrize("batches", [0, 2])
def test_shira_takes_of_every_kernel_what_its_kind_ranks_first(kind, fraction, batches):
    evidence = make_evidence()
    grads = list(gradients(evidence, batches or EPOCH))
    base = weights(evidence)
    sums = {path: np.abs(sum(g[path] for g in grads)) for path in KERNELS}
    ranked = {
        "magnitude": {path: np.abs(base[path]) for path in KERNELS},
        "gradient": sums,
        "snip": {path: np.abs(base[path]) * sums[path] for path in KERNELS},
    }[kind]
    arguments = {"kind": kind, "fraction": fraction, "batches": batches}
    mask = select("shira", evidence, **arguments).mask
    assert_is(evidence, mask, best_of_each(ranked, fraction))


def test_shira_random_is_a_number_of_each_kernel_that_the_seed_draws():
    first, same, other = (
        select("shira", make_evidence(seed=s), kind="random", fraction=0.25).mask
        for s in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, first, same)
    evidence = make_evidence()
    flags = trees.flatten(masks.expand(evidence.params, first))
    assert [int(flags[path].sum()) for path in KERNELS] == [4, 6, 15]
    assert count(evidence, first) == 25
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)
    assert any(np.any(a != b) for a, b in pairs)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_neuroada_takes_the_largest_weights_of_every_neuron(k):
    evidence, expected = make_evidence(), {}
    for path in KERNELS:
        columns = np.abs(weights(evidence)[path]).reshape(-1, SHAPES[path][-1])
        flags = np.zeros(columns.shape, bool)
        for neuron in range(columns.shape[1]):
            order = sorted(range(len(columns)), key=lambda i: -columns[i, neuron])
            flags[order[:k], neuron] = True
        expected[path] = flags.reshape(SHAPES[path])
    selection = select("neuroada", evidence, count=k)
    assert_is(evidence, selection.mask, expected)
    assert selection.extras is None
    extras = select("neuroada", evidence, count=k, extras=".*/bias").extras
    assert count(evidence, extras) == 6 + 5


@pytest.mark.parametrize("arguments", [{}, {"fraction": None, "count": 7}])
def test_pafi_takes_the_smallest_weights_of_all_kernels_together(arguments):
    evidence = make_evidence()
    small = {path: -np.abs(weights(evidence)[path]) for path in KERNELS}
    number = arguments.get("count", 1)  # half a percent of 100 is one at least
    mask = select("pafi", evidence, **arguments).mask
    assert_is(evidence, mask, best(small, number))


COUPLING = 0.3


def coupled_loss(params, batch):
    """`loss_fn`, and a pull on one kernel by the head's bias and a norm's scale."""
    flat = trees.flatten(params)
    pull = jnp.sum(flat["head/bias"]) * jnp.sum(flat["stem/norm/scale"])
    size = jnp.sum(jnp.square(flat["block2/conv/kernel"])) / 2
    return loss_fn(params, batch) + COUPLING * pull * size


def coupled_gradient(values, batch):
    grads = {p: values[p] - batch[p].astype(np.float64).mean(0) for p in SHAPES}
    head, scale = values["head/bias"].sum(), values["stem/norm/scale"].sum()
    size = (values["block2/conv/kernel"] ** 2).sum() / 2
    grads["head/bias"] += COUPLING * scale * size
    grads["stem/norm/scale"] += COUPLING * head * size
    grads["block2/conv/kernel"] += (
        COUPLING * head * scale * values["block2/conv/kernel"]
    )
    return grads


def literal_adam(evidence, moving, steps, rate):
    """All values after so many steps, those of `moving` tuned, in float64."""
    values = weights(evidence)
    mean, square = ({path: 0.0 for path in moving} for _ in range(2))
    for step, batch in enumerate(evidence.batches(steps), 1):
        grads = coupled_gradient(values, batch)
        for path in moving:
            mean[path] = 0.9 * mean[path] + 0.1 * grads[path]
            square[path] = 0.999 * square[path] + 0.001 * grads[path] ** 2
            up = mean[path] / (1 - 0.9**step)
            down = np.sqrt(square[path] / (1 - 0.999**step)) + 1e-8
            values[path] = values[path] - rate * up / down
    return values


@pytest.mark.parametrize(
    ("among", "chosen_from"),
    [
        (None, [path for path in BASE if "norm" not in path]),
        (".*", BASE),
        (".*kernel", KERNELS),
    ],
)
@pytest.mark.parametrize(("lottery_steps", "steps"), [(0, 3 * EPOCH), (5, 5)])
def test_lt_sft_takes_what_full_fine_tuning_moves_furthest(
    among, chosen_from, lottery_steps, steps
):
    evidence = make_evidence(whole=False, loss=coupled_loss)
    moving = [*chosen_from, "head/kernel", "head/bias"]
    tuned = literal_adam(evidence, moving, steps, 0.1)
    base = weights(evidence)
    moved = {path: np.abs(tuned[path] - base[path]) for path in chosen_from}
    number = int(0.3 * sum(x.size for x in moved.values()) + 0.5)
    arguments = {} if among is None else {"among": among}
    arguments |= {"fraction": 0.3, "lottery_steps": lottery_steps, "learning_rate": 0.1}
    mask = select("lt_sft", evidence, **arguments).mask
    assert_is(evidence, mask, best(moved, number))


def test_lt_sft_leaves_the_base_as_it_was():
    evidence = make_evidence(whole=False)
    before = weights(evidence)
    select("lt_sft", evidence, lottery_steps=2, learning_rate=0.1)
    after = weights(evidence)
    assert all(np.array_equal(before[path], after[path]) for path in SHAPES)


@pytest.mark.parametrize("rank_budget", [1, 2, 50])
@pytest.mark.parametrize("filter_rank", [1, 2, 3])
def test_lift_takes_the_largest_of_a_low_rank_reconstruction(rank_budget, filter_rank):
    evidence, expected = make_evidence(whole=False), {}
    for path in KERNELS:
        matrix = weights(evidence)[path].reshape(-1, SHAPES[path][-1])
        _, vectors = np.linalg.eigh(matrix.T @ matrix)  # smallest first
        span = vectors[:, -filter_rank:]
        low = np.abs(matrix @ span @ span.T)
        number = min(rank_budget * (matrix.shape[0] + matrix.shape[1]), matrix.size)
        marks = best({path: low}, number)[path]
        expected[path] = marks.reshape(SHAPES[path])
    arguments = {"rank_budget": rank_budget, "filter_rank": filter_rank}
    assert_is(evidence, select("lift", evidence, **arguments).mask, expected)


def test_lift_of_full_rank_takes_the_largest_weights():
    evidence = make_evidence(whole=False)
    sizes = {path: np.abs(weights(evidence)[path]) for path in KERNELS}
    expected = {}
    for path, number in zip(KERNELS, (4 + 4, 4 + 6, 12 + 5), strict=True):
        expected |= best({path: sizes[path]}, number)
    assert_is(evidence, select("lift", evidence, rank_budget=1).mask, expected)


@pytest.mark.parametrize(
    ("method", "defaults"),
    [
        ("fish", {"fraction": 0.005, "examples": 1024}),
        ("child_tuning_d", {"fraction": 0.3, "batches": 0, "clip_norm": 1.0}),
        ("sam", {"fraction": 0.005, "batches": 599, "among": ".*"}),
        ("sift", {"fraction": 0.008, "batches": 1}),
        ("neuroada", {"scope": "neuron", "count": 1, "largest": True}),
        ("lt_sft", {"fraction": 0.08, "learning_rate": 5e-5}),
        ("lift", {"rank_budget": 128, "filter_rank": 128}),
    ],
)
def test_defaults_are_those_of_the_released_scripts(method, defaults):
    known = registry.arguments(registry.maker("methods", method))
    assert {name: known[name] for name in defaults} == defaults


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("fish", {}, "fish fraction=0.005 of 139 elements is 1; the head alone has 18"),
        ("fish", {"fraction": 0.13}, "of 139 elements is 18; the head alone has 18"),
        ("fish", {"fraction": 2}, r"fraction=2 is outside \[0, 1\]"),
        ("fish", {"examples": 0}, "fish examples=0; it must be 1 or more"),
        ("child_tuning_d", {"fraction": -1}, r"fraction=-1 is outside \[0, 1\]"),
        ("child_tuning_d", {"batches": -1}, "batches=-1, clip_norm=1.0; both must be"),
        ("child_tuning_d", {"clip_norm": -0.5}, "clip_norm=-0.5; both must be 0 or"),
        ("child_tuning_d", {"pattern": "layer"}, "no path matches .*layer.*nearest"),
        ("sam", {"batches": -1}, "batches=-1; it must be 0 or more"),
        ("sam", {"fraction": 1.5}, r"fraction=1.5 is outside \[0, 1\]"),
        ("sam", {"batches": 1, "among": "head/.*"}, "no path matches 'head/"),
        ("sift", {"batches": -1}, "batches=-1; it must be 0 or more"),
        ("sift", {"fraction": 1.5}, r"fraction=1.5 is outside \[0, 1\]"),
        ("shira", {"kind": "snap"}, "shira kind='snap' is not known; did you mean"),
        ("shira", {"batches": -2}, "shira batches=-2; it must be 0 or more"),
        ("shira", {"fraction": 3}, r"fraction=3 is outside \[0, 1\]"),
        (
            "shira",
            {"kind": "struct", "among": ".*bias"},
            r"kind='struct' of 'block1/dense/bias' \(6,\); it has no diagonal",
        ),
        ("neuroada", {"count": 5}, r"count=5 is outside \[1, 4\]"),
        ("neuroada", {"extras": "nothing"}, "no path matches 'nothing'"),
        ("lt_sft", {"lottery_steps": -1}, "lottery_steps=-1, .*must be 0 or more, and"),
        ("lt_sft", {"learning_rate": 0.0}, "learning_rate=0.0; they must be 0 or more"),
        ("lt_sft", {"fraction": 1.5}, r"fraction=1.5 is outside \[0, 1\]"),
        ("lift", {"rank_budget": 0}, "lift rank_budget=0, filter_rank=128; both must"),
        ("lift", {"filter_rank": 0}, "filter_rank=0; both must be 1 or more"),
        ("lift", {"among": ".*scale"}, r"'.*scale' \(6,\) is no matrix; name"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(method, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        select(method, make_evidence(), **arguments)
    assert "\n" not in str(error.value)

"""BERT, RoBERTa and ELECTRA: transformers' own numbers, padding, dropout, files."""

import functools
import json
import zlib

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tokenizers
import torch_writer

from subtune_jax import fetch
from subtune_jax.backbones import bert
from subtune_jax.core import trees
from subtune_jax.models import layers

CLASSES = 3
CONFIG = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "vocab_size": 29,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-3,  # large enough to show
}
CONFIGS = {
    "bert": CONFIG,
    "roberta": CONFIG | {"type_vocab_size": 1, "pad_token_id": 3},
    "electra": CONFIG | {"embedding_size": 8},
}
CLASSIFIERS = {  # ours -> theirs, of what the base does not hold
    "bert": {"head": "classifier"},
    "roberta": {"pooler": "classifier.dense", "head": "classifier.out_proj"},
    "electra": {"pooler": "classifier.dense", "head": "classifier.out_proj"},
}
SEEN = ((0, 0), (1, 6), (2, 1))  # text, token
# What `reference` gives, in float64: two numbers of each token in SEEN after the
# embeddings and after each block, then three logits of each text.
REFERENCE = {
    "bert": [
        [
            0.3753120885,
            1.57922082,
            0.3376968261,
            2.09588955,
            -0.1583769919,
            0.273270303,
            -3.396463867,
            0.6656324598,
            -2.499874449,
            0.6714672501,
            -3.076165957,
            0.1621043355,
            -1.426354894,
            -0.01690938735,
            -0.8530412026,
            -0.5087437727,
            -1.248928285,
            -1.191706526,
        ],
        [
            -1.100645775,
            -1.691326607,
            1.048924633,
            -0.7254708418,
            -1.707127181,
            0.9743741148,
            0.5296350441,
            -1.65580753,
            0.5749372785,
        ],
    ],
    "roberta": [
        [
            -0.3143734828,
            0.1583152985,
            0.5997315057,
            0.1276536833,
            -1.510725526,
            1.204042035,
            -2.799033522,
            2.451631033,
            -0.6378280326,
            1.642454783,
            -2.411742921,
            2.994634633,
            -0.06894697558,
            1.919702267,
            0.1359311053,
            1.070455906,
            -0.6624937069,
            2.151801783,
        ],
        [
            0.5950589458,
            0.3669721775,
            -0.5374152823,
            0.2222170886,
            1.266375074,
            0.6540023114,
            0.7072249732,
            -0.397785472,
            -0.5048009578,
        ],
    ],
    "electra": [
        [
            -0.07185507641,
            0.9427971324,
            0.7285518237,
            -0.226768427,
            -1.951119459,
            -0.6800642655,
            0.09434308728,
            0.9063472229,
            0.9911995303,
            0.7194604091,
            0.02319092382,
            0.6117668859,
            -0.7378505233,
            -1.106594478,
            -0.5449604228,
            -1.273996789,
            -0.6851782812,
            -1.27519066,
        ],
        [
            -3.086608905,
            0.2241134658,
            2.125734934,
            -2.810880965,
            0.7387223635,
            2.487681887,
            -3.093879621,
            0.2322914245,
            2.259454789,
        ],
    ],
}


def file_shapes(kind):
    """Names and shapes in a file of the kind's sequence classifier."""
    config = CONFIGS[kind]
    width, hidden = config["hidden_size"], config["intermediate_size"]
    size = config.get("embedding_size", width)
    shapes = {}

    def dense(owner, inputs, outputs):
        shapes[f"{owner}.weight"], shapes[f"{owner}.bias"] = (
            (outputs, inputs),
            (outputs,),
        )

    def norm(owner, width):
        shapes[f"{owner}.weight"] = shapes[f"{owner}.bias"] = (width,)

    for table, rows in (
        ("word", config["vocab_size"]),
        ("position", config["max_position_embeddings"]),
        ("token_type", config["type_vocab_size"]),
    ):
        shapes[f"{kind}.embeddings.{table}_embeddings.weight"] = (rows, size)
    norm(f"{kind}.embeddings.LayerNorm", size)
    if size != width:
        dense(f"{kind}.embeddings_project", size, width)
    for b in range(config["num_hidden_layers"]):
        own = f"{kind}.encoder.layer.{b}"
        for name in ("query", "key", "value"):
            dense(f"{own}.attention.self.{name}", width, width)
        dense(f"{own}.attention.output.dense", width, width)
        norm(f"{own}.attention.output.LayerNorm", width)
        dense(f"{own}.intermediate.dense", width, hidden)
        dense(f"{own}.output.dense", hidden, width)
        norm(f"{own}.output.LayerNorm", width)
    if kind == "bert":
        dense("bert.pooler.dense", width, width)
        dense("classifier", width, CLASSES)
    else:
        dense("classifier.dense", width, width)
        dense("classifier.out_proj", width, CLASSES)
    return shapes


def draw(name, shape):
    """The array of that name: what it holds depends on nothing else."""
    # RandomState's numbers are the same in every version of NumPy.
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    if "LayerNorm.weight" in name:
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = 0.3 * rng.standard_normal(shape)
    return values.astype(np.float32)


@functools.cache
def drawn(kind):
    return {name: draw(name, shape) for name, shape in file_shapes(kind).items()}


def tokens():
    """Three texts `[3, 12, 2]`: a full one, a pair and its padding, two tokens."""
    x = np.zeros((3, 12, 2), np.int32)
    numbers = np.random.RandomState(0).randint(4, 29, (3, 12))
    for row, (length, second) in enumerate([(12, 12), (7, 4), (2, 2)]):
        x[row, :length, 0] = numbers[row, :length]
        x[row, :length, 1] = 1
        x[row, second:length, 1] = 2
    return x


def reference(kind):
    """The numbers in REFERENCE, from the library itself."""
    models = pytest.importorskip("transformers")
    import torch

    name = {"bert": "Bert", "roberta": "Roberta", "electra": "Electra"}[kind]
    config = getattr(models, f"{name}Config")(**CONFIGS[kind], num_labels=CLASSES)
    model = getattr(models, f"{name}ForSequenceClassification")(config)
    state = {name: torch.tensor(array) for name, array in drawn(kind).items()}
    model.load_state_dict(state, strict=True)
    x = torch.tensor(tokens().astype(np.int64))
    real = x[..., 1] > 0
    numbers = torch.where(real, x[..., 0], config.pad_token_id)
    which = torch.clamp(x[..., 1] - 1, 0, config.type_vocab_size - 1)
    with torch.no_grad():
        rest = {"attention_mask": real.long(), "token_type_ids": which}
        out = model.double().eval()(numbers, **rest, output_hidden_states=True)
    states = [[out_b[at][:2].tolist() for at in SEEN] for out_b in out.hidden_states]
    return [np.ravel(states).tolist(), out.logits.flatten().tolist()]


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_reference_is_the_librarys(kind):
    for numbers, truth in zip(reference(kind), REFERENCE[kind], strict=True):
        np.testing.assert_allclose(numbers, truth, rtol=1e-8)


TEXTS = (
    {"text": "A man is eating food.", "pair": "Is it good?"},
    {"text": ""},
    {"text": "a man"},
)


def write(folder, kind, arrays=None, config=None, words=29):
    """A folder as Hugging Face has it."""
    folder.mkdir(exist_ok=True)
    arrays = drawn(kind) if arrays is None else arrays
    config = {"model_type": kind} | CONFIGS[kind] | (config or {})
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *map(str, range(4, words))]
    vocabulary = {name: number for number, name in enumerate(names)}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(
        ("[SEP]", 3), ("[CLS]", 2)
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder)


def classifier(kind):
    """Parameters of the blocks that a base does not hold, as the library's file has."""
    arrays = drawn(kind)
    return {
        ours: {"kernel": arrays[f"{name}.weight"].T, "bias": arrays[f"{name}.bias"]}
        for ours, name in CLASSIFIERS[kind].items()
    }


PROGRAMS = {}  # of each network, compiled once


def steps(backbone):
    """One program a kind of block: (its parameters, x) -> its output."""
    ends = dict(zip(backbone.blocks, [*backbone.blocks[1:], None], strict=True))

    def step(block, own, x):
        part = {"start": block, "stop": ends[block]}
        return backbone.apply({block: own}, {}, x, **part)[0]

    compiled = {b: jax.jit(functools.partial(step, b)) for b in backbone.blocks}
    return {b: compiled[backbone.alike.get(b, b)] for b in backbone.blocks}


def states(backbone, params, x):
    """What leaves each block, logits last."""
    if backbone.apply not in PROGRAMS:
        PROGRAMS[backbone.apply] = steps(backbone)
    outputs = []
    for block, step in PROGRAMS[backbone.apply].items():
        x = step(params[block], x)
        outputs.append(x)
    return outputs


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_folder_gives_its_librarys_hidden_states_and_logits(kind, tmp_path):
    backbone = bert.make(write(tmp_path / kind, kind), length=12)
    params = backbone.load().params | classifier(kind)
    *hidden, _, logits = states(backbone, params, tokens())
    read = np.ravel([[some[at][:2] for at in SEEN] for some in hidden])
    for numbers, truth in zip([read, logits.ravel()], REFERENCE[kind], strict=True):
        np.testing.assert_allclose(numbers, truth, rtol=1e-5, atol=1e-5)


@functools.cache
def small(depth=2, **rates):
    """A network of its own tokenizer, and parameters that do something."""
    width, _, *rest = bert.TINY["variant"]
    backbone = bert.make(variant=(width, depth, *rest), length=12, **rates)
    shapes = jax.eval_shape(lambda: backbone.init(jax.random.key(0), CLASSES).params)
    rng = np.random.default_rng(0)

    def draw(leaf):
        return jnp.float32(0.5 * rng.standard_normal(leaf.shape))

    return backbone, jax.tree.map(draw, shapes)


def test_only_the_padding_between_blocks_is_zeros_and_the_mean_is_of_the_others():
    backbone, params = small()
    x = tokens()
    *hidden, features, _ = states(backbone, params, x)
    assert len(hidden) == 3 and features.shape == (3, 16)
    for some in hidden:
        np.testing.assert_array_equal(np.any(some != 0, -1), x[..., 1] > 0)
    real = [hidden[-1][row, : np.sum(x[row, :, 1] > 0)] for row in range(3)]
    means = [np.mean(some, 0) for some in real]
    np.testing.assert_allclose(features, means, rtol=1e-5, atol=1e-6)


def test_padding_changes_nothing_whatever_its_number_and_however_long():
    backbone, params = small()
    x = tokens()
    whole = states(backbone, params, x)[-1]
    assert np.ptp(whole, 0).min() > 1e-3  # the texts differ
    cut = states(backbone, params, x[:, :7])[-1]
    np.testing.assert_allclose(cut[1:], whole[1:], rtol=1e-5, atol=1e-5)
    other = np.where(x[..., 1:] > 0, x, [5, 0])
    np.testing.assert_array_equal(states(backbone, params, other)[-1], whole)


def test_gradients_are_finite_beside_a_row_of_padding_alone_and_none_reach_padding():
    backbone, params = small(depth=1)
    x = np.concatenate([tokens()[1:], np.zeros((1, 12, 2), np.int32)])

    def loss(params):
        logits, _ = backbone.apply(params, {}, x)
        return jnp.sum(jnp.square(logits))

    gradient = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    read = np.unique(x[x[..., 1] > 0][:, 0])
    words = np.flatnonzero(np.any(gradient["embed"]["word"] != 0, -1))
    np.testing.assert_array_equal(words, read)
    assert np.flatnonzero(np.any(gradient["embed"]["position"] != 0, -1)).max() == 6


def test_the_type_of_the_parameters_is_that_of_the_computation():
    backbone, params = small()
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    for stop in backbone.blocks[1:]:
        got = jax.eval_shape(lambda s=stop: backbone.apply(half, {}, tokens(), stop=s))
        assert got[0].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "rate, impl",
    [(0.1, "threefry2x32"), (0.5, "threefry2x32"), (0.1, "rbg"), (0.1, "raw")],
)
def test_dropped_units_are_as_many_as_the_rate_says_and_keep_the_mean(rate, impl):
    key = jax.random.PRNGKey(1) if impl == "raw" else jax.random.key(1, impl=impl)
    x = jnp.full((101, 1001), 3.0)  # an odd number of them
    drop = jax.jit(lambda x, key: [layers.dropout(x, rate, key, n) for n in (0, 1)])
    y, other = drop(x, key)
    dropped, deviation = np.mean(y == 0), (rate * (1 - rate) / x.size) ** 0.5
    assert abs(dropped - rate) < 5 * deviation
    np.testing.assert_allclose(y[y != 0], 3 / (1 - rate), rtol=1e-5)
    # Neighbours, which share a random number, are dropped independently.
    both = np.mean((y[:, 1:] == 0) & (y[:, :-1] == 0))
    assert abs(both - rate**2) < 5 * rate / x.size**0.5
    assert abs(np.mean((y == 0) & (other == 0)) - rate**2) < 5 * rate / x.size**0.5


def drawn_shapes(jaxpr):
    """How many random uint32 each draw of a program takes."""
    rows = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "random_bits":
            rows.append(equation.outvars[0].aval.shape[0])
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            rows += drawn_shapes(inner)
    return rows


def program(backbone, params, key):
    def run(params, x):
        return backbone.apply(params, {}, x, key=key)[0]

    return jax.make_jaxpr(run)(params, tokens())


def test_units_are_dropped_where_the_reference_drops_them():
    key, tokens_count, width, weights_count = jax.random.key(0), 36, 16, 3 * 2 * 12 * 12
    words, rows = [tokens_count * width // 2], [3 * width // 2]
    attention = [weights_count // 2]
    for rates, expected in {
        (0.1, 0.0): words + 2 * (words + words) + rows,
        (0.0, 0.1): 2 * attention,
        (0.1, None): words + 2 * (attention + words + words) + rows,
    }.items():
        options = dict(zip(("dropout", "attention_dropout"), rates, strict=True))
        backbone, params = small(**options)
        assert backbone.drops
        assert drawn_shapes(program(backbone, params, key).jaxpr) == expected


def test_poolers_that_belong_to_a_new_classifier_drop_what_they_read(tmp_path):
    for kind, draws in {"bert": 1, "roberta": 2, "electra": 2}.items():
        path = write(tmp_path / kind, kind)
        backbone = bert.make(path, length=12, dropout=0.1)
        params = jax.eval_shape(lambda b=backbone: b.init(jax.random.key(0), 2)[0])
        features = drawn_shapes(program(backbone, params, jax.random.key(0)).jaxpr)
        assert features.count(3 * 16 // 2) == draws


def test_without_a_key_or_a_rate_the_program_is_the_plain_one():
    (plain, params), (dropping, _) = small(), small(dropout=0.1)
    assert not plain.drops
    expected = str(program(plain, params, None))
    assert str(program(plain, params, jax.random.key(0))) == expected
    assert str(program(dropping, params, None)) == expected
    assert "random" not in expected


def test_parts_of_a_network_drop_what_the_whole_one_drops_and_alike_blocks_do_not():
    backbone, params = small(dropout=0.3)

    @jax.jit
    def run(params, key):
        def part(x, start, stop):
            part = {"start": start, "stop": stop, "key": key}
            return backbone.apply(params, {}, x, **part)[0]

        x = part(tokens(), None, "block01")
        one, two = part(x, "block01", "block02"), part(x, "block02", "pool")
        return part(tokens(), None, "block02"), one, two

    params = params | {"block02": params["block01"]}
    whole, part, other = run(params, jax.random.key(0))
    np.testing.assert_allclose(part, whole, rtol=1e-5, atol=1e-6)
    assert not np.allclose(other, part, atol=1e-2)
    again, changed = (run(params, jax.random.key(seed))[0] for seed in (0, 1))
    np.testing.assert_array_equal(again, whole)
    assert not np.allclose(changed, whole, atol=1e-2)


def same(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_names_of_every_age_and_files_in_shards_are_the_same_base(tmp_path):
    arrays = drawn("bert")
    plain = bert.make(write(tmp_path / "plain", "bert"), length=12).load()
    old = {
        name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): a
        for name, a in arrays.items()
    }
    bare = {name.removeprefix("bert."): array for name, array in arrays.items()}
    more = bare | {
        "embeddings.position_ids": np.arange(16)[None],
        "cls.predictions.decoder.weight": np.ones((29, 16), np.float32),
        "cls.seq_relationship.bias": np.ones(2, np.float32),
        "lm_head.dense.weight": np.ones((16, 16), np.float32),
        "discriminator_predictions.dense.bias": np.ones(16, np.float32),
    }
    for number, other in enumerate((old, bare, more)):
        path = write(tmp_path / f"other{number}", "bert", other)
        same(bert.make(path, length=12).load(), plain)
    folder = tmp_path / "shards"
    write(folder, "bert")
    (folder / "model.safetensors").unlink()
    parts = {"one.safetensors": {}, "two.safetensors": {}}
    for number, (name, array) in enumerate(arrays.items()):
        parts[sorted(parts)[number % 2]][name] = array
    for file, part in parts.items():
        safetensors.numpy.save_file(part, folder / file)
    index = {name: file for file, part in parts.items() for name in part}
    text = json.dumps({"weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)
    same(bert.make(str(folder), length=12).load(), plain)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "pytorch_model.bin").write_bytes(torch_writer.state_dict(arrays))
    same(bert.make(str(folder), length=12).load(), plain)


def test_a_pooler_is_the_files_a_new_one_or_none(tmp_path):
    path = write(tmp_path / "bert", "bert")
    theirs = drawn("bert")["bert.pooler.dense.weight"]
    kernel = bert.make(path, length=12).load().params["pooler"]["kernel"]
    np.testing.assert_array_equal(kernel, theirs.T)
    for pooling in ("first", "mean"):
        backbone = bert.make(path, length=12, pooling=pooling)
        params = backbone.load().params
        assert params.keys() == set(backbone.blocks[:-1]) and params["pool"] == {}
    more = {"weight": np.ones((16, 16), "f"), "bias": np.ones(16, "f")}
    more = {f"roberta.pooler.dense.{leaf}": array for leaf, array in more.items()}
    path = write(tmp_path / "roberta", "roberta", drawn("roberta") | more)
    one, again, other = (
        bert.make(path, length=12, seed=seed).load().params["pooler"]
        for seed in (0, 0, 1)
    )
    same(one, again)
    assert 0.01 < np.std(one["kernel"]) < 0.03 and not np.any(one["bias"])
    assert not np.array_equal(one["kernel"], other["kernel"])


def said(*arguments, **options):
    with pytest.raises(ValueError) as caught:
        bert.make(*arguments, **options).load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_that_does_not_fit_is_refused_with_names(tmp_path):
    arrays, folder = drawn("bert"), tmp_path / "w"

    def loaded(arrays, **config):
        return said(write(folder, "bert", arrays, config), length=12)

    norm = "bert.encoder.layer.1.output.LayerNorm"
    less = {name: a for name, a in arrays.items() if name != f"{norm}.weight"}
    assert "1 missing (block02/norm2/scale)" in loaded(less)
    less = {name: a for name, a in arrays.items() if "pooler" not in name}
    assert "2 missing (pooler/bias, pooler/kernel)" in loaded(less)
    more = arrays | {"bert.encoder.layer.1.adapter.down.weight": np.ones((2, 16), "f")}
    assert "1 extra (block02/adapter.down/kernel)" in loaded(more)
    assert "extra (block02/" in loaded(arrays, num_hidden_layers=1)
    assert "embed/word is [29, 16], not [30, 16]" in loaded(arrays, vocab_size=30)
    twice = arrays | {"embeddings.LayerNorm.gamma": arrays["bert.pooler.dense.bias"]}
    assert "two arrays are embed/norm/scale" in loaded(twice)
    small = said(write(folder, "bert", words=31), length=12)
    assert "gives '30' the number 30; the embedding table has 29 rows" in small


def test_a_folder_that_describes_no_such_network_is_refused(tmp_path):
    folder = tmp_path / "w"

    def said_of(**config):
        return said(write(folder, "bert", config=config), length=12)

    assert "no model_type named 'bart'; did you mean 'bert'" in said_of(
        model_type="bart"
    )
    assert "hidden_act is 'relu'; there is 'gelu'" in said_of(hidden_act="relu")
    assert "position_embedding_type is" in said_of(
        position_embedding_type="relative_key"
    )
    assert "is_decoder is True" in said_of(is_decoder=True)
    assert "hidden_size is '16'" in said_of(hidden_size="16")
    assert "num_hidden_layers is 0" in said_of(num_hidden_layers=0)
    assert "layer_norm_eps is -1" in said_of(layer_norm_eps=-1)
    assert "is not divisible by num_attention_heads 3" in said_of(num_attention_heads=3)
    write(folder, "bert")
    for name in ("config.json", "tokenizer.json"):
        content = (folder / name).read_text()
        (folder / name).write_text("{")
        assert name in said(str(folder), length=12)
        (folder / name).unlink()
        assert f"no {name} in" in said(str(folder), length=12)
        (folder / name).write_text(content)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no model.safetensors or"):
        bert.make(str(folder), length=12).load()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../w.safetensors"}}))
    assert "names '../w.safetensors'; there are files beside it" in said(
        str(folder), length=12
    )


def test_unusable_arguments_are_refused(tmp_path):
    path = write(tmp_path / "roberta", "roberta")
    assert "length 13; there are positions for 12 tokens" in said(path, length=13)
    assert "length 3; there are more than 3" in said(path, length=3)
    assert "variant='base' beside weights" in said(path, "base", length=12)
    assert "pooling='men' is not known; did you mean 'mean'" in said(pooling="men")
    assert "variant='bas' is not known; did you mean 'base'" in said(variant="bas")
    assert "width 16 is not divisible by 3 heads" in said(variant=(16, 1, 3, 16))
    assert "dropout=1; there are rates in [0, 1)" in said(dropout=1)
    assert "attention_dropout=-0.1" in said(attention_dropout=-0.1)


@pytest.mark.parametrize(
    "arguments, base",
    # Parameters below the head, as the library counts them.
    [
        ({"pooling": "pooler"}, 22_713_216),
        ({"variant": "base", "pooling": "pooler"}, 109_482_240),
        ({"variant": "large", "pooling": "pooler"}, 335_141_888),
    ],
)
def test_every_parameter_is_in_one_of_the_blocks(arguments, base):
    backbone = bert.make(**arguments)
    params, _ = jax.eval_shape(lambda: backbone.init(jax.random.key(0), 7))
    assert params.keys() == set(backbone.blocks)
    head = params.pop("head")
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == base
    assert head["kernel"].shape[1] == 7
    assert set(backbone.alike.values()) == {"embed", "block01", backbone.blocks[-2]}
    leaves = set(trees.flatten(params["block01"]))
    products = ("attn/query", "attn/key", "attn/value", "attn/out", "fc1", "fc2")
    expected = {f"{name}/{leaf}" for name in products for leaf in ("kernel", "bias")}
    assert leaves - expected == {
        f"norm{n}/{leaf}" for n in (1, 2) for leaf in ("scale", "bias")
    }


def test_random_networks_read_any_text():
    backbone, params = small()
    x = backbone.encode(TEXTS)
    assert x.shape == (3, *backbone.input_shape)
    logits = jax.eval_shape(lambda: backbone.apply(params, {}, x)[0])
    assert logits.shape == (3, CLASSES)
    assert x.min() == 0 and x[..., 0].max() < len(params["embed"]["word"])


SENTENCES = (
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The new movie is awesome",
    "A man is playing guitar",
)
# transformers' BertModel in float64: two numbers of the first token of the first
# sentence after the embeddings and after each block, the last token of a pair, and
# the cosines of means over tokens.
MINILM = [
    [-0.17656751, -0.04823639],
    [-0.0016391506, -0.018915455],
    [-0.042826838, 0.011668417],
    [-0.017781283, -0.01239666],
    [-0.0052627287, -0.0016936437],
    [0.013896022, -0.014731445],
    [-0.0025504061, 0.11769731],
]
MINILM_PAIR = [-0.036503448, -0.56960029]
MINILM_COSINES = [0.75533708, 0.00929513]


@pytest.mark.skipif(fetch.cached("minilm") is None, reason="no asset minilm")
def test_minilm_is_what_the_library_makes_of_it():
    backbone = bert.make("minilm", length=64)
    params, _ = backbone.load()
    pair = {"text": "Is it good?", "pair": "Yes, very."}
    x = backbone.encode([*({"text": sentence} for sentence in SENTENCES), pair])
    assert x.shape == (5, 11, 2)

    params["head"] = {"kernel": np.eye(384, dtype="f"), "bias": np.zeros(384, "f")}
    *hidden, features, _ = states(backbone, params, x)
    read = [some[0, 0, :2] for some in hidden]
    np.testing.assert_allclose(read, MINILM, atol=1e-5)
    np.testing.assert_allclose(hidden[-1][4, 10, :2], MINILM_PAIR, atol=1e-5)
    normal = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = [normal[0] @ normal[1], normal[2] @ normal[3]]
    np.testing.assert_allclose(cosines, MINILM_COSINES, atol=1e-5)

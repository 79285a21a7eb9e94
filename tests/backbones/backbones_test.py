"""What every file of backbones/ promises, in its smallest form."""

import jax
import noise
import numpy as np
import pytest

from subtune_jax import HEAD
from subtune_jax.core import registry

CLASSES = 3
BATCH = 4


@pytest.fixture(scope="module", params=registry.plugins("backbones"))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def backbone(name):
    return noise.network(name)


@pytest.fixture(scope="module")
def variables(backbone):
    """Random numbers in the shapes of `init`, which nothing need be compiled for."""
    key, rng = jax.random.key(0), np.random.default_rng(0)
    forms = jax.eval_shape(lambda: backbone.init(key, CLASSES))
    return jax.tree.map(lambda x: np.float32(rng.uniform(0.1, 0.3, x.shape)), forms)


@pytest.fixture(scope="module")
def answers(backbone, variables):
    """The inputs of every block and the logits, from one compiled program."""

    def through(params, stats, x):
        entering = [x]
        for start, stop in zip(backbone.blocks, backbone.blocks[1:], strict=False):
            x, stats = backbone.apply(params, stats, x, start=start, stop=stop)
            entering.append(x)
        logits, stats = backbone.apply(params, stats, x, start=HEAD)
        whole, _ = backbone.apply(params, stats, entering[0])
        return entering, logits, whole, stats

    return jax.jit(through)(*variables, noise.entering(backbone, BATCH))


def shapes(tree):
    return jax.tree.map(np.shape, tree)


def test_blocks_have_names_and_end_in_the_head(name, backbone, variables):
    assert backbone.name == name
    assert backbone.blocks[-1] == HEAD
    assert len(set(backbone.blocks)) == len(backbone.blocks) > 1
    assert set(variables.params) <= set(backbone.blocks)
    assert set(variables.stats) <= set(variables.params) - {HEAD}


def test_the_base_is_all_but_the_head(backbone, variables):
    base = jax.eval_shape(backbone.load)
    assert HEAD not in base.params
    whole = {block: own for block, own in variables.params.items() if block != HEAD}
    assert shapes(base.params) == shapes(whole)
    assert shapes(base.stats) == shapes(variables.stats)


@pytest.mark.slow
def test_the_base_is_the_same_each_time(name, backbone):
    # Compiled as one: operation by operation takes ten times as long.
    base, again = (jax.jit(b.load)() for b in (backbone, noise.network(name)))
    jax.tree.map(np.testing.assert_array_equal, base, again)


def test_logits_are_float32_of_every_class_and_statistics_rest(answers, variables):
    _, logits, _, stats = answers
    assert logits.shape == (BATCH, CLASSES) and logits.dtype == np.float32
    assert np.isfinite(logits).all()
    jax.tree.map(np.testing.assert_array_equal, stats, variables.stats)


def test_blocks_one_after_another_are_the_whole(answers):
    _, logits, whole, _ = answers
    np.testing.assert_allclose(logits, whole, rtol=1e-5, atol=1e-6)


def test_blocks_that_are_alike_have_the_same_shapes(backbone, variables, answers):
    entering = dict(zip(backbone.blocks, answers[0], strict=True))
    for block, first in backbone.alike.items():
        assert backbone.blocks.index(first) <= backbone.blocks.index(block)
        own, other = (shapes(variables.params.get(b, {})) for b in (block, first))
        assert own == other and entering[block].shape == entering[first].shape


def test_normalisation_is_of_images_and_encoding_of_texts(backbone):
    assert (backbone.encode is None) == (backbone.normalize is not None)
    assert (backbone.encode is None) == (backbone.lengths == ())
    if backbone.encode is None:
        height, width, colours = backbone.input_shape
        assert height == width and colours == 3
        return
    assert backbone.lengths == tuple(sorted(set(backbone.lengths)))
    assert backbone.input_shape == (backbone.lengths[-1], 2)
    encoded = backbone.encode([{"text": "one two"}, {"text": "one", "pair": "two"}])
    assert encoded.dtype == np.int32 and encoded.shape[::2] == (2, 2)
    assert encoded.shape[1] <= backbone.lengths[-1]
    real = encoded[..., 1] > 0
    assert (np.diff(real.astype(int), axis=1) <= 0).all()  # padding is at the end


def test_a_dense_form_has_the_same_blocks_and_answers_for_places(backbone, variables):
    if backbone.dense is None:
        return  # it answers for whole images alone
    dense = backbone.dense()
    assert (dense.name, dense.blocks) == (backbone.name, backbone.blocks)
    x = noise.entering(backbone, 2)
    logits, _ = jax.eval_shape(dense.apply, *variables, x)
    assert logits.shape[::3] == (2, CLASSES) and len(logits.shape) == 4
    forms = jax.eval_shape(dense.load), jax.eval_shape(backbone.load)
    assert shapes(forms[0]) == shapes(forms[1])

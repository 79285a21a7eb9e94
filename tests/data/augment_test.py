"""Augmentation: the slow definition of each, and nothing where nothing is asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subtune_jax.data import augment

IMAGE = np.random.default_rng(0).uniform(0, 255, (12, 10, 3)).astype(np.float32)


def drawn(**columns):
    row = np.full(augment.COLUMNS, 0.75, np.float32)
    for name, value in columns.items():
        row[getattr(augment, name)] = value
    return jnp.asarray(row)


def single(row, **what):
    return np.asarray(augment.single(augment.make(**what), row, IMAGE))


def test_the_largest_crop_is_the_image_itself():
    # Share 1 of the area at aspect 1 (0.5 is its middle).
    row = drawn(CROP=[1.0, 0.5, 0.3, 0.6])
    np.testing.assert_allclose(single(row, crop=0.2), IMAGE, atol=1e-2)


def test_a_crop_is_a_bilinear_view_of_its_rectangle():
    """Against a literal loop over output pixels."""
    smallest, (area, aspect, top, left) = 0.25, (0.2, 0.4, 0.3, 0.9)
    height, width, _ = IMAGE.shape
    share = smallest + (1 - smallest) * area
    ratio = np.exp(np.log(4 / 3) * (2 * aspect - 1))
    part_h = min(1, np.sqrt(share / ratio)) * height
    part_w = min(1, np.sqrt(share * ratio)) * width
    y0, x0 = top * (height - part_h), left * (width - part_w)
    expected = np.zeros_like(IMAGE)
    for i in range(height):
        for j in range(width):
            y = y0 + (i + 0.5) * part_h / height - 0.5
            x = x0 + (j + 0.5) * part_w / width - 0.5
            total = weight = 0.0
            for a in (int(np.floor(y)), int(np.floor(y)) + 1):
                for b in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= a < height and 0 <= b < width:
                        near = (1 - abs(y - a)) * (1 - abs(x - b))
                        total, weight = total + near * IMAGE[a, b], weight + near
            expected[i, j] = total / weight
    view = single(drawn(CROP=[area, aspect, top, left]), crop=smallest)
    np.testing.assert_allclose(view, expected, rtol=1e-3, atol=0.05)


def test_a_flip_happens_half_of_the_time():
    np.testing.assert_array_equal(single(drawn(FLIP=0.49), flip=True), IMAGE[:, ::-1])
    np.testing.assert_array_equal(single(drawn(FLIP=0.51), flip=True), IMAGE)


def test_colour_in_the_middle_of_its_range_changes_nothing():
    view = single(drawn(COLOUR=[0.5, 0.5, 0.5]), colour=0.4)
    np.testing.assert_allclose(view, IMAGE, rtol=1e-5, atol=1e-3)


def test_no_saturation_is_grey():
    grey = single(drawn(COLOUR=[0.5, 0.5, 0.0]), colour=1.0)
    np.testing.assert_allclose(grey.std(-1), 0, atol=1e-3)


@pytest.mark.parametrize("what", ["mixup", "cutmix"])
def test_targets_are_mixed_as_pixels_are(what):
    """Of a black and a white image, the share of white is the target of white."""
    black, white = jnp.zeros((40, 40, 3)), jnp.ones((40, 40, 3))
    targets = jnp.asarray([1.0, 0.0]), jnp.asarray([0.0, 1.0])
    for share, centre in ((0.3, 0.5), (0.8, 0.1)):
        row = drawn(SHARES=[share, share], CENTRE=centre, PASTE=0.5)
        mixing = augment.make(**{what: 0.4})
        image, target = augment.mix(mixing, row, (black, white), targets)
        np.testing.assert_allclose(target, [1 - image.mean(), image.mean()], rtol=1e-5)
        if what == "mixup":
            np.testing.assert_allclose(image, 1 - share, rtol=1e-6)
        elif centre == 0.5:
            assert set(np.unique(image)) == {0.0, 1.0}
            assert float(image.mean()) == pytest.approx(1 - share, abs=0.05)


def test_with_both_kinds_each_example_has_one_of_them():
    mixing = augment.make(mixup=0.4, cutmix=0.4)
    pair, targets = (jnp.zeros((9, 9, 3)), jnp.ones((9, 9, 3))), (jnp.ones(1),) * 2
    values = [
        np.unique(
            augment.mix(mixing, drawn(PASTE=p, SHARES=0.37), pair, targets)[0].round(4)
        )
        for p in (0.49, 0.51)
    ]
    assert set(values[0]) <= {0.0, 1.0}
    np.testing.assert_allclose(values[1], [0.63], rtol=1e-4)


def test_draws_depend_on_seed_and_step_and_place_only():
    mixing = augment.make(mixup=0.2, cutmix=1.0)
    numbers = augment.draw(mixing, 3, 5, 8)
    np.testing.assert_array_equal(numbers, augment.draw(mixing, 3, 5, 8))
    assert not np.array_equal(numbers, augment.draw(mixing, 3, 6, 8))
    assert not np.array_equal(numbers, augment.draw(mixing, 4, 5, 8))
    assert len(np.unique(numbers[:, 0])) == 8
    assert numbers.min() >= 0 and numbers.max() <= 1


def test_nothing_is_nothing():
    assert not augment.active(augment.make())
    np.testing.assert_array_equal(single(drawn()), IMAGE)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"augment crop=1.5; it must be in \[0, 1\]"):
        augment.make(crop=1.5)
    with pytest.raises(ValueError, match="augment mixup=-1"):
        augment.make(mixup=-1.0)


def test_it_compiles_for_a_whole_batch():
    changes = augment.make(crop=0.5, flip=True, colour=0.2)
    rows = augment.draw(changes, 0, 0, 4)
    images = jnp.stack([jnp.asarray(IMAGE)] * 4)
    whole = jax.jit(jax.vmap(lambda r, x: augment.single(changes, r, x)))(rows, images)
    for row, image in zip(rows, whole, strict=True):
        alone = augment.single(changes, jnp.asarray(row), IMAGE)
        np.testing.assert_allclose(image, alone, rtol=1e-4, atol=1e-2)

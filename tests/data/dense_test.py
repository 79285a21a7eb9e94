"""Masks: loss and metrics against loops over pixels; they move with their images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subtune_jax.core.contracts import Split
from subtune_jax.data import augment, batches, dataset, dense

CLASSES, SMALL, SIZE = 3, (2, 3), (7, 9)


def drawn(count=5, ignored=0.2, seed=0):
    """Logits, and masks of which some pixels are ignored; one mask is constant."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, *SMALL, CLASSES)).astype(np.float32)
    masks = rng.integers(0, CLASSES, (count, *SIZE)).astype(np.uint8)
    masks[rng.random(masks.shape) < ignored] = dense.IGNORED
    masks[1] = 0
    return logits, masks


def slow_upsample(logits):
    """Bilinear with centres at halves, clamped at the edge; float64 loops."""
    out = np.zeros((len(logits), *SIZE, logits.shape[-1]))
    for i in range(SIZE[0]):
        for j in range(SIZE[1]):
            y = min(max((i + 0.5) * SMALL[0] / SIZE[0] - 0.5, 0), SMALL[0] - 1)
            x = min(max((j + 0.5) * SMALL[1] / SIZE[1] - 0.5, 0), SMALL[1] - 1)
            for a in range(SMALL[0]):
                for b in range(SMALL[1]):
                    near = max(1 - abs(y - a), 0) * max(1 - abs(x - b), 0)
                    out[:, i, j] += near * logits[:, a, b].astype(float)
    return out


def pixels(logits, masks):
    """(image, truth, guess, logits) of every known pixel."""
    whole = slow_upsample(logits)
    for n, i, j in np.ndindex(masks.shape):
        if masks[n, i, j] != dense.IGNORED:
            yield n, masks[n, i, j], np.argmax(whole[n, i, j]), whole[n, i, j]


def test_logits_are_brought_to_the_mask_bilinearly():
    logits, _ = drawn()
    expected = slow_upsample(logits)
    upsampled = dense.upsample(jnp.asarray(logits), SIZE)
    np.testing.assert_allclose(upsampled, expected, rtol=1e-5, atol=1e-5)
    whole = jax.image.resize(logits, (len(logits), *SIZE, CLASSES), "bilinear")
    np.testing.assert_allclose(upsampled, whole, rtol=1e-4, atol=1e-5)
    for one, other in zip(logits, expected, strict=True):
        np.testing.assert_allclose(
            dense.stretch(one, SIZE), other, rtol=1e-5, atol=1e-5
        )


def test_the_loss_is_the_mean_over_known_pixels_of_an_image():
    logits, masks = drawn()
    masks[2] = dense.IGNORED
    sums, right, counts = np.zeros((3, len(masks)))
    for n, truth, guess, values in pixels(logits, masks):
        sums[n] += np.log(np.exp(values).sum()) - values[truth]
        right[n] += guess == truth
        counts[n] += 1
    many = np.maximum(counts, 1)
    losses = dense.cross_entropy(jnp.asarray(logits), jnp.asarray(masks))
    np.testing.assert_allclose(losses, sums / many, rtol=1e-5)
    assert losses[2] == 0
    shares = dense.accuracy(jnp.asarray(logits), jnp.asarray(masks))
    np.testing.assert_allclose(shares, right / many, rtol=1e-6)


def test_ignored_pixels_give_no_gradient():
    logits, masks = drawn()
    masks[:, :, 4:] = dense.IGNORED  # the last column of logits reaches only these
    slope = jax.grad(lambda x: dense.cross_entropy(x, jnp.asarray(masks)).sum())
    gradient = np.asarray(slope(jnp.asarray(logits)))
    assert np.isfinite(gradient).all()
    assert (gradient[:, :, 2] == 0).all() and (gradient[:, :, 0] != 0).any()


def test_miou_counts_the_pixels_of_all_images_together():
    logits, masks = drawn()
    both, union = np.zeros(CLASSES), np.zeros(CLASSES)
    for _, truth, guess, _ in pixels(logits, masks):
        for c in range(CLASSES):
            both[c] += truth == guess == c
            union[c] += c in (truth, guess)
    assert dense.mean_iou(logits, masks) == pytest.approx(np.mean(both / union))


def test_a_class_that_is_nowhere_does_not_count_in_miou():
    logits = np.zeros((1, 2, 2, 4), np.float32)
    logits[..., 1] = 1
    masks = np.ones((1, 4, 4), np.uint8)
    masks[0, 0] = 0  # a quarter
    assert dense.mean_iou(logits, masks) == pytest.approx((0 + 12 / 16) / 2)


def test_mdice_is_the_mean_over_images_and_classes_but_the_first():
    logits, masks = drawn()
    logits[1, ..., 0] += 50  # mask 1 and its guess hold the background alone: counts 1
    both, sizes = np.zeros((2, len(masks), CLASSES))
    for n, truth, guess, _ in pixels(logits, masks):
        sizes[n, truth] += 1
        sizes[n, guess] += 1
        both[n, truth] += truth == guess
    each = [
        2 * both[n, c] / sizes[n, c] if sizes[n, c] else 1.0
        for n in range(len(masks))
        for c in range(1, CLASSES)
    ]
    assert each[2:4] == [1.0, 1.0]
    assert dense.mean_dice(logits, masks) == pytest.approx(np.mean(each))


def test_the_confusion_has_the_truth_in_rows():
    logits, masks = drawn()
    expected = np.zeros((CLASSES, CLASSES), int)
    for _, truth, guess, _ in pixels(logits, masks):
        expected[truth, guess] += 1
    np.testing.assert_array_equal(dense.total(logits, masks), expected)


@pytest.mark.parametrize(
    "what", [{"flip": True}, {"crop": 0.3}, {"crop": 0.3, "flip": True, "colour": 0.0}]
)
def test_masks_move_with_their_images(what):
    """Images hold their masks in their colours; those of edges are mixed."""
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 2, (6, 4, 5)).astype(np.uint8)
    masks = np.repeat(np.repeat(cells, 8, 1), 8, 2)
    images = np.repeat(masks[..., None] * np.uint8(200), 3, -1)
    changes = augment.make(**what)
    rows = batches.rows(6, 1)
    feed = batches.training(dataset.resident(images, masks), rows, 3, changes)
    moved = 0
    for piece in feed.pieces(0, 4):
        inputs, targets = dataset.labelled(feed.resident, piece, 2, changes)
        assert targets.dtype == jnp.uint8
        pixels = np.asarray(inputs)[..., 0]
        # No mixture: the nearest pixel has a quarter or more.
        sure = np.abs(pixels - 100) > 60
        assert sure.mean() > 0.7
        np.testing.assert_array_equal(targets[sure], (pixels > 100)[sure])
        moved += (np.asarray(targets) != masks[piece["index"]]).any((1, 2)).sum()
    assert moved > 6


def test_a_cropped_mask_is_of_each_pixel_the_nearest_one():
    mask = np.arange(60, dtype=np.uint8).reshape(6, 10)
    area, aspect, top, left = 0.2, 0.4, 0.3, 0.9
    row = (
        jnp.zeros(augment.COLUMNS)
        .at[augment.CROP]
        .set(jnp.asarray([area, aspect, top, left]))
    )
    share, ratio = 0.25 + 0.75 * area, np.exp(np.log(4 / 3) * (2 * aspect - 1))
    part = min(1, np.sqrt(share / ratio)) * 6, min(1, np.sqrt(share * ratio)) * 10
    y0, x0 = top * (6 - part[0]), left * (10 - part[1])
    expected = [
        [
            mask[int(y0 + (i + 0.5) * part[0] / 6), int(x0 + (j + 0.5) * part[1] / 10)]
            for j in range(10)
        ]
        for i in range(6)
    ]
    moved = augment.mask(augment.make(crop=0.25), row, jnp.asarray(mask))
    np.testing.assert_array_equal(moved, expected)


def test_colour_leaves_masks_alone():
    mask = jnp.asarray(drawn()[1][0])
    row = jnp.zeros(augment.COLUMNS)
    np.testing.assert_array_equal(
        augment.mask(augment.make(colour=0.5), row, mask), mask
    )


def split(count=13, size=6):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (count, size, size, 3), dtype=np.uint8)
    masks = rng.integers(0, 2, (count, size, size), dtype=np.uint8)
    read = lambda index: {"image": images[index]}  # noqa: E731
    strata = np.zeros(count, np.int32)
    return Split(read, strata, lambda index: masks[index]), images, masks


def test_masks_stream_as_they_are_stored():
    some, images, masks = split()
    rows, flip = batches.rows(4, 3), augment.make(flip=True)
    stored = batches.training(dataset.examples(some, 6), rows, 1, flip)
    streamed = batches.training(dataset.examples(some, 6, limit=0), rows, 1, flip)
    pairs = zip(stored.pieces(2, 7), streamed.pieces(2, 7), strict=True)
    for here, there in pairs:
        where = here["index"]
        np.testing.assert_array_equal(images[where], there["inputs"])
        np.testing.assert_array_equal(masks[where], there["labels"])
        one = dataset.labelled(stored.resident, here, 2, flip)
        other = dataset.labelled({}, there, 2, flip)
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_masks_are_resized_to_the_nearest_and_images_are_not():
    some, _, masks = split()
    examples = dataset.examples(some._replace(mask=lambda i: 9 * masks[i]), 12)
    np.testing.assert_array_equal(examples.labels, 9 * masks.repeat(2, 1).repeat(2, 2))
    assert examples.labels.dtype == np.uint8
    assert examples.inputs.shape == (13, 12, 12, 3)


def test_a_subset_keeps_images_and_masks_together():
    some, images, masks = split()
    few = dataset.subset(some, 5, seed=1)
    assert len(few.labels) == 5
    for index in range(5):
        (where,) = [
            i for i in range(13) if (images[i] == few.read(index)["image"]).all()
        ]
        np.testing.assert_array_equal(few.mask(index), masks[where])


def test_an_error_of_a_mask_is_told_with_its_name():
    def broken(index):
        if index == 4:
            raise ValueError("mask 4 is broken")
        return np.zeros((6, 6), np.uint8)

    some = split()[0]._replace(mask=broken)
    with pytest.raises(ValueError, match="mask 4 is broken"):
        dataset.examples(some, 6)


def test_stored_values_become_classes():
    stored = np.array([[1, 2, 3], [255, 2, 1]], np.uint8)
    classes = dense.recoded(stored, "m.png", (2, 1), (3,))
    np.testing.assert_array_equal(classes, [[1, 0, 255], [255, 0, 1]])
    whole = dense.recoded(np.array([[255]], np.uint8), "m.png", (0, 255), ())
    assert whole.tolist() == [[1]]
    with pytest.raises(ValueError, match=r"m.png holds the value 3; classes are \(2"):
        dense.recoded(stored, "m.png", (2, 1), ())


@pytest.mark.parametrize(
    "stored, ignored, message",
    [
        ((0, 1, 2), (), r"x values=\(0, 1, 2\); there are 2 classes"),
        ((1, 1), (), r"x values=\(1, 1\), .* once"),
        ((0, 256), (), "once, in"),
        ((), (1,), "once, in"),
    ],
)
def test_values_that_do_not_fit_the_classes_are_told(stored, ignored, message):
    with pytest.raises(ValueError, match=message):
        dense.values("x", ("a", "b"), stored, ignored)

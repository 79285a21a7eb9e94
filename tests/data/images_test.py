import io

import numpy as np
import pytest
from PIL import Image

from subtune_jax.data import images


def encode(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def random(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_colours_are_read_as_they_were_written():
    pixels = random((5, 7, 3))
    np.testing.assert_array_equal(
        images.decode(encode(Image.fromarray(pixels)), "x"), pixels
    )


def test_transparent_pixels_are_laid_on_white():
    pixels = random((6, 5, 4))
    share = pixels[..., 3:] / 255.0
    expected = pixels[..., :3] * share + 255.0 * (1 - share)
    decoded = images.decode(encode(Image.fromarray(pixels)), "x")
    assert decoded.dtype == np.uint8 and decoded.shape == (6, 5, 3)
    assert np.abs(decoded - expected).max() <= 1.0  # pillow rounds in integers


def test_grey_with_transparency_is_laid_on_white():
    pixels = np.array([[[10, 0], [10, 255]]], np.uint8)
    decoded = images.decode(encode(Image.fromarray(pixels)), "x")
    np.testing.assert_array_equal(decoded, [[[255] * 3, [10] * 3]])


@pytest.mark.parametrize("clear", [None, 1, bytes([0, 128, 255])])
def test_palettes_are_looked_up_and_their_transparency_is_laid_on_white(clear):
    palette = np.array([[10, 20, 30], [200, 100, 0], [0, 0, 255]])
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette(palette.astype(np.uint8).tobytes())
    options = {} if clear is None else {"transparency": clear}
    share = {None: [1, 1, 1], 1: [1, 0, 1]}.get(clear, [0, 128 / 255, 1])
    share = np.array(share)[:, None]
    expected = palette * share + 255 * (1 - share)
    decoded = images.decode(encode(image, **options), "x")
    assert np.abs(decoded[0] - expected).max() <= 1.0


@pytest.mark.parametrize("mode", ["L", "1"])
def test_one_channel_becomes_three(mode):
    image = Image.fromarray(random((4, 3))).convert(mode)
    decoded = images.decode(encode(image), "x")
    expected = np.asarray(image.convert("L"))
    for channel in range(3):
        np.testing.assert_array_equal(decoded[..., channel], expected)


def test_sixteen_bits_become_the_upper_eight():
    wide = np.array([[0, 255, 256, 65535, 0x1234]], np.uint16)
    decoded = images.decode(encode(Image.fromarray(wide)), "x")
    np.testing.assert_array_equal(decoded[..., 0], [[0, 0, 1, 255, 0x12]])


def test_cmyk_and_animations_are_read():
    cyan = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    decoded = images.decode(encode(cyan, "JPEG", quality=100), "x")
    assert decoded.shape == (4, 4, 3) and decoded[..., 0].max() < 10
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    moving = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(images.decode(moving, "x")[0, 0], [255, 0, 0])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_refused_by_name(tmp_path, kind, share):
    data = encode(Image.fromarray(random((40, 40, 3))), kind)
    file = tmp_path / "cut.png"
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"cannot decode .*cut\.png"):
        images.read(file)


def test_damaged_files_are_read_or_refused_by_name():
    data = encode(Image.fromarray(random((20, 20, 3))))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = np.frombuffer(data, np.uint8).copy()
        damaged[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
        try:
            assert images.decode(damaged.tobytes(), "x.png").dtype == np.uint8
        except ValueError as error:
            assert "x.png" in str(error)
            refused += 1
    assert refused > 100


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*none\.png: No such file"):
        images.read(tmp_path / "none.png")


@pytest.mark.parametrize("side", [4097, 10_000])  # pillow has a limit of its own
def test_a_small_file_of_many_pixels_is_refused(side):
    data = encode(Image.new("1", (side, side)))
    assert len(data) < 100_000
    with pytest.raises(ValueError, match=r"cannot decode bomb\.png: .*pixels"):
        images.decode(data, "bomb.png")


def test_resizing_by_a_whole_factor_keeps_the_mean_of_what_a_pixel_covers():
    image = random((32, 64, 3))
    # A triangle of twice the new pixel's width: the slow definition of bilinear
    # resizing without aliasing, one axis after the other.
    expected = image.astype(float)
    for axis in (0, 1):
        side = image.shape[axis]
        scale = side / 16
        centres = (np.arange(16) + 0.5) * scale
        far = np.abs(np.arange(side) + 0.5 - centres[:, None]) / scale
        weight = np.maximum(1 - far, 0)
        weight /= weight.sum(1, keepdims=True)
        expected = np.moveaxis(np.tensordot(weight, expected, (1, axis)), 0, axis)
    resized = images.resize(image, 16)
    assert resized.shape == (16, 16, 3) and resized.dtype == np.uint8
    assert np.abs(resized - expected).max() <= 1.5  # pillow rounds after each axis


def test_resizing_to_the_same_size_changes_nothing():
    image = random((9, 9, 3))
    np.testing.assert_array_equal(images.resize(image, 9), image)


def test_digests_are_equal_for_equal_pixels_only():
    image = random((4, 6, 3))
    assert images.digest(image) == images.digest(np.asfortranarray(image))
    other = image.copy()
    other[0, 0, 0] ^= 1
    assert images.digest(image) != images.digest(other)
    assert images.digest(image) != images.digest(image.reshape(6, 4, 3))

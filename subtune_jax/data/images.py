"""Images: files to pixels, safely, and pixels to a square of the wanted size."""

import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

MAX_PIXELS = 2**24  # 48 MiB as RGB: a small file can unpack to gigabytes
BROKEN = (  # what pillow raises for bad files, one kind of file or another
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError),
    *(struct.error, zlib.error, OverflowError, Image.DecompressionBombError),
    Image.DecompressionBombWarning,
)


def read(file: str | Path) -> np.ndarray:
    """The image in `file`, uint8 `[H, W, 3]`; see `decode`."""
    try:
        return decode(Path(file).read_bytes(), str(file))
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error


def decode(data: bytes, name: str) -> np.ndarray:
    """The encoded image `data`, uint8 `[H, W, 3]`.

    Transparent pixels are laid on white, 16 bits become the upper 8, one channel
    becomes three, and of an animation the first frame is taken. Rotation by EXIF is
    not applied, as in TensorFlow's and torchvision's decoders.

    Raises:
      ValueError: `data` is no image, is cut off, or has more than `MAX_PIXELS`
        pixels; `name` is in the message.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                limit = f"{MAX_PIXELS} pixels are the most"
                raise ValueError(f"{width} x {height} pixels; {limit}")
            return _rgb(image)
    except BROKEN as error:
        raise ValueError(f"cannot decode {name}: {error}") from error


def write(file: Path, pixels: np.ndarray) -> None:
    """Saves uint8 `[H, W]` or `[H, W, 3]` in the format of the suffix of `file`.

    Folders above it that are missing are made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def size(file: str | Path) -> tuple[int, int]:
    """Height and width of the image in `file`, without decoding it."""
    try:
        with Image.open(file) as image:
            return image.size[::-1]
    except BROKEN as error:
        raise ValueError(f"cannot read {file}: {error}") from error


def read_mask(file: str | Path) -> np.ndarray:
    """The mask in `file`, uint8 `[H, W]`: the values, or the numbers of a palette.

    Raises:
      ValueError: it is no image, is too large, or its channels differ.
    """
    try:
        with Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{MAX_PIXELS} pixels are the most")
            mask = np.array(image)
    except BROKEN as error:
        raise ValueError(f"cannot read mask {file}: {error}") from error
    if mask.ndim == 3 and (mask[..., :3] == mask[..., :1]).all():
        mask = mask[..., 0]
    if mask.ndim != 2 or mask.dtype not in (np.uint8, np.bool_):
        what = f"mask {file} is {mask.dtype} {list(mask.shape)}"
        raise ValueError(f"{what}; masks have one channel of 8 bits, or a palette")
    return mask.astype(np.uint8)


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):
        wide = np.asarray(image).astype(np.int64)
        return repeat(np.clip(wide >> 8, 0, 255).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.has_transparency_data:
        front = image.convert("RGBA")
        white = Image.new("RGBA", front.size, "white")
        return np.asarray(Image.alpha_composite(white, front))[..., :3].copy()
    return np.array(image.convert("RGB"))


def repeat(grey: np.ndarray) -> np.ndarray:
    """`[H, W]` -> `[H, W, 3]`, three times the same."""
    return np.repeat(grey[..., None], 3, axis=-1)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """`image`, uint8 `[H, W, 3]`, as uint8 `[size, size, 3]`; aspect is not kept.

    Bilinear, with a kernel that grows as the image shrinks (no aliasing).
    """
    if image.shape[:2] == (size, size):
        return image
    scaled = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(scaled)


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """`mask`, uint8 `[H, W]`, as uint8 `[size, size]`: of each place the nearest."""
    if mask.shape == (size, size):
        return mask
    return np.array(
        Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST)
    )


def digest(image: np.ndarray) -> bytes:
    """A hash that is the same for images of the same size and pixels."""
    whole = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    whole.update(np.ascontiguousarray(image).data)
    return whole.digest()

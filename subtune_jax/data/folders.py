"""Folders of a user's own images: which files count, and where validation is."""

from pathlib import Path

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def is_image(file: Path) -> bool:
    """Is it a file whose suffix is that of an image?"""
    return file.suffix.lower() in SUFFIXES and file.is_file()


def check_images(folder: Path, files: object) -> None:
    """Refuses, by ValueError, a `folder` in which there are no image `files`."""
    if not files:
        known = ", ".join(sorted(SUFFIXES))
        raise ValueError(f"{folder} has no images; their names end in {known}")


def validation(root: Path) -> Path | None:
    """The folder `validation` or `val` of `root`; None where there is neither.

    Raises:
      ValueError: there are both.
    """
    named = [root / name for name in ("validation", "val") if (root / name).is_dir()]
    if len(named) > 1:
        raise ValueError(f"{root} has both validation and val; one is enough")
    return named[0] if named else None

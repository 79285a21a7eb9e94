import hashlib
import importlib.metadata
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from subtune_jax import fetch
from subtune_jax.commands import fetch as fetch_command
from subtune_jax.fetch import assets, cache
from subtune_jax.fetch.assets import ASSETS, Asset

CONTENT = b"weights"


def pinned(archive, **changes):
    row = dict(
        what="data: a toy",
        client="npm",
        package="toy",
        version="1.2",
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        megabytes=1,
        licence="MIT",
        root="toy/data",
        keep=r"toy\.bin",
    )
    return Asset(**(row | changes))


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "registry" / "toy-1.2.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("toy/data/toy.bin", CONTENT)
        package.writestr("toy/code.py", "raise SystemExit")
    return path


@pytest.fixture
def toy(tmp_path, monkeypatch, archive):
    """One asset, `toy`, whose `npm` is a script that copies the archive."""
    monkeypatch.setenv("SUBTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    client(tmp_path, f"cp {archive} .")
    monkeypatch.setattr(assets, "ASSETS", {"toy": pinned(archive)})


def client(tmp_path, line):
    script = tmp_path / "bin" / "npm"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/calls\n{line}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)


def calls(tmp_path):
    file = tmp_path / "calls"
    return file.read_text().splitlines() if file.exists() else []


def test_a_fetch_downloads_once_and_then_reads_the_cache(toy, tmp_path, capsys):
    assert fetch.cached("toy") is None
    folder = fetch.path("toy")
    assert [file.name for file in folder.iterdir()] == ["toy.bin"]
    assert (folder / "toy.bin").read_bytes() == CONTENT
    assert fetch.path("toy") == fetch.cached("toy") == folder
    assert calls(tmp_path) == ["pack toy@1.2 --ignore-scripts"]
    shown = capsys.readouterr().err
    assert shown == "fetch toy: toy 1.2 by npm, 1 MB; licence: MIT\n"


def test_the_command_prints_the_folder_last(toy, tmp_path, capsys):
    assert fetch_command.main(["toy"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == str(fetch.cached("toy"))
    assert last.startswith(str(tmp_path / "cache"))


def test_a_wrong_archive_is_refused_and_leaves_nothing(
    toy, tmp_path, monkeypatch, archive, capsys
):
    real = pinned(archive).sha256
    monkeypatch.setitem(assets.ASSETS, "toy", pinned(archive, sha256="0" * 64))
    assert fetch_command.main(["toy"]) == 2
    *_, message = capsys.readouterr().err.splitlines()
    assert real in message and "0" * 64 in message
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_archive_that_lacks_files_is_refused(toy, tmp_path, monkeypatch, archive):
    monkeypatch.setitem(assets.ASSETS, "toy", pinned(archive, files=2))
    with pytest.raises(ValueError, match="toy: 1 files; there should be 2"):
        fetch.path("toy")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_client_that_fails_is_told_in_one_line(toy, tmp_path, capsys):
    client(tmp_path, "echo working >&2; echo error: network is unreachable >&2; exit 1")
    assert fetch_command.main(["toy"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[1:] == ["subtune fetch: npm failed: error: network is unreachable"]


def test_a_missing_client_is_told_by_name(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(fetch.Unavailable, match="npm, which downloads it, is missing"):
        fetch.path("toy")


def test_a_killed_fetch_leaves_no_half_of_an_asset(toy, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.archives, "extract", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch.path("toy")
    assert fetch.cached("toy") is None
    assert (fetch.path("toy") / "toy.bin").read_bytes() == CONTENT


def test_an_unknown_name_is_told_before_anything_is_downloaded(toy, tmp_path, capsys):
    assert fetch_command.main(["toy", "tyo"]) == 2
    error = capsys.readouterr().err
    assert (
        error
        == "subtune fetch: no asset named 'tyo'; did you mean 'toy'? there are toy\n"
    )
    assert calls(tmp_path) == []


def test_no_name_at_all_is_a_usage_error(capsys):
    assert fetch_command.main([]) == 2
    assert "no NAME given; there are" in capsys.readouterr().err


def test_the_list_names_every_asset(toy, capsys):
    assert fetch_command.main(["--list"]) == 0
    shown = capsys.readouterr().out
    assert shown.split() == "toy 1 MB data: a toy; licence MIT".split()


class Installed:
    version = "1.2"

    def __init__(self, root):
        self.root = root

    def locate_file(self, path):
        return self.root / path


@pytest.fixture
def installed(toy, tmp_path, monkeypatch, archive):
    site = tmp_path / "site"
    with zipfile.ZipFile(archive) as package:
        package.extractall(site)
    content = {"toy.bin": hashlib.sha256(CONTENT).hexdigest()}
    asset = pinned(archive, client="pip", content=content)
    monkeypatch.setitem(assets.ASSETS, "toy", asset)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Installed(site))
    return site / "toy" / "data"


def test_an_installed_package_is_used_in_place_and_not_imported(installed, tmp_path):
    assert fetch.path("toy") == installed
    assert "toy" not in sys.modules
    assert not (tmp_path / "cache").exists()


def test_another_version_or_missing_files_do_not_count(installed, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Installed, "version", "1.3")
        assert fetch.cached("toy") is None
    (installed / "toy.bin").unlink()
    assert fetch.cached("toy") is None


def test_an_installed_file_that_was_changed_is_refused(installed):
    (installed / "toy.bin").write_bytes(b"other")
    with pytest.raises(ValueError, match="the pinned one is"):
        fetch.path("toy")


@pytest.mark.parametrize("name", ASSETS)
def test_a_cached_asset_is_whole(name):
    folder = fetch.cached(name)
    if folder is None:
        pytest.skip(f"{name} is not here; `subtune fetch {name}`")
    assert cache._count(folder, ASSETS[name]) == ASSETS[name].files
    for file, sha256 in ASSETS[name].content.items():
        with (folder / file).open("rb") as stream:
            assert hashlib.file_digest(stream, "sha256").hexdigest() == sha256


def test_pip_is_told_the_hash_and_what_it_found_is_passed_on(toy, monkeypatch):
    # pip's own words, kept short.
    said = "ERROR: THESE PACKAGES DO NOT MATCH\n  Expected sha256 aa\n   Got     bb\n"
    pins = []

    def run(command, **_):
        pins.append(Path(command[-1]).read_text())
        raise subprocess.CalledProcessError(1, command, stderr=said)

    monkeypatch.setattr(subprocess, "run", run)
    asset = assets.ASSETS["toy"]._replace(client="pip")
    monkeypatch.setitem(assets.ASSETS, "toy", asset)
    with pytest.raises(ValueError, match="has sha256 bb; the pinned one is aa"):
        fetch.path("toy")
    assert pins == [f"toy==1.2 --hash=sha256:{asset.sha256}"]

import io
import tarfile
import zipfile

import pytest

from subtune_jax.fetch import archives


def wheel(path, files):
    with zipfile.ZipFile(path, "w") as package:
        for name, content in files.items():
            package.writestr(name, content)
    return path


def tarball(path, files, links=(), kind=tarfile.SYMTYPE):
    with tarfile.open(path, "w:gz") as package:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            package.addfile(member, io.BytesIO(content))
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            package.addfile(member)
    return path


def contents(folder):
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize("pack", [wheel, tarball])
def test_only_the_wanted_files_below_the_root_are_extracted(tmp_path, pack):
    files = {
        "pkg/data/a.png": b"a",
        "pkg/data/deep/b.png": b"b",
        "pkg/data/notes.txt": b"-",
        "pkg/code.png": b"-",
        "pkg/data2/c.png": b"-",
    }
    suffix = ".whl" if pack is wheel else ".tgz"
    archive = pack(tmp_path / f"package{suffix}", files)
    archives.extract(archive, "pkg/data", r".+\.png", tmp_path / "out")
    assert contents(tmp_path / "out") == {"a.png": b"a", "deep/b.png": b"b"}


@pytest.mark.parametrize("pack", [wheel, tarball])
@pytest.mark.parametrize("name", ["pkg/../../evil", "/pkg/evil", "../pkg/evil"])
def test_no_file_is_written_outside_the_folder(tmp_path, pack, name):
    suffix = ".whl" if pack is wheel else ".tgz"
    archive = pack(tmp_path / f"package{suffix}", {name: b"x", "pkg/fine": b"y"})
    archives.extract(archive, "pkg", ".+", tmp_path / "deep" / "out")
    assert contents(tmp_path / "deep") == {"out/fine": b"y"}
    assert not list(tmp_path.rglob("evil"))


def test_links_between_wanted_files_become_copies_in_any_order(tmp_path):
    links = [("./r/x/two", "../y/one"), ("./r/y/one", "zero"), ("./r/q", "/etc/hosts")]
    archive = tarball(tmp_path / "p.tgz", {"./r/y/zero": b"0"}, links)
    archives.extract(archive, "r", r"[xy]/.+", tmp_path / "out")
    assert contents(tmp_path / "out") == {"y/zero": b"0", "y/one": b"0", "x/two": b"0"}
    assert not any(file.is_symlink() for file in (tmp_path / "out").rglob("*"))


def test_hard_links_become_copies(tmp_path):
    archive = tarball(
        tmp_path / "p.tgz", {"r/a": b"a"}, [("r/b", "r/a")], tarfile.LNKTYPE
    )
    archives.extract(archive, "r", ".+", tmp_path / "out")
    assert contents(tmp_path / "out") == {"a": b"a", "b": b"a"}


@pytest.mark.parametrize("target", ["/etc/hosts", "../../etc/hosts", "../other"])
def test_a_link_out_of_the_root_is_refused(tmp_path, target):
    archive = tarball(tmp_path / "p.tgz", {}, [("r/a", target)])
    with pytest.raises(ValueError, match="r/a links outside r"):
        archives.extract(archive, "r", ".+", tmp_path / "out")


def test_links_in_a_circle_are_refused(tmp_path):
    archive = tarball(tmp_path / "p.tgz", {}, [("r/a", "b"), ("r/b", "a")])
    with pytest.raises(ValueError, match="leads back to itself"):
        archives.extract(archive, "r", ".+", tmp_path / "out")

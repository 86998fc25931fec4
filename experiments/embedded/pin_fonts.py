"""Writes fonts.json: version and sha256 of every font package that a task names.

    python experiments/embedded/pin_fonts.py --cache build/embedded

A family that is already pinned keeps its version; others get the newest. To pin one again, delete
its line, and its package file from the cache.
"""

import argparse
import hashlib
import json
import re
import subprocess
from pathlib import Path

import letters
import scripts
from fonts import PINS, package_file
from packages import read_members


def _package_file(name: str, cache: Path) -> Path:
    """The family's package file in the cache; fetches the newest one if there is none."""
    held = sorted(cache.glob(package_file(name, "[0-9]*")[2]))
    if held:
        return held[-1]
    command = ["npm", "pack", "--silent", package_file(name, "latest")[0]]
    run = subprocess.run(command, cwd=cache, check=True, capture_output=True, text=True)
    return cache / run.stdout.strip()


def _copyright(text: str) -> str:
    """The copyright holder, without reserved names, lines on other files, and addresses."""
    text = re.sub(r"\s*[(<][^()<>]*(@|\.com|www\.|https?:)[^()<>]*[)>]", "", text.split("\n")[0])
    text = re.sub(r"\s*\S*(@|www\.|https?:)\S*", "", text)
    text = re.split(
        r"\S+\.ttf:|,? with (?:no )?rese|All rights|This Font|Licen[cs]ed", text, flags=re.I
    )[0]
    return " ".join(text.split()).rstrip(" ,.|")


def pin(name: str, cache: Path) -> dict:
    """Describes a family's package in the form of ``fonts.json``."""
    path = _package_file(name, cache)
    about = json.loads(read_members(path, ["package/metadata.json"])["package/metadata.json"])
    return {
        "version": path.stem.removeprefix(f"fontsource-{name}-"),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "category": about["category"],
        "weights": about["weights"],
        "licence": about["license"]["type"],
        "copyright": _copyright(about["license"]["attribution"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, default=Path("build/embedded"))
    cache = parser.parse_args().cache / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    names = sorted({*letters.family_names(), *scripts.family_names()})
    pins = json.loads(PINS.read_text(encoding="utf-8")) if PINS.exists() else {}
    for name in names:
        if name not in pins:
            pins[name] = pin(name, cache)
            print(name, pins[name], flush=True)
    # One line a family, so that a diff shows which one changed.
    lines = [f"{json.dumps(name)}: {json.dumps(pins[name])}" for name in names]
    PINS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()

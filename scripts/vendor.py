"""Fetches the libraries of the page as `vendored.json` pins them, and writes them beside it: `make vendor`.

The tarball comes from the registry that npm is set up for, and must have the SHA-256 that is written down. Imports by
package name become relative: a browser finds a module by name only with an inline import map, which the
Content-Security-Policy of the page forbids.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "src/otel_metadata/server/page/vendor"

_BARE_IMPORT = re.compile(r'(\bfrom\s*|\bimport\s*)"([a-z@][^"]*)"')
_SOURCE_MAP = re.compile(r"\n?//# sourceMappingURL=.*\n?")


def main() -> None:
    """Write every file of every package, and the digest of each."""
    packages = json.loads((FOLDER / "vendored.json").read_text())
    local_names = {
        _specifier(one["package"], inside): name
        for one in packages
        for inside, name in one["files"].items()
        if name.endswith(".js")
    }
    for one in packages:
        with tempfile.TemporaryDirectory() as folder:
            tarball = _fetched(one, Path(folder))
            with tarfile.open(tarball) as archive:
                for inside, name in one["files"].items():
                    member = archive.extractfile(f"package/{inside}")
                    assert member is not None, inside
                    text = member.read().decode()
                    if name.endswith(".js"):
                        text = _for_browsers(text, local_names)
                    (FOLDER / name).write_text(text)
                    one.setdefault("written", {})[name] = hashlib.sha256(text.encode()).hexdigest()
        print(f"{one['package']} {one['version']}: {', '.join(one['files'].values())}")
    (FOLDER / "vendored.json").write_text(f"{json.dumps(packages, indent=2)}\n")


def _fetched(package: dict[str, Any], folder: Path) -> Path:
    spec = f"{package['package']}@{package['version']}"
    subprocess.run(
        ["npm", "pack", "--silent", "--pack-destination", folder, spec], check=True, stdout=subprocess.DEVNULL
    )
    (tarball,) = folder.glob("*.tgz")
    got = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if got != package["sha256"]:
        sys.exit(f"{spec} has the SHA-256 {got}; expected {package['sha256']}, as vendored.json says.")
    return tarball


def _specifier(package: str, inside: str) -> str:
    """Return the name by which other packages import a file: `hooks/dist/hooks.mjs` of preact is `preact/hooks`."""
    return "/".join([package, *inside.split("/")[:-2]])


def _for_browsers(text: str, local_names: dict[str, str]) -> str:
    def relative(match: re.Match[str]) -> str:
        return f'{match[1]}"./{local_names[match[2]]}"'

    return _SOURCE_MAP.sub("\n", _BARE_IMPORT.sub(relative, text))


if __name__ == "__main__":
    main()

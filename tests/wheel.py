"""Build a wheel and run it outside the checkout, in an environment that has its requirements only.

The requirements are those of the environment that runs this script, lent by path, so that nothing is
downloaded again; vconv itself comes from the wheel.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXPORT = """
import sys
import vconv
from vconv.catalog.systems import SYSTEMS, miniature
vconv.export(miniature(SYSTEMS[sys.argv[1]]), "synthetic", "small")
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="vconv-wheel-") as name:
        outside = Path(name)
        # What an earlier build left would be packed too.
        shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)
        run(
            sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", outside, ROOT, cwd=outside
        )
        (wheel,) = outside.glob("*.whl")
        venv.create(outside / "venv", with_pip=True)
        python = outside / "venv" / "bin" / "python"
        packages = Path(
            run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=outside).strip()
        )
        (packages / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=outside)
        where = run(python, "-c", "import vconv; print(vconv.__file__)", cwd=outside).strip()
        if not Path(where).is_relative_to(packages):
            sys.exit(f"vconv was imported from {where}, not from the wheel")
        command = outside / "venv" / "bin" / "vconv"
        run(command, "--help", cwd=outside)
        system = json.loads(run(command, "list", "--json", cwd=outside))[0]["name"]
        run(python, "-c", EXPORT, system, cwd=outside)
        report = json.loads(run(command, "validate", "small", "--quick", "--json", cwd=outside))
        if not report["passed"]:
            sys.exit("the wheel's own validation did not pass")
        print(f"{wheel.name}: exported and validated a small {system} outside the checkout")


if __name__ == "__main__":
    main()

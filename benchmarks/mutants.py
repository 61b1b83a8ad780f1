"""Change the judging code by one operator, number or condition at a time, and see whether a test notices.

cosmic-ray makes the mutants of what mutants.toml names and runs the tests that stand there, in a copy:
the checkout is never changed. A mutant that no test notices must be explained in that file: it computes the
same as the code, so that no test could.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import WorkerOutcome
from record import finish, out_option

ROOT = Path(__file__).resolve().parent.parent
CONFIG = Path(__file__).with_suffix(".toml")
FILES = ("---", "+++")
"""How the lines of a difference begin that name files."""
COPIED = ("core", "validators", "tests/validators", "pyproject.toml")


def copy(target: Path) -> None:
    """Copy what is mutated and what the tests need, and lay out the package as it is installed."""
    for name in COPIED:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target / name)
    package = target / "tree" / "vconv"
    package.mkdir(parents=True)
    for file in (target / "core").iterdir():
        (package / file.name).symlink_to(file)
    (package / "validators").symlink_to(target / "validators")
    shutil.copy(CONFIG, target / CONFIG.name)


def test_all(target: Path) -> Path:
    """Make every mutant and test it; return what cosmic-ray has written down."""
    binaries = Path(sys.executable).parent
    environment = {**os.environ, "PYTHONPATH": str(target / "tree"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    environment["PATH"] = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    session = "session.sqlite"
    for command in (
        ["cosmic-ray", "baseline", CONFIG.name],
        ["cosmic-ray", "init", CONFIG.name, session],
        ["cr-filter-operators", session, CONFIG.name],
        ["cosmic-ray", "exec", CONFIG.name, session],
    ):
        subprocess.run([str(binaries / command[0]), *command[1:]], cwd=target, env=environment, check=True)
    return target / session


def tested(session: Path) -> Iterator[dict[str, str]]:
    """Yield what was changed in every mutant, and what came of it."""
    with use_db(session, WorkDB.Mode.open) as database:
        items = database.completed_work_items
    for work, result in items:
        if result.worker_outcome is WorkerOutcome.SKIPPED:
            continue
        (mutation,) = work.mutations
        changed = [part for part in result.diff.splitlines() if part[:1] in "+-" and part[:3] not in FILES]
        yield {
            "file": str(mutation.module_path),
            "function": mutation.definition_name or "",
            "before": " ".join(part[1:].strip() for part in changed if part.startswith("-")),
            "after": " ".join(part[1:].strip() for part in changed if part.startswith("+")),
            "outcome": result.test_outcome.value,
        }


def reason(mutant: Mapping[str, str], explained: Sequence[Mapping[str, Any]]) -> str:
    """Return why no test can notice a mutant; nothing where that is not known."""
    for row in explained:
        same = all(row[key] == mutant[key] for key in ("file", "before"))
        if same and any(part in mutant["after"] for part in row["after"]):
            return row["reason"]
    return ""


def main() -> None:
    out = out_option(__doc__)
    explained = tomllib.loads(CONFIG.read_text())["equivalent"]
    with tempfile.TemporaryDirectory() as place:
        copy(Path(place))
        mutants = sorted(tested(test_all(Path(place))), key=lambda mutant: tuple(mutant.values()))
    survivors = [mutant for mutant in mutants if mutant["outcome"] == "survived"]
    rows = [{**mutant, "reason": reason(mutant, explained)} for mutant in survivors]
    for row in rows:
        print(f"{row['file']}, {row['function']}\n  - {row['before']}\n  + {row['after']}\n  {row['reason']}")
    counts = {
        file: dict(Counter(mutant["outcome"] for mutant in mutants if mutant["file"] == file))
        for file in sorted({mutant["file"] for mutant in mutants})
    }
    unexplained = sum(not row["reason"] for row in rows)
    stale = [row for row in explained if not any(reason(mutant, [row]) for mutant in survivors)]
    for file, found in counts.items():
        print(f"{file}: " + ", ".join(f"{number} {outcome}" for outcome, number in found.items()))
    print(f"survivors without a reason: {unexplained}; reasons without a survivor: {len(stale)}")
    others = any(mutant["outcome"] not in ("killed", "survived") for mutant in mutants)
    result = {"mutants": len(mutants), "by_file": counts, "survivors": rows}
    finish(result, passed=not (unexplained or stale or others), out=out)


if __name__ == "__main__":
    main()

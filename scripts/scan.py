"""Which packages that we pin are known to be vulnerable: those of requirements/ by pip-audit, those of tests/provider by npm.

A finding fails it, with its name and what to do. Where the service that knows them does not answer, or knows none of our
packages, it says that nothing was scanned and goes on: an outage elsewhere is no fault of a change, and proves nothing either.

`--osv-url URL`: ask this service, which speaks OSV, in place of PyPI. `--npm-registry URL`: likewise, for npm.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PIP_AUDIT = "pip-audit==2.10.1"
LOCKS = ("all", "bootstrap")
"""`image.txt` is a part of `all.txt`: tests/unit/test_requirements.py."""
SECONDS_MAX = 240
ACCEPTED: Mapping[str, str] = {}
"""Vulnerabilities, by a name of theirs, that do not fail the scan, each with its reason: nobody calls what is vulnerable, say."""


@dataclass(frozen=True)
class Scan:
    """What one scanner has said. `findings`: a line each. `unknown`: packages of which it knows nothing."""

    scanned: int
    findings: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    why: str = ""
    """Nothing was scanned."""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--osv-url", default="")
    options.add_argument("--npm-registry", default="")
    given = options.parse_args()
    scans = {"Python packages": of_python(given.osv_url), "packages of tests/provider": of_node(given.npm_registry)}
    for what, scan in scans.items():
        print("\n".join(told(what, scan)))
    return 1 if any(scan.findings for scan in scans.values()) else 0


def told(what: str, scan: Scan) -> list[str]:
    """In lines."""
    if not scan.scanned:
        return [f"scan: NOTHING WAS SCANNED of {what}: {scan.why}"]
    lines = [f"scan: {scan.scanned} {what}, {len(scan.findings)} known vulnerabilities", *scan.findings]
    if scan.unknown:
        lines.append(f"scan: not scanned, since the service does not know them: {', '.join(scan.unknown)}")
    if scan.findings:
        lines.append(
            "hint: raise the version in pyproject.toml (or package.json), make lock, make test; what does not concern us"
        )
        lines.append("      is accepted in scripts/scan.py, with the reason")
    return lines


def of_python(osv_url: str) -> Scan:
    """All that is locked, with its hashes."""
    locks = [word for lock in LOCKS for word in ("-r", f"requirements/{lock}.txt")]
    asked = ["-s", "osv", "--osv-url", osv_url] if osv_url else []
    uv = [str(Path(sys.executable).with_name("uv")), "tool", "run", "-q", "--from", PIP_AUDIT, "pip-audit"]
    said, failed = _output(
        [*uv, *locks, "--require-hashes", "--disable-pip", "--progress-spinner", "off", "-f", "json", *asked]
    )
    return read_pip_audit(said, failed, shipped=(ROOT / "requirements" / "image.txt").read_text())


def read_pip_audit(said: str, failed: str, *, shipped: str) -> Scan:
    """Its report, which calls packages fine that it could not ask about."""
    report = _object(said)
    packages = report.get("dependencies") or []
    asked = [one for one in packages if "vulns" in one]
    if not asked:
        return Scan(
            scanned=0,
            why=failed or "the advisories that can be reached know none of them: scan where those of PyPI answer",
        )
    findings = tuple(
        f"  {one['name']} {one['version']}{_shipped(one['name'], shipped)}: {_names(vulnerability)},"
        f" {_mended(vulnerability.get('fix_versions', []))}"
        for one in asked
        for vulnerability in one["vulns"]
        if not ACCEPTED.keys() & {vulnerability["id"], *vulnerability.get("aliases", [])}
    )
    return Scan(
        scanned=len(asked), findings=findings, unknown=tuple(one["name"] for one in packages if "vulns" not in one)
    )


def _shipped(name: str, shipped: str) -> str:
    return " (shipped)" if f"\n{name}==" in f"\n{shipped}" else ""


def _names(vulnerability: dict[str, Any]) -> str:
    return " ".join([vulnerability["id"], *vulnerability.get("aliases", [])])


def _mended(versions: Sequence[str]) -> str:
    return f"mended in {', '.join(versions)}" if versions else "mended nowhere yet"


def of_node(registry: str) -> Scan:
    """What the identity provider of the tests is made of."""
    if not shutil.which("npm"):
        return Scan(scanned=0, why="there is no npm")
    command = ["npm", "audit", "--json", *(["--registry", registry] if registry else [])]
    said, failed = _output(command, cwd=ROOT / "tests" / "provider")
    return read_npm(said, failed)


def read_npm(said: str, failed: str) -> Scan:
    """Its report: a finding is a package, with what advises against it."""
    report = _object(said)
    scanned = report.get("metadata", {}).get("dependencies", {}).get("total", 0)
    if not scanned:
        return Scan(scanned=0, why=report.get("message", "") or failed or "the registry does not say")
    findings = tuple(
        f"  {name}: {'; '.join(via if isinstance(via, str) else str(via.get('url', '')) for via in one.get('via', []))}"
        for name, one in report.get("vulnerabilities", {}).items()
    )
    return Scan(scanned=scanned, findings=findings)


def _output(command: Sequence[str], *, cwd: Path = ROOT) -> tuple[str, str]:
    """What a scanner prints, and how it failed where it failed. It also fails where it finds something."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
            env={**os.environ, "NO_COLOR": "1"},
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer within {SECONDS_MAX} s"
    return done.stdout, (done.stderr.strip().splitlines() or [""])[-1][:300] if done.returncode else ""


def _object(said: str) -> dict[str, Any]:
    try:
        found = json.loads(said)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


if __name__ == "__main__":
    sys.exit(main())

"""A vulnerable package fails the scan by its name, and what could not be scanned is never called fine.

The reports are those of pip-audit 2.10.1 and npm 10 against servers that knew one package, none, or did not answer, cut short.
"""

from __future__ import annotations

import json

import pytest

from scripts import scan
from scripts.scan import Scan, read_npm, read_pip_audit, told

SHIPPED = "httpx2==2.16.2 \\\n    --hash=sha256:00\njinja2==3.1.6 \\\n    --hash=sha256:00\n"
FINE = {"name": "httpx2", "version": "2.16.2", "vulns": []}
FOUND = {"id": "OSV-1", "aliases": ["CVE-2026-1"], "fix_versions": ["3.1.7"], "description": "bad"}
VULNERABLE = {"name": "jinja2", "version": "3.1.6", "vulns": [FOUND]}
DEVELOPERS = {"name": "ruff", "version": "0.17", "vulns": [{"id": "OSV-2", "fix_versions": []}]}
UNKNOWN = {"name": "ruff", "skip_reason": "Dependency not found on PyPI and could not be audited: ruff (0.17)"}


def pip_audit(*packages: object, failed: str = "") -> Scan:
    return read_pip_audit(json.dumps({"dependencies": packages, "fixes": []}), failed, shipped=SHIPPED)


def test_a_finding_is_told_by_its_names_and_with_what_to_do() -> None:
    lines = told("Python packages", pip_audit(FINE, VULNERABLE, DEVELOPERS, failed="Found 2 known vulnerabilities"))
    assert lines[0] == "scan: 3 Python packages, 2 known vulnerabilities"
    assert "jinja2 3.1.6 (shipped): OSV-1 CVE-2026-1, mended in 3.1.7" in lines[1]
    assert "ruff 0.17: OSV-2, mended nowhere yet" in lines[2]
    assert lines[-2].startswith("hint: raise the version")


def test_a_finding_that_is_accepted_by_one_of_its_names_does_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "ACCEPTED", {"CVE-2026-1": "no template of ours comes from users"})
    assert [line.split(":")[0] for line in pip_audit(VULNERABLE, DEVELOPERS).findings] == ["  ruff 0.17"]


def test_where_all_is_well_that_is_all_that_is_said() -> None:
    assert told("Python packages", pip_audit(FINE)) == ["scan: 1 Python packages, 0 known vulnerabilities"]


def test_packages_that_the_service_does_not_know_are_named() -> None:
    assert "not scanned, since the service does not know them: ruff" in told("x", pip_audit(FINE, UNKNOWN))[-1]


def test_a_service_that_knows_none_or_does_not_answer_has_scanned_nothing() -> None:
    for one in (
        pip_audit(UNKNOWN, UNKNOWN),
        pip_audit(),
        read_pip_audit("", "ConnectionError", shipped=SHIPPED),
        read_pip_audit("No known vulnerabilities found", "", shipped=SHIPPED),
        read_pip_audit("[]", "", shipped=SHIPPED),
        read_npm(
            json.dumps({"message": "405 Method Not Allowed", "statusCode": 405}), "audit endpoint returned an error"
        ),
        read_npm("", "ENOTFOUND"),
    ):
        (line,) = told("packages", one)
        assert line.startswith("scan: NOTHING WAS SCANNED of packages: "), line
        assert not one.findings


def test_of_npm_a_finding_is_a_package_with_what_advises_against_it() -> None:
    advised = {"source": 1, "name": "koa", "url": "https://advisories.example/GHSA-1", "severity": "high"}
    vulnerable = {"koa": {"name": "koa", "via": [advised]}, "oidc-provider": {"name": "oidc-provider", "via": ["koa"]}}
    total = {"metadata": {"dependencies": {"total": 60}}}
    found = read_npm(json.dumps({"vulnerabilities": vulnerable, **total}), "")
    assert found.findings == ("  koa: https://advisories.example/GHSA-1", "  oidc-provider: koa")
    assert read_npm(json.dumps({"vulnerabilities": {}, **total}), "") == Scan(scanned=60)

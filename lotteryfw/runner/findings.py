"""Checks the results that an analysis returns."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real

from lotteryfw.api.errors import ContractError
from lotteryfw.api.results import AnalysisResult


def checked_findings(findings: object) -> list[AnalysisResult]:
    """Return the results of an analysis. Raises ContractError for anything but results with numbers."""
    if not isinstance(findings, Iterable):
        raise ContractError(f"gave a {type(findings).__name__}, not a list of findings")
    checked = []
    for finding in findings:
        if not isinstance(finding, AnalysisResult):
            raise ContractError(f"gave a {type(finding).__name__}, not an AnalysisResult")
        values = finding.value if isinstance(finding.value, list | tuple) else (finding.value,)
        strange = [type(value).__name__ for value in values if not isinstance(value, Real)]
        if strange:
            raise ContractError(
                f"the value of '{finding.figure}' must be a number or several, not a {strange[0]}"
            )
        checked.append(finding)
    return checked

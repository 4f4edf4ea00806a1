"""Makes docs/reproductions.md from the stored results of runs in docs/results/.

Without arguments it judges the present claims of each recipe by the stored rows, and writes the
page and the verdicts.json of each result. So a claim that was set right is applied to stored
results without training anything again. `--check` writes nothing, and fails if a file would change.

    python scripts/make_reproductions.py keep NAME RUN [RUN …] --command "lotteryfw recipe …"
        [--note "…"] [--add]

stores the small files of a run as docs/results/NAME: its levels, its resolved recipe, its manifest
without this machine's paths, and the figures of analyses that claims are about. The objects of the
run stay in its store. Several runs become one result if they differ in seeds and claims alone, as the
parts of a study do that is run seed by seed; `--add` adds runs to the result that is there. The
command is the one that makes all of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import tomli_w

from lotteryfw.api.errors import UsageError
from lotteryfw.recipe import Recipe, load_recipe
from lotteryfw.registry import Registry
from lotteryfw.report import check_claims
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.tables.claims import claims_markdown
from lotteryfw.report.tables.summary import summary_markdown
from lotteryfw.report.tables.winning_tickets import verdict_markdown
from lotteryfw.report.verdicts.claims import ClaimVerdict
from lotteryfw.store import RunFolder

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reproductions.md"
RESULTS = ROOT / "docs" / "results"
EARLIER = RESULTS / "earlier-runs.md"
RECIPES = ROOT / "recipes"
NO_DATA = ROOT / "no-data"  # recipes are checked without their data sets

KEPT_OF_MANIFEST = ("name", "title", "profile")
KEPT_OF_PART = ("seeds", "digest", "versions", "numerics", "machine")
OUTCOMES = ("supported", "contradicted", "undecided", "not tested")

INTRODUCTION = (
    "# Reproductions\n\n"
    "<!-- Generated: do not edit. Regenerate with `python scripts/make_reproductions.py`. -->\n\n"
    "This page holds the claims of the papers, as the [recipes](../recipes/) state them, against "
    "the runs in `docs/results`. The program judges, nobody else, and a claim that is contradicted "
    "stays on the page like one that is supported.\n\n"
    "- *supported*, *contradicted*: three seeds or more, and the 95 % Student-t interval lies "
    "wholly on one side of what is claimed; each of the two is wrong at most 2.5 times in 100. Two "
    "networks are compared by their differences, paired by seed.\n"
    "- *undecided*: the interval holds both, there are fewer than three seeds, or a training "
    "diverged. With three seeds, the number that would decide at this spread stands beside it.\n"
    "- *not tested*: the reason stands beside it, mostly that trainings were shorter than the "
    "paper's. The numbers are shown all the same.\n\n"
    "A published value is judged on both sides, within a tolerance whose reason the recipe states: "
    "the tolerance is ours, and not the paper's spread. Claims of one family are corrected for "
    "their number by Holm's method: they are judged at a smaller error rate than that of the "
    "intervals shown, so that one whose interval lies on one side may be undecided.\n\n"
    "*Early* figures are those at the step of the lowest validation loss. All others, and the "
    "tables of the sections, are those at the last step. A figure over several levels is the mean "
    "over them, for each seed: every level counts alike, so that the sparsest, where networks "
    "differ most, weigh most in it. *Steps* are those of the longest single training; a search in "
    "cycles has as many in each cycle."
)


@dataclass(frozen=True)
class Result:
    """A stored run: docs/results/NAME with its result.toml."""

    folder: Path

    @cached_property
    def about(self) -> dict[str, Any]:
        """The contents of result.toml: recipe, profile, sets, studies, command and note."""
        return tomllib.loads((self.folder / "result.toml").read_text("utf-8"))

    @cached_property
    def data(self) -> RunData:
        """The run's rows and findings."""
        return RunData(RunFolder(self.folder))

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe as it is today, with the profile, the changes and the studies of the run."""
        about = self.about
        studies = about.get("studies", [])
        return read_recipe(about["recipe"], about["profile"], about["sets"], studies)

    @cached_property
    def verdicts(self) -> list[ClaimVerdict]:
        """The verdicts on the recipe's present claims about the studies of the run."""
        studies = {cell.study for cell in self.recipe.cells}
        claims = []
        for claim in self.recipe.claims:
            if any(side.study in studies for side in claim.sides().values()):
                claims.append(claim)
        return check_claims(self.data, claims)

    @property
    def longest(self) -> int:
        """The length of its longest training, in optimizer updates."""
        return max((row.steps for row in self.data.folder.read_levels()), default=0)


def read_recipe(
    name: str, profile: str = "", sets: Sequence[str] = (), studies: Sequence[str] = ()
) -> Recipe:
    """Return a recipe of the repository, with all its studies or with those of these names."""
    # Files that a run read as its data need not be here, and claims do not depend on them.
    kept_sets = [change for change in sets if not change.startswith("data=")]
    return load_recipe(
        RECIPES / f"{name}.toml",
        Registry.load([]),
        data_folder=NO_DATA,
        profile=profile or None,
        sets=kept_sets,
        studies=list(studies),
    )


def stored_results() -> list[Result]:
    """Return the stored results: by recipe, those of longer trainings first."""
    results = [Result(path.parent) for path in sorted(RESULTS.glob("*/result.toml"))]
    return sorted(results, key=lambda result: (result.about["recipe"], -result.longest))


def page(results: Sequence[Result]) -> str:
    """Return the whole page."""
    rows = list(lead_rows(results))
    counts = []
    for outcome in OUTCOMES:
        count = sum(verdict.outcome == outcome for verdict in rows)
        counts.append(f"{count} {outcome}")
    left_out, claims_left_out = without_results(results)
    parts = [
        INTRODUCTION,
        "## The claims in one table",
        f"Of the {len(rows)} claims about studies that were run, {', '.join(counts)}. If several "
        f"runs test a claim, the longest one counts. [{claims_left_out} more]"
        "(#claims-without-a-stored-result) are about studies that were not run.",
        lead_table(rows),
        *(section(result) for result in results),
        left_out,
    ]
    if EARLIER.is_file():
        parts.append(EARLIER.read_text("utf-8").strip())
    return "\n\n".join(parts) + "\n"


def lead_rows(results: Sequence[Result]) -> Iterator[ClaimVerdict]:
    """Yield the verdict that counts for each claim of the recipes that have results."""
    by_claim: dict[tuple[str, str, str], list[ClaimVerdict]] = {}
    for result in results:
        for verdict in result.verdicts:
            key = (result.about["recipe"], verdict.claim.study, verdict.claim.text)
            by_claim.setdefault(key, []).append(verdict)
    for verdicts in by_claim.values():
        # Results come by length. A run that tests the claim is better than one that has its
        # numbers alone, and that is better than one that has none.
        yield min(
            verdicts, key=lambda verdict: (verdict.outcome == "not tested", not verdict.numbers)
        )


def lead_table(verdicts: Sequence[ClaimVerdict]) -> str:
    """Return the table of claims as Markdown."""
    lines = ["| claim | the paper | here | n | steps | verdict |", "|---|---|---|--:|--:|---|"]
    for verdict in verdicts:
        cells = (
            f"{verdict.claim.text} ({verdict.claim.source})",
            verdict.published,
            f"{verdict.measured}: {_without_seeds(verdict)}" if verdict.ours else "–",
            str(verdict.seeds or "–"),
            f"{verdict.steps:,}" if verdict.steps else "–",
            f"**{verdict.outcome}**{_short_reason(verdict)}",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _without_seeds(verdict: ClaimVerdict) -> str:
    """Return the figure that is judged without its number of seeds, which has its own column."""
    plural = "" if verdict.seeds == 1 else "s"
    return verdict.ours.replace(f", {verdict.seeds} seed{plural}", "")


def _short_reason(verdict: ClaimVerdict) -> str:
    return f": {verdict.reason}" if verdict.reason else ""


def section(result: Result) -> str:
    """Return the section of one result: its command, tables and verdicts."""
    about, manifest = result.about, result.data.manifest
    seeds = len(manifest.get("seeds", []))
    facts = f"{seeds} seeds, up to {result.longest:,} steps a training; {made_with(manifest)}."
    parts = [
        f"## {result.recipe.title}: {result.folder.name}",
        " ".join(part for part in (about["note"], facts) if part),
        f"```console\n$ {about['command']}\n```",
        summary_markdown(result.data),
        verdict_markdown(result.data),
        claims_markdown(result.verdicts),
    ]
    return "\n\n".join(part for part in parts if part)


def made_with(manifest: Mapping[str, Any]) -> str:
    """Return the torch versions and processors of the parts of a result, each pair once."""
    pairs = []
    for part in manifest["parts"]:
        pairs.append(f"torch {part['versions']['torch']}, {part['machine']['processor']}")
    return "; ".join(dict.fromkeys(pairs))


def without_results(results: Sequence[Result]) -> tuple[str, int]:
    """Return the list of claims about studies of which no result is stored, and their number."""
    judged = set()
    for result in results:
        for verdict in result.verdicts:
            judged.add((result.about["recipe"], verdict.claim.study, verdict.claim.text))
    lines, total = [], 0
    for path in sorted(RECIPES.glob("*.toml")):
        studies: dict[str, int] = {}
        for claim in read_recipe(path.stem).claims:
            if (path.stem, claim.study, claim.text) not in judged:
                studies[claim.study] = studies.get(claim.study, 0) + 1
        if studies:
            count = sum(studies.values())
            plural = "" if count == 1 else "s"
            names = ", ".join(f"`{study}`" for study in studies)
            lines.append(
                f"- [{path.name}](../recipes/{path.name}): {count} claim{plural} about {names}"
            )
            total += count
    if not lines:
        return "", 0
    head = ["## Claims without a stored result", "", "They are *not tested* here.", ""]
    return "\n".join([*head, *lines]), total


def verdicts_text(result: Result) -> str:
    """Return verdicts.json of a result."""
    entries = []
    for verdict in result.verdicts:
        entry: dict[str, Any] = {
            "claim": verdict.claim.text,
            "source": verdict.claim.source,
            "verdict": verdict.outcome,
            "published": verdict.published,
            "numbers": verdict.numbers,
            "reason": verdict.reason,
            "n": verdict.seeds,
            "steps": verdict.steps,
        }
        if verdict.estimate:
            entry["effect"] = _rounded(verdict.estimate.spread.mean)
            entry["interval"] = [_rounded(end) for end in verdict.estimate.interval or ()]
            entry["p"] = _rounded(verdict.estimate.p)
            entry["judged_at"] = _rounded(verdict.estimate.level)
        entries.append(entry)
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"


def _rounded(value: float | None) -> float | None:
    """Return six significant digits, which do not depend on the machine."""
    return None if value is None else float(f"{value:.6g}")


def made_files(results: Sequence[Result]) -> dict[Path, str]:
    """Return the texts of all files that this script makes of the stored results."""
    texts = {PAGE: page(results)}
    for result in results:
        texts[result.folder / "verdicts.json"] = verdicts_text(result)
    return texts


def keep(name: str, runs: Sequence[Path], command: str, note: str, *, add: bool) -> None:
    """Store the small files of runs as one result; with `add`, beside what it holds.

    Raises UsageError for runs that differ in more than their seeds or share a seed, and if their
    cells are not those of the command, as of a run that has not finished.
    """
    target = RESULTS / name
    sources = [RunFolder(run) for run in ([target, *runs] if add else runs)]
    manifest = joined_manifest([source.read_manifest() for source in sources])
    resolved = joined_recipe(sources)
    profile = manifest.get("profile") or ""
    recipe_name = manifest["name"]
    sets, studies = _values("--set", command), _values("--study", command)
    recipe = read_recipe(recipe_name, profile, sets, studies)
    differing = manifest["cells"].keys() ^ {cell.id for cell in recipe.cells}
    if differing:
        raise UsageError(
            f"the command and the runs differ in {len(differing)} cells, such as "
            f"{min(differing)}: finish the runs, or give the command of those that are named"
        )
    metrics = {side.metric for claim in recipe.claims for side in claim.sides().values()}

    rows = [row for source in sources for row in source.read_levels()]
    findings = []
    for source in sources:
        for finding in source.each_finding():
            is_network = not finding["layer"] and not finding["against"]
            if is_network and f"{finding['analysis']}.{finding['figure']}" in metrics:
                findings.append(finding)
    about = {
        "recipe": recipe_name,
        "profile": profile,
        "sets": sets,
        "studies": studies,
        "command": command,
        "note": note,
    }

    target.mkdir(parents=True, exist_ok=True)
    kept = RunFolder(target)
    kept.write_levels(rows)
    kept.write_manifest(manifest)
    if findings:
        kept.write_findings(findings)
    (target / "resolved.toml").write_text(resolved, "utf-8")
    (target / "result.toml").write_text(tomli_w.dumps(about), "utf-8")


def joined_manifest(manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the manifest of a result: what its runs share, their cells, and a part for each."""
    parts: list[dict[str, Any]] = []
    cells: dict[str, str] = {}
    for manifest in manifests:
        both = sorted(cells.keys() & manifest["cells"].keys())
        if both:
            raise UsageError(f"two runs have the cell {both[0]}: name runs of different seeds")
        cells |= manifest["cells"]
        own = {key: manifest[key] for key in KEPT_OF_PART if key in manifest}
        parts.extend(manifest.get("parts", [own]))
    shared = {key: manifests[0][key] for key in KEPT_OF_MANIFEST}
    seeds = [seed for part in parts for seed in part["seeds"]]
    return {**shared, "seeds": seeds, "parts": parts, "cells": cells}


def joined_recipe(runs: Sequence[RunFolder]) -> str:
    """Return the resolved recipe that runs share, with the seeds of all and the last one's claims.

    Raises UsageError if they differ in more. Claims may: today's are judged, whatever a run had.
    """
    recipes = []
    for run in runs:
        recipes.append(tomllib.loads((run.path / "resolved.toml").read_text("utf-8")))
    seeds = []
    claims: list[Any] = []
    for recipe in recipes:
        seeds.append([study.pop("seeds") for study in recipe["study"]])
        claims = recipe.pop("claim", [])
    for run, recipe in zip(runs, recipes, strict=True):
        if recipe != recipes[0]:
            raise UsageError(
                f"{run.path} and {runs[0].path}: their recipes differ in more than their seeds"
            )
    for study, *parts in zip(recipes[0]["study"], *seeds, strict=True):
        study["seeds"] = list(chain.from_iterable(parts))
    return tomli_w.dumps(recipes[0] | ({"claim": claims} if claims else {}))


def _values(option: str, command: str) -> list[str]:
    """Return the values of an option in a command line."""
    import shlex

    words = shlex.split(command)
    return [after for word, after in pairwise(words) if word == option]


def main() -> int:
    """Run the script; return 1 if `--check` finds a file that would change."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a change")
    commands = parser.add_subparsers(dest="action")
    keeping = commands.add_parser("keep", help="store the small files of runs as one result")
    keeping.add_argument("name")
    keeping.add_argument("runs", type=Path, nargs="+")
    keeping.add_argument("--command", required=True, help="the command that makes the whole result")
    keeping.add_argument("--note", default="", help="a remark for the page")
    keeping.add_argument("--add", action="store_true", help="add to the result that is there")
    options = parser.parse_args()
    if options.action == "keep":
        try:
            keep(options.name, options.runs, options.command, options.note, add=options.add)
        except UsageError as error:
            parser.error(str(error))

    changed = []
    for path, text in made_files(stored_results()).items():
        if not path.is_file() or path.read_text("utf-8") != text:
            changed.append(path)
            if not options.check:
                path.write_text(text, "utf-8")
    for path in changed:
        print(f"{'would change' if options.check else 'wrote'} {path.relative_to(ROOT)}")
    return int(options.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())

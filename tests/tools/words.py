"""List the old names and the habit words that are left in the repository.

    python tests/tools/words.py [--all] [FILE ...]

Every match needs an entry in words.toml with a reason, or the exit status is 1. So is it where an
entry of words.toml matches nothing any more. --all also prints the explained matches.
"""

import argparse
import ast
import fnmatch
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
ALLOWED = Path(__file__).with_name("words.toml")
PLACES = ("curricula", "plugins", "docs", "examples", "tests", "README.md", "CONTRIBUTING.md",
          "CHANGELOG.md", "Makefile", "pyproject.toml", ".ci")  # fmt: skip
SUFFIXES = {".py", ".pyi", ".md", ".toml", ".template", ".html", ".rst", ""}

# What a name is called now, by a pattern of what it was called.
NAMES: dict[str, str] = {
    r"\bnatural\b": "transformed",
    r"kind.{0,12}[\"']colou?r[\"']": "kind intensity",
    r"\bstanding\b": "active",
    r"\b_?un?anchored\b|\banchor(s|ed)?\b": "with_reference, reference",
    r"\bModelVictim\(.*\bthreat=": "early_stop=True",
    r"\b\w*[Rr]estingModel\b|\b_?resting\b": "FrozenModel, frozen",
    r"\b[Ff]aithful\b(?!\.toml)": "outputs_match, equivalence",
    r"\bbadness\b": "adversarial_rank",
    r"\bworse_weights\b": "adversarial_weight_perturbation",
    r"\b[Ss]ituation\b": "Context",
    r"\bBound\b|\bBoundExpression\b": "Node",
    r"\bexpressions?[./]tree\b|\btree\.py\b": "nodes",
    r"\bcurricula[./]construct\b|\bimport construct\b|\bconstruct\.\w": "factories",
    r"\bUNHEEDED\b|\bLaw\b|\banswering\b|\bstreams\.(numbered|words)\b": "fold_in, bits",
    r"\bGuarantee\b|\.guarantee\b|\bguarantee\s*[:=]|[\"']guarantee[\"']": "NormBound, norm_bound",
    r"\bListening\w*\b|\blistening\b": "AdaptiveSchedule, adaptive",
    r"\bStairs\b|\bBackwards\b": "PiecewiseConstant, ReversedRamp",
    r"\bobjectives\.Pair\b": "PairedLoss",
    r"\bWatcher\b|\bwatcher\b|\bNobody\b": "Callback, NoCallback",
    r"\bMeasured\b": "ThreatResult",
    r"\bprofile_run\b|\bprofile_model\b|\baudit_run\b|\baudit_model\b": "robustness_profile, audit",
    r"\bclass Profile\b|\bevaluation[./]profil(e|ing)\b": "RobustnessProfile, robustness_profile",
    r"--part\b|\bPart\b|[\"']part[\"']|^part = ": "split",
    r"\bAnySplit\b|\bReadSplit\b|\.held\(": "SplitLike, LazySplit, load",
    r"\b(data|dataset|data_set|self)\.levels\b|\blevels=": "max_value",
    r"\b(data|dataset|data_set)\.(attack|training)\b": "attack_defaults, training_defaults",
    r"\bWork\b": "EvaluationProgress, ProgressBar",
    r"\bgathering\b": "sweeps.collect",
    r"\bevaluation[./]frontier\b": "evaluation.pareto",
    r"--twin\b|\.twin\b|/twin\b|\btwin=|[\"']twin[\"']": "baseline; frozen copy",
    r"\btraining[./]compiling\b|\bcompilation\.py\b|\bcurricula\.compilation\b": "runtime.compile",
    r"\bPasses\b(?! (over|of|per|through))|\.watching\b|\.taken\b": "PassCounter, attach, pop",
    r"\bwrite_whole\b|\boutput\.py\b|\bcurricula\.output\b": "write_atomic, files",
    r"\bfull_float32\b|\barithmetic\.py\b|\bcurricula\.arithmetic\b": "no_tf32, precision",
    r"\ballocation\.py\b|\bcurricula\.allocation\b": "malloc",
    r"\blayout\.py\b|\bcurricula\.layout\b|\blayout\.last\b": "memory_format, as_channels_last",
    r"\bImageConv2d\b|\bis_quick\b|\bis_untouched\b|\bimage_layer\b": "FastInputGradConv2d, ...",
    r"\bDerived\b|\brenew\b|\bcopy_around\b": "FoldedLayer, refresh, copy_with_tensors",
    r"\bplaced\b|\bfind_device\b": "to_device, resolve_device",
    r"\bRivals?\b|\brivals\b|\bOneByOne\b|\bAlone\b": "BaselineLoop, PILDataset, IsolatedPasses",
    r"\bclass Sample\b|\bimport .*\bSample\b|\bSample\(": "Samples",
    r"\bcurricula[./]speed\b": "benchmark",
    r"\bBench\b|\btesting[./]bench\b": "Fixture, fixtures",
    r"\b_take\b|\b_alone\b|\b_quiet\b|\b_less_the_password\b": "_claim, _exclusive, ...",
    r"\bmended\b|\bhosting\b|\bframing\b": "patched, adapters, padding",
    r"\bDescribed\b|\bPlaced\b|\bsettled_width\b|\bin_turn\b": "AttackSpec, DeviceTagged, ...",
    r"\bdress\b|\b_entitle\b|\bgallery\b": "style_axes, _add_title, example_images",
    r"\bSTIR\b|\bLARGEST\b|\bSMALLEST\b|\bIMAGES\b|\bFEW\b|\bMOST\b": "say of what",
    r"--out\b(?!put)|--json\b|--learning-rate\b": "--output, --format, --lr",
}

# Habit words, in prose and inside names alike: underscores count as spaces.
HABITS: dict[str, str] = {
    r"\bso many\b": "N, number of",
    r"\bof (its|their|his) own\b": "its own",
    r"\banew\b": "again",
    r"\bthat (are|is) no\b|\bno numbers?\b(?! of)": "NaN, not finite",
    r"\bfallen\b|\bfells?\b": "fooled, fools",
    r"\bstands\b(?! for)": "is still correct",
    r"\bstirr?(s|ed)?\b|\bawake\b|\bwakes?\b": "perturbed, active",
    r"\bheed(s|ed)?\b": "uses",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bat rest\b": "in eval mode",
    r"\blistens?\b": "adapts",
    r"\bwhoever\b|\bstrangers?\b|\bnobody\b": "third-party code, the caller",
    r"\bless (its|their|the)\b": "without, except",
    r"\bbut for\b": "except",
    r"\banother (\w+ ){1,2}than\b": "a different X",
    r"\basked for\b|\basks for\b": "requested",
    r"\bcustoms\b|\bcustomary\b": "conventions",
    r"\bpresent (radius|eps|ones?|weights|strengths?|values?)\b": "current",
    r"\btold\b": "of schedules: given; of labels: distinguished",
    r"\bthat are none\b": "not",
}

# First words of docstrings and of help texts that have no verb.
VERBLESS = ("Of", "Those", "Whether", "What", "Where", "How", "Who", "Whose", "That")


class Match(NamedTuple):
    """One match: its file, line number, text, and what to write instead."""

    file: str
    line: int
    found: str
    instead: str
    text: str


def matches_in(file: str, source: str) -> Iterator[Match]:
    """Yield each match of a file: names, habit words, and docstrings without a verb."""
    for number, line in enumerate(source.splitlines(), 1):
        for pattern, instead in NAMES.items():
            for match in re.finditer(pattern, line):
                yield Match(file, number, match[0], instead, line.strip())
        spaced = line.replace("_", " ")
        for pattern, instead in HABITS.items():
            for match in re.finditer(pattern, spaced, re.IGNORECASE):
                yield Match(file, number, match[0], instead, line.strip())
    if file.endswith((".py", ".pyi")):
        yield from _verbless(file, source)


def _verbless(file: str, source: str) -> Iterator[Match]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str() as text)):
                pass
            case ast.keyword(arg="help", value=ast.Constant(value=str() as text)):
                pass
            case _:
                continue
        first = text.split(maxsplit=1)[0].rstrip(",:;") if text.split() else ""
        if first in VERBLESS:
            line = text.strip().splitlines()[0]
            yield Match(file, node.value.lineno, first, "a verb first: Return, Check, ...", line)


class Allowed(NamedTuple):
    """One entry of words.toml: which matches it explains, and why."""

    file: str
    found: str
    text: str
    reason: str

    def explains(self, match: Match) -> bool:
        """Return whether the entry covers a match."""
        return (
            fnmatch.fnmatch(match.file, self.file)
            and re.fullmatch(self.found, match.found, re.IGNORECASE) is not None
            and re.search(self.text, match.text) is not None
        )


def read_allowed() -> list[Allowed]:
    """Return the entries of words.toml."""
    entries = tomllib.loads(ALLOWED.read_text(encoding="utf-8"))["allowed"]
    return [
        Allowed(
            each.get("file", "*"), each.get("found", ".*"), each.get("text", ""), each["reason"]
        )
        for each in entries
    ]


def tracked() -> list[str]:
    """Return the repository's text files in PLACES, except those that shared code generates."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *PLACES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [file for file in done.stdout.splitlines() if Path(file).suffix in SUFFIXES]


def main() -> int:
    """Print the unexplained matches and return the exit status."""
    parser = argparse.ArgumentParser(description="List old names and habit words that are left.")
    parser.add_argument(
        "files", nargs="*", help="Files to read, of the repository.  [default: all]"
    )
    parser.add_argument("--all", action="store_true", help="Print the explained matches too.")
    parser.add_argument("--count", action="store_true", help="Print the number of each word alone.")
    arguments = parser.parse_args()
    allowed = read_allowed()
    used: Counter[Allowed] = Counter()
    left: list[Match] = []
    for file in arguments.files or tracked():
        path = ROOT / file
        if not path.exists():
            continue
        for match in matches_in(file, path.read_text(encoding="utf-8")):
            entry = next((entry for entry in allowed if entry.explains(match)), None)
            if entry is None:
                left.append(match)
            else:
                used[entry] += 1
                if arguments.all:
                    print(f"{match.file}:{match.line}: {match.found!r}: allowed: {entry.reason}")
    if arguments.count:
        for found, number in Counter(match.found.lower() for match in left).most_common():
            print(f"{number:5} {found}")
    else:
        for match in left:
            print(
                f"{match.file}:{match.line}: {match.found!r}: {match.instead}: {match.text[:120]}"
            )
    stale = [] if arguments.files else [entry for entry in allowed if not used[entry]]
    for entry in stale:
        print(f"words.toml: explains nothing any more: {entry}")
    print(f"{len(left)} unexplained, {used.total()} explained", file=sys.stderr)
    return 1 if left or stale else 0


if __name__ == "__main__":
    raise SystemExit(main())

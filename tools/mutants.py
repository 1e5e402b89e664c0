"""Do the tests see a mistake? Put the listed mistakes into the taught code, one at a time.

A mutation is a small change of one function, as a wrong sign. `tests/mutants.toml` lists them:
under the name of a module of `course_utils` and of a function in it, the old text, the new text
and, where no test can see the change, the reason why it does not matter. Each runs in a process of
its own, in which the changed source takes the place of the module; no file is written. It is
killed if a test fails, or does not end. The tests are those of behaviour: none that compares code
with the notebook that it comes from, or with a stored hash.
"""

import argparse
import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "tests" / "mutants.toml"
LIMIT = 120  # seconds for the tests of one mutation; without it, an endless loop would never end

# What the tests import from outside the course: loaded once, then every process has it.
HEAVY = (
    "hypothesis", "joblib", "matplotlib.pyplot", "numpy", "opacus.accountants", "pandas", "pytest",
    "scipy.optimize", "scipy.stats", "seaborn", "sklearn.cluster", "sklearn.decomposition",
    "sklearn.metrics", "sklearn.neighbors", "torch", "torch._dynamo", "torch.func", "torchvision",
)  # fmt: skip

# Test files of a module beside those with its own name, without "tests/test_" and ".py".
TESTS = {
    "attacks.hostile_file": ("beyond_images",),
    "attacks.lapsed_domains": ("beyond_images",),
    "attacks.retrieval_poisoning": ("beyond_images",),
    "attacks.subliminal": ("beyond_images",),
    "attacks.trigger_words": ("beyond_images",),
    "defenses.hashed_list": ("beyond_images",),
    "defenses.retrieval": ("beyond_images",),
    "defenses.safe_loading": ("beyond_images",),
    "attacks.adaptive": ("adaptive_attacks",),
    "attacks.crafting": ("feature_collision",),
    "attacks.feature_plane": ("feature_collision",),
    "attacks.first_backdoor": ("backdoors",),
    "attacks.hidden_trigger": ("hidden_triggers",),
    "attacks.label_consistent": ("backdoors",),
    "attacks.last_votes": ("certificates",),
    "attacks.patch_backdoors": ("backdoors",),
    "attacks.pgd": ("backdoors", "adversarial_training"),
    "attacks.slab": ("slab_attack",),
    "attacks.sleeper_agent": ("hidden_triggers",),
    "attacks.triggers": ("backdoors",),
    "defenses.noise_training": ("adversarial_training",),
    "defenses.per_example": ("gradient_anatomy", "gradient_shaping"),
    "defenses.pgd_training": ("adversarial_training", "backdoors"),
    "defenses.repair": ("repair",),
    "defenses.sanitizers": ("slab_attack",),
    "defenses.trade_off": ("adversarial_training",),
}
# Tests that train for many seconds to show what the others show without.
SLOW = (
    "tests/test_adversarial_poisoning.py::test_it_protects_where_noise_of_its_size_does_not",
    "tests/test_filters.py::test_the_looks_of_a_case_are_honest",
    "tests/test_forensics.py::test_dropping_exactly_the_poisons_has_recall_one",
    "tests/test_gradient_matching.py::test_the_attack_beats_its_control",
    "tests/test_gradient_shaping.py::test_a_shaped_victim_learns_in_every_scenario",
    "tests/test_repair.py::test_a_trial_has_one_row_for_each_repair_and_its_controls",
    "tests/test_repair.py::test_the_convolutional_network_can_be_repaired",
    "tests/test_repair.py::test_the_price_is_measured_on_a_victim_without_poison",
    "tests/test_trials.py::test_one_job_and_two_jobs_give_identical_frames",
)

WHOLE = "module"  # the name for what stands outside all functions
KILLED, SURVIVED, ENDLESS = "killed", "survived", "timed out"


@dataclass(frozen=True)
class Mutation:
    """A change of one function: `old` becomes `new`. harmless: why no test can see it, or ""."""

    module: str
    function: str
    old: str
    new: str
    harmless: str = ""

    def __str__(self) -> str:
        return f"{self.module}.{self.function}: {self.old!r} -> {self.new!r}"


def path_of(module: str) -> Path:
    """The file of a module of course_utils, as in "attacks.pgd"."""
    return ROOT / "course_utils" / f"{module.replace('.', '/')}.py"


def read_list(path: Path = LIST) -> list[Mutation]:
    """All mutations of a list, module by module."""
    modules = tomllib.loads(path.read_text())
    return [
        Mutation(module, function, *texts)
        for module, functions in modules.items()
        for function, changes in functions.items()
        for texts in changes
    ]


def extent(source: str, function: str) -> tuple[int, int]:
    """Where a function, or "Class.method", begins and ends in the source, decorators included."""
    lines = source.splitlines(keepends=True)
    if function == WHOLE:
        return 0, len(source)
    body, found = ast.parse(source).body, None
    for name in function.split("."):
        found = next((node for node in body if getattr(node, "name", None) == name), None)
        if found is None:
            raise ValueError(f"There is no {function}.")
        body = found.body
    first = min([found.lineno, *(item.lineno for item in found.decorator_list)])
    before = sum(map(len, lines[: first - 1]))
    return before, before + sum(map(len, lines[first - 1 : found.end_lineno]))


def mutate(source: str, mutation: Mutation) -> str:
    """The source with the mutation.

    Raises ValueError if the old text does not stand exactly once in the function.
    """
    begin, end = extent(source, mutation.function)
    part = source[begin:end]
    if part.count(mutation.old) != 1:
        raise ValueError(f"{mutation}: the old text stands there {part.count(mutation.old)} times.")
    changed = source[:begin] + part.replace(mutation.old, mutation.new) + source[end:]
    ast.parse(changed)
    return changed


class Changed(importlib.machinery.SourceFileLoader):
    """Loads a module from the changed source, and its cache from nowhere."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str):
        return compile(self.source, self.path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the changed source where the module is asked for."""

    def __init__(self, module: str, source: str) -> None:
        self.name, self.path, self.source = f"course_utils.{module}", path_of(module), source

    def find_spec(self, fullname: str, path=None, target=None):
        if fullname != self.name:
            return None
        loader = Changed(fullname, str(self.path), self.source)
        return importlib.util.spec_from_file_location(fullname, self.path, loader=loader)


def run_tests(files: Sequence[str], module: str | None = None, source: str = "") -> str:
    """Run test files with this source for the module, in a process of its own, until one fails."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()  # so that the workers of the tests can be ended with them
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            forget()
            if module is not None:
                sys.meta_path.insert(0, Finder(module, source))
            os.chdir(ROOT)
            code = importlib.import_module("pytest").main(
                [
                    *files,
                    *(f"--deselect={name}" for name in SLOW),
                    *["-x", "-q", "--tb=no", "-p", "no:cacheprovider"],
                ]
            )
        finally:
            os._exit(int(code))
    return wait(child)


def forget() -> None:
    """Unload the course and its tests, where the caller had loaded them as they are."""
    own = tuple(str(ROOT / folder) for folder in ("course_utils", "tests"))
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(own):
            del sys.modules[name]


def wait(child: int) -> str:
    """What became of the tests in this process, which is ended where they do not end."""
    begin = time.monotonic()
    try:
        while time.monotonic() - begin < LIMIT:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return KILLED if status else SURVIVED
            time.sleep(0.02)
    except BaseException:
        end(child)
        raise
    end(child)
    return ENDLESS


def end(child: int) -> None:
    """End a process and those that it started."""
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)


def tests_of(module: str) -> list[str]:
    """The test files that concern a module, the fast ones first."""
    own = module.split(".")[-1]
    files = [f"tests/reference/test_{own}.py"]
    files += [f"tests/test_{name}.py" for name in (own, *TESTS.get(module, ()))]
    return [name for name in files if (ROOT / name).is_file()]


def prepare() -> None:
    """Load what is slow to load, but nothing of the course."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.path.insert(0, str(ROOT))
    for name in HEAVY:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)


def check_tests(mutations: Sequence[Mutation]) -> None:
    """Stop if a test fails without a mutation: then all of them would seem to be killed."""
    modules = dict.fromkeys(mutation.module for mutation in mutations)
    files = dict.fromkeys(name for module in modules for name in tests_of(module))
    for name in tqdm(files, desc="tests without a mutation"):
        if (found := run_tests([name])) != SURVIVED:
            raise SystemExit(f"{name} {found} without a mutation: mend it first.")


def chosen(mutations: Sequence[Mutation], module: str, only: str) -> list[Mutation]:
    """The mutations of the modules and functions whose names hold these texts."""
    picked = [m for m in mutations if module in m.module and only in m.function]
    if not picked:
        raise SystemExit(
            f"tests/mutants.toml lists no mutation of a module with {module!r} in its name, in a "
            f"function with {only!r}: list some, in the way of those that stand there."
        )
    return picked


def report(results: Sequence[tuple[Mutation, str]]) -> list[str]:
    """A table by module, and the mutations whose fate is not what the list says."""
    lines, wrong = (
        [f"{'module':34}{'mutations':>10}{'killed':>8}{'harmless':>10}{'seen by no test':>17}"],
        [],
    )
    table: dict[str, Counter] = {}
    for mutation, found in results:
        counts = table.setdefault(mutation.module, Counter())
        counts["all"] += 1
        if found == SURVIVED:
            counts["harmless" if mutation.harmless else "unseen"] += 1
        else:
            counts["killed"] += 1
        if (found == SURVIVED) != bool(mutation.harmless):
            wrong.append(
                f"{found}{', though listed as harmless' * bool(mutation.harmless)}: {mutation}"
            )
    total = sum(table.values(), Counter())
    for name, counts in [*table.items(), ("all", total)]:
        numbers = (counts[key] for key in ("all", "killed", "harmless", "unseen"))
        lines.append("{:34}{:>10}{:>8}{:>10}{:>17}".format(name, *numbers))
    return lines + wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the list, or a part of it. Returns 1 if a mutation has not the fate that it should."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--module", default="", help="only modules with this in their name")
    parser.add_argument("--only", default="", help="only functions with this in their name")
    options = parser.parse_args(arguments)
    mutations = chosen(read_list(), options.module, options.only)
    begin, results = time.monotonic(), []
    prepare()
    check_tests(mutations)
    bar = tqdm(mutations, desc="mutations")
    try:
        for mutation in bar:
            source = mutate(path_of(mutation.module).read_text(), mutation)
            found = run_tests(tests_of(mutation.module), mutation.module, source)
            results.append((mutation, found))
            if found != KILLED:
                bar.write(f"{found}: {mutation}")
    except KeyboardInterrupt:
        bar.write(f"Interrupted after {len(results)} of {len(mutations)} mutations.")
    lines = report(results)
    print("\n".join(lines), f"\n{time.monotonic() - begin:.0f} seconds", sep="")
    if unexpected := len(lines) > len({m.module for m, _ in results}) + 2:
        print(
            "A mutation that survived needs a test that fails with it, or in tests/mutants.toml a "
            "third text: why no test can see it. One that was killed needs no such text."
        )
    return int(unexpected)


if __name__ == "__main__":
    raise SystemExit(main())

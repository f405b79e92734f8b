"""All tasks of this repository as nox sessions; CI runs only these.

    nox -s tests                                  every package's tests, each against built wheels
    nox -s "tests(iqn)" -- -k munchausen          one package; what follows -- goes to pytest
    nox -s train -- configs/iqn/cartpole.yaml     install the trainer and run one experiment
    nox -l                                        all sessions

A package is a folder of ``packages/``; its ``pyproject.toml`` declares the siblings it requires, so a new package needs
no change here. Environments are virtualenvs filled by pip, so the machine's pip settings apply. They are reused, but
the built wheels in them are replaced on every run.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

import nox
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True
nox.options.sessions = ["tests", "lint", "typecheck", "imports", "docs", "install", "examples"]

ROOT = Path(__file__).parent
DIST = ROOT / "dist"
CONSTRAINTS = ROOT / "constraints.txt"
PREFIX = "tesserl-"
PLUGINS = "tesserl.algorithms"  # entry points of packages that declare an algorithm
PROJECTS = {path.parent.name: nox.project.load_toml(path) for path in sorted(ROOT.glob("packages/*/pyproject.toml"))}
SETTINGS = nox.project.load_toml(ROOT / "pyproject.toml")
EXAMPLES = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("examples/*/src"))]
TOOLS = SETTINGS["dependency-groups"]
EACH_PACKAGE = nox.parametrize("package", [nox.param(name, id=name) for name in PROJECTS])
TEST_ENVIRONMENT = {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "RL_WARNINGS": "False"}
# Kernels of ATen, oneDNN and MKL on a processor with AVX2 but without AVX-512, and on one with neither.
KERNELS = {
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "SSE4.1": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
}
# A change of one of these may change the result of every package.
SHARED_PATHS = (".ci/", ".github/", "configs/", "constraints.txt", "noxfile.py", "pyproject.toml")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LEARNING = (
    "learning",
    "lunarlander",
    "preferences",
    "minatar_peers",
    "rejax_peers",
    "ppo_peers",
    "curves",
)  # learning results (hours, or no speed to measure); these peers need separate environments
PROCESSES = ("--numprocesses", "auto", "--dist", "loadfile")  # pytest: one process per core
NO_TESTS = 5  # pytest's exit status if all tests are deselected
CTRL_C_SECONDS = 120.0  # time for a run to write its checkpoint; nox's default kills it after 0.3 s


def ours(requirements: Iterable[str]) -> set[str]:
    """Return the packages of this repository among requirements."""
    required = (Requirement(line).name for line in requirements)
    return {name.removeprefix(PREFIX) for name in required if name.startswith(PREFIX)}


def siblings(package: str, extras: Iterable[str] = ()) -> set[str]:
    """Return the packages of this repository that ``package`` requires directly, with some of its extras."""
    project = PROJECTS[package]["project"]
    optional = project.get("optional-dependencies", {})
    return ours([*project["dependencies"], *(line for extra in extras for line in optional[extra])])


def closure(package: str) -> list[str]:
    """Return ``package`` and every sibling it needs, directly or indirectly, sorted."""
    found = {package}
    for name in siblings(package):
        found.update(closure(name))
    return sorted(found)


def dependents(packages: Iterable[str]) -> list[str]:
    """Return ``packages`` and every package that needs one of them, sorted."""
    changed = set(packages)
    return [name for name in PROJECTS if changed.intersection(closure(name)) | changed & ours(test_requirements(name))]


def import_name(package: str) -> str:
    """Return the name of the module that the package installs."""
    return f"tesserl_{package.replace('-', '_')}"


def forbidden_modules(package: str) -> list[str]:
    """Return the modules that the import contracts of pyproject.toml forbid in the package."""
    contracts = SETTINGS["tool"]["importlinter"]["contracts"]
    own = [contract for contract in contracts if import_name(package) in contract.get("source_modules", [])]
    return sorted({module for contract in own for module in contract["forbidden_modules"]})


def version(package: str) -> str:
    """Return the version from the package's ``__about__.py``, the only place that states it."""
    about = ROOT / "packages" / package / "src" / import_name(package) / "__about__.py"
    found = re.search(r'^__version__ = "(.+)"$', about.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise ValueError(f'{about} must have a line __version__ = "...", got none')
    return found.group(1)


def wheel(package: str) -> Path:
    """Return the path of the wheel of ``package`` that ``nox -s build`` writes."""
    return DIST / f"{import_name(package)}-{version(package)}-py3-none-any.whl"


def test_requirements(package: str) -> list[str]:
    """Return the package's dependency group ``test``."""
    return list(nox.project.dependency_groups(PROJECTS[package], "test"))


def pip_install(session: nox.Session, *arguments: str, constraints: Path = CONSTRAINTS) -> None:
    """Install under ``constraints``.

    Modules are compiled on first import instead: compiling all of torch takes 15 s per environment.
    """
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    session.install("--no-compile", "--constraint", str(constraints), *arguments)


def uninstall_others(session: nox.Session, *requirements: str) -> None:
    """Uninstall packages of earlier runs and sessions that ``requirements`` do not need, directly or indirectly."""
    place = next(Path(session.virtualenv.location).glob("lib/python*/site-packages"))
    installed = {canonicalize_name(each.name): each for each in distributions(path=[str(place)])}
    needed: set[tuple[str, str]] = set()  # (distribution, extra that needs it or "")
    queue = [Requirement(line) for line in (*requirements, "pip")]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {extra for found, extra in needed if found == name}:
            needed.add((name, extra))
            if name in installed:
                lines = map(Requirement, installed[name].requires or [])
                queue += [line for line in lines if line.marker is None or line.marker.evaluate({"extra": extra})]
    others = sorted(set(installed) - {name for name, _ in needed})
    if others:
        session.run("python", "-m", "pip", "uninstall", "--quiet", "--yes", *others)


def install_wheels(
    session: nox.Session, package: str, *requirements: str, extras: str = "", constraints: Path = CONSTRAINTS
) -> None:
    """Install the built wheels of ``package`` and its siblings, with ``requirements``; never anything editable.

    Packages of this repository among the requirements, and those of the extras, are built wheels too.

    The second step replaces wheels of an earlier run, which have the same version.
    """
    chosen = {package, *siblings(package, Requirement(package + extras).extras), *ours(requirements)}
    wheels = [str(wheel(name)) for name in sorted({each for name in chosen for each in closure(name)} - {package})]
    own = str(wheel(package))
    pip_install(session, *wheels, own + extras, *requirements, constraints=constraints)
    session.install("--no-compile", "--quiet", "--no-deps", "--force-reinstall", *wheels, own)
    uninstall_others(session, PREFIX + package + extras, *requirements)


def install_alone(session: nox.Session, package: str) -> None:
    """Install one package by the command of its README into a new environment, and run the README's example there."""
    readme = f"packages/{package}/README.md"
    if not re.search(
        f'pip install --find-links dist "?{PREFIX}{package}\\b', (ROOT / readme).read_text(encoding="utf-8")
    ):
        session.error(f"{readme} must show: pip install --find-links dist {PREFIX}{package}")
    pip_install(session, "--find-links", str(DIST), PREFIX + package)
    uninstall_others(session, PREFIX + package)
    ours = [PREFIX + name for name in closure(package)]
    without = forbidden_modules(package)
    session.run("python", ".ci/check_install.py", import_name(package), "--ours", *ours, "--without", *without)
    session.run("python", ".ci/run_examples.py", readme, env=TEST_ENVIRONMENT)


def hand_on(session: nox.Session, package: str) -> None:
    """On CI, let the tests of all packages that need torch use this environment: torch is unpacked and compiled once.

    Each session uninstalls what it does not need. A failed session keeps its environment for inspection.
    """
    with_torch = [name for name in PROJECTS if "torch" not in forbidden_modules(name)]
    if "CI" in os.environ and package in with_torch:
        here = Path(session.virtualenv.location)
        for other in (here.with_name(f"tests-{name}") for name in with_torch):
            if not other.exists():
                other.symlink_to(here, target_is_directory=True)


def run_marked(session: nox.Session, marker: str, extras: str = "") -> None:
    """Run the tests of all packages that are marked ``marker``, in one environment with all wheels.

    Args:
        session: session of nox.
        marker: marker of pytest.
        extras: extras of the trainer, in brackets.
    """
    needed = sorted({line for name in PROJECTS for line in test_requirements(name)})
    install_wheels(session, "trainer", *needed, extras=extras)
    session.run("pytest", "-m", marker, "packages", *session.posargs, env=TEST_ENVIRONMENT)


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel of every package into dist/, in place of older ones."""
    pip_install(session, *TOOLS["build"])
    staging = Path(session.create_tmp()) / "wheels"
    shutil.rmtree(staging, ignore_errors=True)
    sources = [str(ROOT / "packages" / name) for name in PROJECTS]
    session.run("pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(staging), *sources)
    DIST.mkdir(exist_ok=True)
    for stale in set(DIST.glob("tesserl_*.whl")) - {wheel(name) for name in PROJECTS}:
        stale.unlink()
    for built in staging.glob("*.whl"):
        built.replace(DIST / built.name)


@nox.session(requires=["build"])
@EACH_PACKAGE
def tests(session: nox.Session, package: str) -> None:
    """Test one package against built wheels of itself and the siblings it needs, in one process per core.

    On CI, where every environment is new, it does what the session ``install`` does first: a second environment with
    another torch would take longer than most tests.
    """
    if "CI" in os.environ:
        install_alone(session, package)
    install_wheels(session, package, *test_requirements(package), *TOOLS["test"])
    session.run("pytest", *PROCESSES, f"packages/{package}/tests", *session.posargs, env=TEST_ENVIRONMENT)
    hand_on(session, package)


@nox.session(requires=["build"], default=False)
@EACH_PACKAGE
def portability(session: nox.Session, package: str) -> None:
    """Test one package with the kernels of two older processors, on one thread and on two.

    Tests marked ``kernel_free`` run in the first setting only.
    """
    install_wheels(session, package, *test_requirements(package), *TOOLS["test"])
    verdicts: dict[str, str] = {}
    selected = "not learn and not ray and not soak"
    for (kernels, variables), threads in itertools.product(KERNELS.items(), (1, 2)):
        # Threads that wait must sleep: spinning ones multiply the time on a machine with other work. What torch has
        # compiled for one processor must not be found by the next, which computes something else with it.
        environment = {
            **TEST_ENVIRONMENT, **variables, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive",
            "TORCHINDUCTOR_CACHE_DIR": str(Path(session.create_tmp()) / kernels),
        }  # fmt: skip
        command = ["pytest", *PROCESSES, "-m", selected, f"packages/{package}/tests", *session.posargs]
        try:
            session.run(*command, env=environment, success_codes=[0] if not verdicts else [0, NO_TESTS])
            verdict = "passed"
        except nox.command.CommandFailed:
            verdict = "FAILED"
        verdicts[f"{kernels}, OMP_NUM_THREADS={threads}"] = verdict
        selected = "not learn and not ray and not soak and not kernel_free"
    for setting, verdict in verdicts.items():
        session.log(f"{package}: {setting}: {verdict}")
    if "FAILED" in verdicts.values():
        session.error(f"the tests of {package} must pass in every setting; read the output of those that failed")


@nox.session(requires=["build"])
@EACH_PACKAGE
def minimums(session: nox.Session, package: str) -> None:
    """Test one package against the oldest releases that its own requirements admit."""
    session.install(*TOOLS["minimums"])
    oldest = Path(session.create_tmp()) / "oldest.txt"
    source = f"packages/{package}/pyproject.toml"
    session.run(
        "uv", "pip", "compile", "--quiet", "--resolution=lowest-direct", "--find-links", str(DIST), source,
        "--group", f"{source}:test", "--no-annotate", "--no-header", *no_emit(), "--output-file", str(oldest),
    )  # fmt: skip
    session.log("oldest admitted:\n" + oldest.read_text(encoding="utf-8"))
    install_wheels(session, package, *test_requirements(package), constraints=oldest)
    # Warnings are no errors here: old releases may call functions that their newer requirements deprecate.
    session.run("pytest", "-W", "default", f"packages/{package}/tests", *session.posargs, env=TEST_ENVIRONMENT)


@nox.session(requires=["build"], reuse_venv=False)
@EACH_PACKAGE
def install(session: nox.Session, package: str) -> None:
    """Install one package from dist/ into an empty environment, check what it brings, run its README's example."""
    install_alone(session, package)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, changelogs and every YAML of configs/."""
    pip_install(session, *TOOLS["lint"], *TOOLS["build"], *PROJECTS["configs"]["project"]["dependencies"])
    # only their declarations are imported, without torch
    plugins = [
        f"./packages/{name}" for name in PROJECTS if PLUGINS in PROJECTS[name]["project"].get("entry-points", {})
    ]
    session.install("--no-compile", "--quiet", "--no-deps", "--no-build-isolation", "--force-reinstall", *plugins)
    session.run("ruff", "check", "--no-cache", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("python", ".ci/check_prose.py", "packages", ".ci", "benchmarks", "examples")
    for name in PROJECTS:
        changelog = ROOT / "packages" / name / "CHANGELOG.md"
        if f"\n## {version(name)} " not in changelog.read_text(encoding="utf-8"):
            session.error(f"{changelog.relative_to(ROOT)} must have a section '## {version(name)} (date)', got none")
    files = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("configs/**/*.yaml"))]
    session.run("python", ".ci/check_configs.py", *files, env={"PYTHONPATH": "packages/configs/src"})


@nox.session(requires=["build"])
def typecheck(session: nox.Session) -> None:
    """Run mypy, strict, over the sources of all packages and of the packages among the examples."""
    install_wheels(session, "trainer", *TOOLS["typecheck"])
    session.run("mypy", "noxfile.py", ".ci", *(f"packages/{name}/src" for name in PROJECTS), *EXAMPLES)


@nox.session
def imports(session: nox.Session) -> None:
    """Check who imports whom against the contracts in pyproject.toml."""
    pip_install(session, *TOOLS["imports"])
    sources = os.pathsep.join(str(ROOT / "packages" / name / "src") for name in PROJECTS)
    session.run("lint-imports", env={"PYTHONPATH": sources})


@nox.session(requires=["build"])
def docs(session: nox.Session) -> None:
    """Build the documentation, warnings being errors, run its examples, and compare its tables with the committed ones.

    Sphinx rewrites the tables: the committed ones are current if git shows no difference.
    """
    install_wheels(session, "trainer", *TOOLS["docs"], *(PREFIX + name for name in PROJECTS))
    session.run("sphinx-build", "-q", "-W", "--keep-going", "-E", "-b", "html", "docs", "docs/_build/html")
    pages = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/*.md"))]
    session.run("python", ".ci/run_examples.py", *pages, env=TEST_ENVIRONMENT)
    session.run("git", "diff", "--exit-code", "--stat", "--", "docs/reference/tables", external=True)


@nox.session(requires=["build"])
def examples(session: nox.Session) -> None:
    """Run every folder of examples/: install it if it is a package, then run its run.py in an empty directory."""
    install_wheels(session, "trainer", *TOOLS["examples"], extras="[box2d,minatar]")
    for script in sorted(ROOT.glob("examples/*/run.py")):
        if (script.parent / "pyproject.toml").exists():
            session.install(*TOOLS["build"])
            session.install("--no-compile", "--no-deps", "--no-build-isolation", str(script.parent))
        place = Path(session.create_tmp()) / script.parent.name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        with session.chdir(place):
            session.run("python", str(script), env=TEST_ENVIRONMENT)


@nox.session(requires=["build"])
def train(session: nox.Session) -> None:
    """Install the trainer with its light extras and run ``tesserl train`` with what follows --."""
    install_wheels(session, "trainer", extras="[box2d,minatar,pqn]")
    session.run("tesserl", "train", *session.posargs, interrupt_timeout=CTRL_C_SECONDS)


@nox.session(requires=["build"])
def learn(session: nox.Session) -> None:
    """Train to the learning bars: the tests marked ``learn``, of all packages."""
    run_marked(session, "learn")


@nox.session(requires=["build"], default=False)
def ray(session: nox.Session) -> None:
    """Run the trainer's tests marked ``ray``, with the extra, on a local cluster; ``soak`` has the long ones."""
    install_wheels(session, "trainer", *test_requirements("trainer"), extras="[ray]")
    session.run(
        "pytest", "-m", "ray and not soak", "packages/trainer/tests", *session.posargs, env=TEST_ENVIRONMENT
    )  # fmt: skip


@nox.session(requires=["build"])
def soak(session: nox.Session) -> None:
    """Run the tests marked ``soak``, of all packages: kills, hung workers, lost nodes of a cluster, memory."""
    run_marked(session, "soak", extras="[ray]")


@nox.session(requires=["build"], default=False)
def browser(session: nox.Session) -> None:
    """Open the labelling page and a report in a headless Chromium, which is downloaded if none is installed."""
    trainer = PROJECTS["trainer"]
    install_wheels(session, "trainer", *nox.project.dependency_groups(trainer, "browser"), extras="[box2d,video]")
    environment = dict(TEST_ENVIRONMENT)
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is not None:
        environment["BROWSER_EXECUTABLE"] = found
    else:
        session.run("playwright", "install", "chromium", success_codes=range(256))
    session.run("pytest", "tests/browser", *session.posargs, env=environment)


@nox.session(requires=["build"])
def bench(session: nox.Session) -> None:
    """Measure: all benchmarks of speed, or the script of benchmarks/ that is named after --, with its options."""
    install_wheels(session, "trainer", *TOOLS["bench"], extras="[atari,box2d,minatar,pqn]")
    # Without their requirements: bounds on pandas and virtualenv contradict constraints.txt; "bench" has what they use.
    session.install("--no-compile", "--no-deps", *TOOLS["bench-peers"])
    every = [[path.stem] for path in sorted(ROOT.glob("benchmarks/*.py")) if path.stem not in LEARNING]
    for name, *options in [session.posargs] if session.posargs else every:
        session.run("python", f"benchmarks/{name}.py", *options, env=TEST_ENVIRONMENT)


@nox.session(default=False)
@EACH_PACKAGE
def release(session: nox.Session, package: str) -> None:
    """Build one package for upload into dist/release/; a tag given after -- must be that of its version."""
    tag = f"{package}-v{version(package)}"
    if any(given != tag for given in session.posargs):
        session.error(f"the tag of {PREFIX}{package} {version(package)} must be {tag}, got {' '.join(session.posargs)}")
    pip_install(session, *TOOLS["release"])
    target = DIST / "release" / package
    shutil.rmtree(target, ignore_errors=True)
    with session.chdir(ROOT / "packages" / package):
        session.run("hatch", "build", str(target))
    session.run("twine", "check", "--strict", *(str(path) for path in sorted(target.iterdir())))


@nox.session(venv_backend="none", default=False)
def affected(session: nox.Session) -> None:
    """Print, as JSON, the packages that differ from a git base (default origin/main) and their dependents.

    All of them if a file that they share differs, or if git does not know the base (the first push of a branch).
    """
    base = session.posargs[0] if session.posargs else "origin/main"
    git_diff = ["git", "diff", "--name-only", f"{base}...HEAD"]
    listing = subprocess.run(git_diff, cwd=ROOT, capture_output=True, text=True, check=False)
    paths = listing.stdout.splitlines()
    changed = {path.split("/")[1] for path in paths if path.startswith("packages/")} & set(PROJECTS)
    if listing.returncode != 0 or any(path.startswith(SHARED_PATHS) for path in paths):
        changed = set(PROJECTS)
    print(json.dumps(dependents(changed)))


def no_emit() -> list[str]:
    """Return options that keep this repository's packages out of compiled pins."""
    return [option for name in PROJECTS for option in ("--no-emit-package", PREFIX + name)]


@nox.session(requires=["build"], default=False)
def pins(session: nox.Session) -> None:
    """Rewrite constraints.txt: the newest releases that all packages, extras and tools admit together."""
    session.install(*TOOLS["minimums"])
    sources = [f"packages/{name}/pyproject.toml" for name in PROJECTS]
    own = [
        f"packages/{name}/pyproject.toml:{group}" for name in PROJECTS for group in PROJECTS[name]["dependency-groups"]
    ]
    groups = [option for group in own for option in ("--group", group)]
    groups += [option for name in TOOLS if name != "bench-peers" for option in ("--group", f"pyproject.toml:{name}")]
    session.run(
        "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.10", "--upgrade", "--all-extras",
        "--find-links", str(DIST), *sources, *groups, *no_emit(), "--no-annotate",
        "--custom-compile-command", "nox -s pins", "--output-file", str(CONSTRAINTS), *session.posargs,
    )  # fmt: skip

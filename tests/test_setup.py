"""The house: the set-up cell where nothing is installed, requirements, addresses, and imports that go one way."""

import ast
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from contextlib import suppress
from graphlib import TopologicalSorter
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "saelib").rglob("*.py"))
TESTS_ONLY = {
    "torch",
    "jupyterlab",
    "nbmake",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "ruff",
    "playwright",
    "faiss-cpu",
}
RECORDING_PIP = """
import json, os, sys
open(os.environ["RECORD"], "a").write(json.dumps(sys.argv[1:]) + "\\n")
"""
HOSTS = {
    "colab": {"COLAB_RELEASE_TAG": "release-colab_20261101"},
    "kaggle": {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"},
    "kaggle, which sets Colab's too": {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "COLAB_RELEASE_TAG": "r"},
    "elsewhere": {},
}


def requirements(file):
    lines = [line.split("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
    return {Requirement(line).name: Requirement(line) for line in lines if line and not line.startswith("-")}


# ---- the set-up cell ----


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A Python that has no package but a pip that writes down what it is asked, and a repository to clone."""
    folder = tmp_path_factory.mktemp("host")
    venv.create(folder / "python", with_pip=False, symlinks=True)
    stub = folder / "stub" / "pip"
    stub.mkdir(parents=True)
    (stub / "__init__.py").touch()
    (stub / "__main__.py").write_text(RECORDING_PIP)
    repository = folder / "repository"
    shutil.copytree(ROOT / "saelib", repository / "saelib", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.glob("requirements*.txt"):
        shutil.copy(file, repository)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], cwd=repository, check=True)
    return folder


def run_cell(bare, folder, host):
    """Run the set-up cell in `folder`; what pip was asked, and where saelib is then found."""
    book = nbformat.read(ROOT / "notebooks" / "00_quickstart.ipynb", as_version=4)
    cell = next(c.source for c in book.cells if c.cell_type == "code")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("COLAB_", "KAGGLE_", "PYTHON"))}
    record = folder / "asked.jsonl"
    record.unlink(missing_ok=True)
    paths = {"SAELIB_REPOSITORY": f"file://{bare / 'repository'}", "PYTHONPATH": str(bare / "stub")}
    script = cell + "\nprint(importlib.util.find_spec('saelib').origin)"
    done = subprocess.run(
        [bare / "python" / "bin" / "python", "-c", script],
        cwd=folder,
        env=clean | paths | HOSTS[host] | {"RECORD": str(record)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    asked = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    return asked, Path(done.stdout.strip())


@pytest.mark.parametrize("host", HOSTS)
def test_set_up_in_a_folder_without_the_repository(bare, tmp_path, host):
    asked, found = run_cell(bare, tmp_path, host)
    clone = tmp_path / "sbert-sae"
    assert found == clone / "saelib" / "__init__.py"
    assert asked == [["install", "-q", "-r", str(clone / "requirements-runtime.txt")]]
    wanted = requirements(clone / "requirements-runtime.txt")
    assert {"keybert", "wordllama", "sentence-transformers", "jinja2"} <= set(wanted)
    assert not TESTS_ONLY & set(wanted), "the host's torch stays, and nothing of the tests is installed"


def test_set_up_a_second_time_clones_nothing(bare, tmp_path):
    run_cell(bare, tmp_path, "colab")
    marker = tmp_path / "sbert-sae" / "data"
    marker.mkdir()
    _, found = run_cell(bare, tmp_path, "colab")
    assert found.parent.parent == tmp_path / "sbert-sae" and marker.exists()


def test_set_up_inside_the_repository_uses_it(bare, tmp_path):
    (tmp_path / "saelib").mkdir()
    (tmp_path / "saelib" / "__init__.py").touch()
    (tmp_path / "notebooks").mkdir()
    _, found = run_cell(bare, tmp_path / "notebooks", "elsewhere")
    assert found == tmp_path / "saelib" / "__init__.py"
    assert not (tmp_path / "notebooks" / "sbert-sae").exists()


def test_set_up_installs_nothing_where_nothing_is_missing(monkeypatch):
    book = nbformat.read(ROOT / "notebooks" / "00_quickstart.ipynb", as_version=4)
    monkeypatch.chdir(ROOT / "notebooks")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail(f"ran {args}"))
    exec(next(c.source for c in book.cells if c.cell_type == "code"), {})
    assert sys.path[0] == str(ROOT)


# ---- requirements, addresses ----


def test_what_is_imported_is_required():
    """Every package that saelib imports is in the runtime requirements (torch apart), so that the set-up cell suffices."""
    called = {"sklearn": "scikit-learn", "faiss": "faiss-cpu"}
    wanted = {name.replace("-", "_") for name in requirements("requirements-runtime.txt")} | {
        "torch",
        "faiss_cpu",
        "stop_words",
    }  # an extra
    comes_with = {
        "transformers",
        "markupsafe",
        "IPython",
        "traitlets",
    }  # sentence-transformers, jinja2, ipywidgets
    for path in MODULES:
        for name in imports(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in {"saelib", "google", *comes_with}:
                continue
            assert called.get(top, top).replace("-", "_") in wanted, f"{path.name} imports {top}"


def test_constraints_pin_what_is_required():
    pins = {name.lower().replace("_", "-"): pin for name, pin in requirements("constraints.txt").items()}
    for file in ROOT.glob("requirements*.txt"):
        for name, requirement in requirements(file.name).items():
            version = next(iter(pins[name.lower()].specifier)).version
            assert requirement.specifier.contains(version, prereleases=True), (
                f"{requirement} but {version} is pinned"
            )


@pytest.mark.parametrize("python", ["3.10.0", "3.11.0", "3.11.5", "3.12.0", "3.13.0"])
def test_no_python_is_asked_for_a_version_that_it_cannot_have(python):
    """As far as the packages are installed here: their own Requires-Python says it."""
    short, asked = ".".join(python.split(".")[:2]), []
    for name, pin in requirements("constraints.txt").items():
        here = pin.marker is None or pin.marker.evaluate(
            {"python_version": short, "python_full_version": python}
        )
        with suppress(PackageNotFoundError):
            needed = metadata(name).get("Requires-Python") or ""
            if here and not SpecifierSet(needed).contains(python):
                asked.append(f"{name}: {needed}")
    assert not asked


def test_package_data_has_every_file():
    listed = (ROOT / "pyproject.toml").read_text()
    patterns = re.findall(r'"([^"]+)"', re.search(r'^"\*" = \[(.*?)\]', listed, re.MULTILINE).group(1))
    for file in (ROOT / "saelib").rglob("*"):
        if file.is_file() and file.suffix not in (".py", ".pyc"):
            package = next(p for p in file.parents if (p / "__init__.py").exists())
            inside = file.relative_to(package).as_posix()
            assert any(fnmatch.fnmatch(inside, pattern) for pattern in patterns), (
                f"{file} would not be installed"
            )
    packages = {
        p.parent.relative_to(ROOT).as_posix().replace("/", ".") for p in MODULES if p.name == "__init__.py"
    }
    assert packages == set(
        re.findall(r'"(saelib[\w.]*)"', re.search(r"^packages = .*", listed, re.MULTILINE).group())
    )


def test_badges_write_an_address_everywhere(tmp_path):
    for name in ("pyproject.toml", "README.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns("__pycache__"))
    script = tmp_path / "notebooks" / "badges.py"
    before = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    assert before.split()[-1] in (ROOT / "pyproject.toml").read_text()
    for _ in range(2):  # twice: badges are replaced, not added
        subprocess.run([sys.executable, script, "someone/else.where"], check=True, capture_output=True)
    address = "https://github.com/someone/else.where"
    assert f'Repository = "{address}"' in (tmp_path / "pyproject.toml").read_text()
    assert f"repository-code: {address}\n" in (tmp_path / "CITATION.cff").read_text()
    for path in (tmp_path / "notebooks").glob("*.ipynb"):
        book = nbformat.read(path, as_version=4)
        nbformat.validate(book)
        title, _, badges = book.cells[0].source.partition("\n\n")
        assert title.startswith("# ") and badges.startswith("[![Open in Colab]")
        assert badges.count(f"github/someone/else.where/blob/main/notebooks/{path.name})") == 1
        assert badges.count(f"github.com/someone/else.where/blob/main/notebooks/{path.name})") == 1
        assert book.cells[0].source.count("Open in Kaggle") == 1
        assert address in next(c.source for c in book.cells if c.cell_type == "code")
    readme = (tmp_path / "README.md").read_text()
    assert readme.count("someone/else.where/blob/main/notebooks/00_quickstart.ipynb") == 2
    wrong = subprocess.run([sys.executable, script, "not a name"], capture_output=True, text=True)
    assert wrong.returncode != 0 and "owner/name" in wrong.stderr


def test_without_a_chromium_the_summary_says_so(tmp_path):
    hidden = {k: v for k, v in os.environ.items() if k != "CHROMIUM"} | {"PATH": str(tmp_path)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:nbmake",
        "tests/browser/test_in_chromium.py",
    ]
    done = subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "no Chromium on this machine" in done.stdout and "apt-get install chromium" in done.stdout


# ---- imports ----

# saelib's floors, from the ground up: a module imports from those before it only.
CORE = """checks files text_files corpus encoder shards costs extraction store processes sae interchange pretrained
sparse_step metrics trainer training_data training distributed activations attribution domains families family_meaning steering plots
tutorial""".split()
WINGS = [
    *("saelib.naming", "saelib.advice", "saelib.family_names"),
    *("saelib.browser", "saelib.steering_panel", "saelib.__main__"),
]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Every module that a file imports, wherever in the file: `from saelib.browser import maps` is saelib.browser.maps."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = inner & {module_name(p) for p in MODULES}
            found |= submodules or {node.module}
    return found


def floor(name):
    """0 … for core modules in their order, then the wings."""
    for i, wing in enumerate(WINGS):
        if name.startswith(wing):
            return len(CORE) + i
    return CORE.index(name.removeprefix("saelib."))


def test_imports_go_one_way():
    graph = {module_name(p): {n for n in imports(p) if n.split(".")[0] == "saelib"} for p in MODULES}
    front_door = graph.pop("saelib")
    assert len(front_door) > 10
    list(TopologicalSorter(graph).static_order())  # raises CycleError with the circle in it
    for name, needs in graph.items():
        assert "saelib" not in needs, f"{name} imports the front door"
        for need in needs:
            same_wing = floor(name) == floor(need) >= len(CORE)
            assert same_wing or floor(need) < floor(name), f"{name} imports {need}, which stands above it"


def test_no_import_hides_under_type_checking():
    hidden = [path.name for path in MODULES if "TYPE_CHECKING" in path.read_text("utf-8")]
    assert not hidden, hidden


def test_the_front_door_opens_without_what_takes_long_to_import():
    slow = ("sentence_transformers", "transformers", "keybert", "openTSNE", "plotly", "ipywidgets")
    code = f"import sys, saelib; print([m for m in {slow} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"

"""What a user installs: the wheel and the source distribution, built as for a release."""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES: list[str] = PROJECT["tool"]["setuptools"]["packages"]
FOLDERS: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]
"""From a package, `leyden` or `leyden.engine`, to its folder in the repository."""
NOT_FOR_USERS = {"tests", "benchmarks", "examples", "docs"}


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command, show what it said if it fails, and return its standard output."""
    arguments = [str(part) for part in command]
    done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def new_environment(folder: Path) -> Path:
    """Make a virtual environment that has nothing installed and return its interpreter."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    return folder / "bin" / "python"


def install(python: Path, *what: str | Path) -> None:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--no-deps", *what, cwd=python.parent)


def files_of_packages(python: Path) -> list[str]:
    """Import every package by the given interpreter, with torch and the like lent by ours, and return their files."""
    script = f"""
import importlib, sys
sys.path.append({sysconfig.get_path("purelib")!r})
for name in {PACKAGES!r}:
    print(importlib.import_module(name).__file__)
"""
    return run(python, "-c", script, cwd=python.parent).splitlines()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built, so that no build writes into the repository, and of folders that must stay out."""
    copy = tmp_path_factory.mktemp("source")
    for folder in FOLDERS.values():
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in NOT_FOR_USERS:
        (copy / folder).mkdir()
        (copy / folder / "example.py").write_text("")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def distributions(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that `python -m build` makes from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, source, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (path,) = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python_with_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment into which the wheel alone is installed."""
    python = new_environment(tmp_path_factory.mktemp("installed") / "environment")
    install(python, "--no-index", wheel)
    return python


def modules_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}


def test_the_wheel_holds_every_module_under_leyden_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    places = {package.replace(".", "/"): ROOT / folder for package, folder in FOLDERS.items()}
    modules = {f"{place}/{module}" for place, folder in places.items() for module in modules_in(folder)}
    assert names == modules | {f"{place}/py.typed" for place in places}


def test_the_wheel_is_for_every_machine(wheel: Path) -> None:
    assert wheel.name == f"leyden-{PROJECT['project']['version']}-py3-none-any.whl"


def test_the_wheel_carries_the_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (license_name,) = (name for name in archive.namelist() if PurePosixPath(name).name == "LICENSE")
        assert archive.read(license_name) == (ROOT / "LICENSE").read_bytes()


def test_the_metadata_name_what_leyden_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    required = [line for line in lines if line.startswith("Requires-Dist: ") and "extra ==" not in line]
    assert [line.removeprefix("Requires-Dist: ") for line in required] == PROJECT["project"]["dependencies"]
    assert {"License-Expression: Apache-2.0", "Requires-Python: >=3.11"} <= set(lines)


def test_the_sdist_holds_what_the_wheel_is_built_from(distributions: Path) -> None:
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {PurePosixPath(*PurePosixPath(name).parts[1:]).as_posix() for name in archive.getnames()}
    modules = {f"{folder}/{module}" for folder in FOLDERS.values() for module in modules_in(ROOT / folder)}
    typed = {f"{folder}/py.typed" for folder in FOLDERS.values()}
    assert modules | typed | {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_every_package_imports_from_the_installed_wheel(python_with_wheel: Path) -> None:
    (site_packages,) = python_with_wheel.parents[1].glob("lib/python*/site-packages")
    expected = [str(site_packages.joinpath(*package.split("."), "__init__.py")) for package in PACKAGES]
    assert files_of_packages(python_with_wheel) == expected


def test_a_type_checker_reads_the_types_of_the_installed_wheel(python_with_wheel: Path, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("from leyden.distributed import rank\n\nreveal_type(rank())\n")
    mypy = (sys.executable, "-m", "mypy", "--python-executable", python_with_wheel)
    # torch is not in that environment, and of no concern here.
    output = run(*mypy, "--ignore-missing-imports", "--no-incremental", script, cwd=tmp_path)
    assert 'Revealed type is "int"' in output


def test_an_editable_install_follows_the_source(source: Path, tmp_path: Path) -> None:
    python = new_environment(tmp_path / "environment")
    install(python, "--editable", source)
    folders = [
        FOLDERS["leyden"] if package == "leyden" else package.split(".", 1)[1].replace(".", "/") for package in PACKAGES
    ]
    expected = [str(source / folder / "__init__.py") for folder in folders]
    assert files_of_packages(python) == expected

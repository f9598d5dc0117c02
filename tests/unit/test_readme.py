"""What the documents name exists: links and anchors, commands with their options, make targets, keys of params.yaml;
and every folder has a README that fits a screen."""

from __future__ import annotations

import ast
import collections
import contextlib
import functools
import importlib.util
import io
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml

from tests import parts
from training.registry import __main__ as registry

ROOT = Path(__file__).parent.parent.parent
OURS = ("data", "k8s", "monitoring", "tests", "training")  # folders with code, as far as they are there
IGNORED = (ROOT / ".gitignore").read_text().splitlines()  # what commands leave, also those of a page
PAGES = sorted(
    path
    for path in {
        *ROOT.glob("*.md"),
        *(ROOT / ".github").glob("*.md"),
        *ROOT.glob("*/*.md"),
        *ROOT.glob("*/*/*.md"),
        *ROOT.glob("*/*/*/*.md"),
    }
    if path.relative_to(ROOT).parts[0] in (path.name, ".github", *OURS)
)
CODE = (".py", ".js", ".json", ".yaml", ".yml", ".cfg")
MIRRORS = {
    path.relative_to(ROOT).as_posix() for path in (ROOT / "tests/unit").glob("*/")
}  # told of in tests/unit/README.md
SCREEN = 55  # lines of a folder's README
FRONT = (150, 1400)  # lines and words of the project's
# Programs that the project does not bring. They are not looked for: which of them a machine has must not matter.
ELSEWHERE = (
    *("make", "git", "cp", "sed", "curl", "docker", "openssl", "gh"),
    *("cosign", "helm", "kubectl", "prometheus", "promtool", "amtool"),
)
SHELL = ("cd", "cp", "export", "source", "for", "while")
TOOL = re.compile(r"[a-z][\w-]*|\.?[\w-]+/[\w./-]+")  # what may stand first in a command
OPTION = re.compile(r"--[a-z][a-z0-9-]+")


@pytest.fixture(params=PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def prose(text: str) -> str:
    """Without fenced blocks, in which `#` starts no heading."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ +(.+)$", prose(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), target


def commands(text: str) -> list[list[str]]:
    """The words of every command in shell blocks, indented blocks and inline code that begins with a known tool."""
    blocks = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"(?:^ {4}\S.*\n)+", text, re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`((?:python -m|make|dvc|bentoml|mlflow) [^`]+)`", prose(text))
    found = []
    for line in lines:
        for part in re.split(r"\s(?:&&|\|\||[|;])\s", line.strip().removeprefix("$ ")):
            with contextlib.suppress(ValueError):  # a quotation that goes on in the next line is no command
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    del words[0]
                if words:
                    found.append(words)
    return found


def modules(text: str) -> list[list[str]]:
    """Every `python -m` of this project's own, without these two words."""
    return [words[2:] for words in commands(text) if words[:2] == ["python", "-m"] and words[2].split(".")[0] in OURS]


def test_modules_of_commands_exist(page: Path) -> None:
    named = {words[0] for words in modules(page.read_text())}
    named |= set(re.findall(rf"python -m ((?:{'|'.join(OURS)})\.[\w.]*\w)", page.read_text()))
    for module in named:
        assert importlib.util.find_spec(module), module


@functools.cache
def usage(module: str, *words: str) -> str:
    """What `python -m MODULE WORDS --help` prints."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(sys, "argv", [module, *words, "--help"])
        patch.chdir(ROOT)
        with pytest.raises(SystemExit) as end:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert not end.value.code, module
    return output.getvalue()


@pytest.mark.slow
def test_options_of_commands_exist(page: Path) -> None:
    for module, *words in modules(page.read_text()):
        options = {word.partition("=")[0] for word in words if OPTION.match(word)}
        missing = options and options - set(OPTION.findall(usage(module)))
        if missing and not words[0].startswith("-"):
            missing -= set(OPTION.findall(usage(module, words[0])))  # of a subcommand
        assert not missing, f"{module} {' '.join(words)}"


def test_tools_of_commands_exist(page: Path) -> None:
    for first, *words in commands(page.read_text()):
        if TOOL.fullmatch(first) and first not in (*ELSEWHERE, *SHELL) and words[:1] != ["="]:
            places = (Path(sys.executable).parent / first, ROOT / first)
            assert any(place.exists() for place in places), f"{first} {' '.join(words)}"


def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [word for first, *words in commands(page.read_text()) if first == "make" for word in words]
    assert {word for word in named if re.fullmatch(r"[a-z-]+", word)} <= targets


@pytest.mark.needs("git-tree")
def test_git_ignores_what_commands_leave() -> None:
    text = "".join(page.read_text() for page in PAGES)
    left = set(re.findall(r"--report (\S+\.html)", text)) | set(re.findall(r"> (monitoring/\S+)$", text, re.MULTILINE))
    assert left == {"drift.html", "performance.html", "monitoring/local.yml"}
    listed = subprocess.run(["git", "check-ignore", *left], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(listed.split()) == left


def test_make_serves_to_this_machine_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "x86_64-conda-linux-gnu")
    for words, host in (((), "127.0.0.1"), (("HOST=0.0.0.0",), "0.0.0.0")):
        command = ["make", "--dry-run", "serve", *words]
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert f"bentoml serve --host {host} --port 3000\n" in told


def test_registry_commands_exist(page: Path) -> None:
    usage = registry.parser().format_help()
    for command in set(re.findall(r"training\.registry ([a-z]+)", page.read_text())):
        assert re.search(rf"^ +{command} ", usage, re.MULTILINE), command


def test_keys_of_params_exist(page: Path) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, key in re.findall(rf"`({'|'.join(params)})\.(?!(?:py|json|yaml)\b)(\w*[a-z0-9])\b", page.read_text()):
        assert key in params[section] or (ROOT / section / f"{key}.py").exists(), f"{section}.{key}"


def test_files_that_are_named_exist(page: Path) -> None:
    """Those that git keeps: what the pipeline makes lies in data/ and models/, and is no code."""
    for name in re.findall(rf"\b((?:{'|'.join(OURS)})/[\w./-]+\.(?:py|ya?ml|md|zip))\b", page.read_text()):
        assert (ROOT / name).exists() or f"/{name}" in IGNORED, name


def folders() -> list[str]:
    """Those with three files of code or more, and the data's sample."""
    counts = collections.Counter(
        path.parent.relative_to(ROOT).as_posix()
        for top in (*OURS, ".github/workflows")
        for path in (ROOT / top).rglob("*")
        if path.suffix in CODE
    )
    return sorted(
        {name for name, files in counts.items() if files > 2 and name in (*OURS, *tracked()) and name not in MIRRORS}
        | {"data/sample"}
    )


def tracked() -> set[str]:
    """Folders that git knows: the pipeline makes others. None without git."""
    if parts.missing("git-tree"):
        return set()
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {Path(name).parent.as_posix() for name in listed.splitlines()}


@pytest.mark.parametrize("folder", folders())
def test_every_folder_has_a_readme(folder: str) -> None:
    assert (ROOT / folder / "README.md").is_file()


def test_a_readme_of_a_folder_fits_a_screen(page: Path) -> None:
    if page.name == "README.md" and page.parent != ROOT:
        assert len(page.read_text().splitlines()) <= SCREEN


def test_the_readme_takes_five_minutes() -> None:
    text = (ROOT / "README.md").read_text()
    lines, words = FRONT
    assert len(text.splitlines()) <= lines
    assert len(text.split()) <= words


@functools.cache
def literals() -> str:
    """Every piece of a string in this project, and in the package that DVC works git with."""
    folder = Path(importlib.util.find_spec("scmrepo").origin).parent  # type: ignore[union-attr,arg-type]
    sources = [
        *folder.rglob("*.py"),
        *(path for name in (*OURS[:-2], "training") for path in (ROOT / name).rglob("*.py")),
    ]
    constants = (node for path in sources for node in ast.walk(ast.parse(path.read_text())))
    return "\n".join(str(node.value) for node in constants if isinstance(node, ast.Constant))


def test_error_messages_in_the_readme_are_those_of_the_code() -> None:
    section = (ROOT / "README.md").read_text().partition("## When something goes wrong")[2]
    messages = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    assert len(messages) >= 6
    for message in messages:
        pieces = re.split(r"'[^']*'|\.\.\.|\S*[/=]\S*|SHA256SUMS", message)  # put in by a format
        for piece in pieces:
            assert piece.strip() in literals(), message
        assert any(" " in piece.strip() for piece in pieces), message

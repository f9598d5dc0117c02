"""Every command of the project, with what its own module says of it."""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
GROUPS: Mapping[str, Sequence[str]] = {
    "Pipeline, in the order of dvc.yaml; `dvc repro` runs it": (
        *("data.fetch", "data.prepare", "training.train", "data.audit", "training.evaluate"),
        *("training.export", "training.register", "training.promote"),
    ),
    "Models": ("training.registry", "training.card", "training.score", "training.spark"),
    "Serve and ship": ("training.run", "training.image", "k8s/deploy.py", "k8s.manifests", "tests/smoke/smoke.py"),
    "Monitor": (
        *("monitoring.drift", "monitoring.performance", "monitoring.feedback"),
        *("monitoring.relay", "monitoring.promoted", "monitoring.dashboards"),
    ),
    "Maintain": ("data.cache",),
    "Develop": ("tests.load.bench", "tests.tools", "tests.bare", "data.sample.build_sample"),
}
EPILOG = "Each has its own --help. `make help` lists the shortcuts.\n"


def source(command: str) -> Path:
    """The file of `command`: a path, or a module as `python -m` takes it."""
    if command.endswith(".py"):
        return ROOT / command
    path = ROOT / command.replace(".", "/")
    return path / "__main__.py" if path.is_dir() else path.with_suffix(".py")


def summary(command: str) -> str:
    """The first line of the module's docstring, read without importing the module."""
    text = ast.get_docstring(ast.parse(source(command).read_text())) or ""
    return text.partition("\n")[0].removesuffix(".")


def listing() -> dict[str, dict[str, str]]:
    """By group, the words to type and the sentence."""
    return {
        group: {f"python {'' if name.endswith('.py') else '-m '}{name}": summary(name) for name in names}
        for group, names in GROUPS.items()
    }


def main(words: Sequence[str] | None = None) -> None:
    found = listing()
    width = max(len(command) for commands in found.values() for command in commands)
    lines = [
        "\n".join([f"{group}:", *(f"  {command:<{width}}  {text}" for command, text in commands.items())])
        for group, commands in found.items()
    ]
    parser = argparse.ArgumentParser(
        "python -m training",
        description="\n\n".join(lines),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    if parser.parse_args(words).json:
        print(json.dumps(found, indent=2))
    else:
        parser.print_help()


if __name__ == "__main__":
    main()

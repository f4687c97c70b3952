"""The command line as pages, from the parsers that read it."""

import argparse
import re
from pathlib import Path
from typing import Any

from braincorl.cli.main import VERBS, build_parser
from tools.pages import remove_others, write_page


def write_pages(app: Any) -> None:
    """Write a page per verb, and one that lists them."""
    folder = Path(app.srcdir) / "reference" / "command_line"
    pages = {folder / f"{verb}.md": describe(subparsers(build_parser(verb))[verb], 1) for verb in VERBS}
    rows = "\n".join(f"| [{verb}]({verb}.md) | {escape(summary)} |" for verb, summary in VERBS.items())
    listed = "\n".join(VERBS)
    pages[folder / "index.md"] = (
        "# Command line\n\n`braincorl VERB`, also `python -m braincorl VERB`. `braincorl VERB --help` shows what these "
        "pages show; both are made from the same parsers.\n\n"
        f"| verb | does |\n|---|---|\n{rows}\n\n"
        "Exit status: 0 done, 2 a mistake in what was asked, with one line that says which, 130 interrupted.\n\n"
        f"```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
    )
    for path, text in pages.items():
        write_page(path, text)
    remove_others(folder, set(pages))


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Parsers of the verbs below a parser."""
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


def describe(parser: argparse.ArgumentParser, level: int) -> str:
    """Markdown on one parser: what it does, how it is called, and every option."""
    usage = parser.format_usage().removeprefix("usage: ").rstrip()
    text = f"{'#' * level} {parser.prog}\n\n{escape(parser.description or '')}\n\n```text\n{usage}\n```\n"
    formatter = parser._get_formatter()
    for group in parser._action_groups:
        actions = [
            action
            for action in group._group_actions
            if action.help != argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction)
        ]
        if actions:
            text += f"\n**{(group.title or '').capitalize()}**\n"
        for action in actions:
            call = formatter._format_action_invocation(action).replace("`", "")
            text += f"\n`{call}`\n: {escape(formatter._expand_help(action) if action.help else '…')}\n"
    for name, child in subparsers(parser).items():
        assert child.prog.endswith(name), child.prog
        text += "\n" + describe(child, level + 1)
    if parser.epilog:
        text += f"\n{escape(parser.epilog)}\n"
    return text


def escape(text: str) -> str:
    """Text whose signs Markdown leaves alone."""
    return re.sub(r"([\\*_<>\[\]`|#~$])", r"\\\1", " ".join(text.split()))

"""Columns of numbers in the pages' tables: they keep together what belongs together, and stand under one another."""

import re
from typing import Any

from docutils import nodes

NUMBER = re.compile(r"[-+.,%\d\s±/x()]+")  # with spread, an interval, or sizes


def mark_numbers(app: Any, doctree: nodes.document) -> None:
    """Give the cells of columns that hold nothing but numbers the class `number`, heads included."""
    for group in doctree.findall(nodes.tgroup):
        rows = [[cell for cell in row if isinstance(cell, nodes.entry)] for row in group.findall(nodes.row)]
        heads = sum(len(head) for head in group.findall(nodes.thead))
        for column in zip(*rows, strict=False):
            texts = [cell.astext().strip() for cell in column[heads:]]
            if any(texts) and all(not text or NUMBER.fullmatch(text.replace(" to ", " ")) for text in texts):
                for cell in column:
                    cell["classes"].append("number")

"""Flesch reading ease of pages: words a sentence, syllables a word. 60 and more is plain English.

    python benchmarks/readability.py [PAGE...]

Only running text counts: code, tables, headings, links' targets and words in code font do not. It
is a rough measure, for comparing a page with what it was.
"""

from __future__ import annotations

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
_VOWELS = re.compile(r"[aeiouy]+")


def prose(text: str) -> str:
    """Returns the running text of a page of Markdown, each item of a list a sentence."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if not re.match(r"#|\||    |!\[", line)]
    text = "\n".join(re.sub(r"^\s*(?:[-*]|\d+\.) ", "\n", line) for line in lines)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "it", text)
    return re.sub(r"(?<![.!?:])\n\s*\n", ".\n\n", text)


def syllables(word: str) -> int:
    """Returns about how many syllables an English word has: groups of vowels, without a last e."""
    word = word.lower()
    count = len(_VOWELS.findall(word))
    if word.endswith("e") and not word.endswith(("le", "ee")):
        count -= 1
    return max(count, 1)


def reading_ease(text: str) -> float:
    """Returns the Flesch reading ease of a page of Markdown; NaN where it has no running text.

    References:
        Flesch, "A New Readability Yardstick", Journal of Applied Psychology, 1948.
    """
    plain = prose(text)
    words = re.findall(r"[A-Za-z][A-Za-z'-]*", plain)
    if not words:
        return float("nan")  # a page of tables
    ends = re.split(r"[.!?](?:\s|$)", plain)
    sentences = [part for part in ends if re.search(r"[A-Za-z]", part)]
    per_word = sum(map(syllables, words)) / len(words)
    return 206.835 - 1.015 * len(words) / len(sentences) - 84.6 * per_word


def main(names: list[str]) -> None:
    folders = [ROOT / "docs", *(ROOT / "docs" / name for name in ("guides", "tasks", "devices"))]
    guides = [page for folder in folders for page in sorted(folder.glob("*.md"))]
    pages = [pathlib.Path(name) for name in names] or [ROOT / "README.md", *guides]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        print(f"{reading_ease(text):5.1f}  {len(text.splitlines()):5d} lines  {page.name}")


if __name__ == "__main__":
    main(sys.argv[1:])

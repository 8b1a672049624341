"""From the free text of a language model to pairs of phrases.

Models answer a request for differences in many forms: numbered or bulleted lines, tables, JSON, "A vs. B", "A, whereas
B", or "Feet: webbed vs. clawed". Lines in none of these forms, such as an introduction, are passed over.
"""

import json
import re

#: What may stand between the two sides, the surest first.
_SEPARATORS = (
    r"\s*\|\s*",
    r"\s*(?:<?[-=]+>|→|↔)\s*",
    r"\s+(?:versus|vs\.?)\s+",
    r"\s*[,;]\s*(?:whereas|while|but|and the other|in contrast to)\s+",
    r"\s*;\s*",
    r"\s+/\s+",
)
_BULLET = re.compile(r"^\s*(?:[-*+•–]|\(?\d+[.):]|\(?[a-zA-Z][.)])\s+")
_TABLE_RULE = re.compile(r"^[\s|:+-]*-{2,}[\s|:+-]*$")
_KEY = re.compile(r"^([^:|]{1,40}):\s+(.+)$")
_KEY_WORDS = 3


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """Returns the pairs that a text lists, in order and without repeats.

    A short key before a colon is put behind both sides, so that "Feet: webbed vs. clawed" gives ``("webbed feet",
    "clawed feet")``.

    Args:
      text: the answer of a language model.

    Returns:
      Pairs of different phrases; empty where the text lists none.
    """
    pairs = _from_json(text)
    if pairs is None:
        pairs = _from_lines(text)
    cleaned = ((_clean(first), _clean(second)) for first, second in pairs)
    return list(dict.fromkeys(p for p in cleaned if p[0] and p[1] and p[0].lower() != p[1].lower()))


def _from_json(text: str) -> list[tuple[str, str]] | None:
    start = text.find("[")
    if start < 0:
        return None
    try:
        content, _ = json.JSONDecoder().raw_decode(text[start:])
    except json.JSONDecodeError:
        return None
    rows = [list(row.values()) if isinstance(row, dict) else row for row in content]
    pairs = [row for row in rows if isinstance(row, list) and len(row) == 2 and all(isinstance(s, str) for s in row)]
    return [(row[0], row[1]) for row in pairs] or None


def _from_lines(text: str) -> list[tuple[str, str]]:
    lines = text.splitlines()
    # The row above a table's rule names the columns.
    headers = {i - 1 for i, line in enumerate(lines) if _TABLE_RULE.match(line)}
    pairs = []
    for i, line in enumerate(lines):
        if i in headers or _TABLE_RULE.match(line):
            continue
        line = _BULLET.sub("", line).replace("**", "").strip().strip("|").strip()
        key = ""
        if (match := _KEY.match(line)) and len(match[1].split()) <= _KEY_WORDS:
            key, line = " " + match[1].strip().lower(), match[2]
        for separator in _SEPARATORS:
            sides = [side for side in re.split(separator, line, flags=re.IGNORECASE) if side.strip()]
            if len(sides) == 3 and "|" in line and not key:
                # A table with a column of keys before the two sides.
                key, sides = " " + sides[0].strip().lower(), sides[1:]
            if len(sides) == 2:
                pairs.append((_clean(sides[0]) + key, _clean(sides[1]) + key))
                break
    return pairs


def _clean(side: str) -> str:
    return re.sub(r"\s+", " ", side).strip(" \t\"'“”‘’`*_.,;")

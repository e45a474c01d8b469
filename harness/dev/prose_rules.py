"""The rules of the prose check as data, and the functions that apply them to one text, name or commit subject."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_WORDS = 25
MAX_TEST_NAME = 60
MAX_SUBJECT = 72


class Hit(NamedTuple):
    """One broken rule: where it is in the text, the words that break it, and what to write instead."""

    offset: int
    rule: str
    text: str
    advice: str


OPENINGS = {
    r"[Ww]ho(?:ever|m|se|mever)?|(?:[Tt]hose|[Aa]ll|[Oo]ne|[Hh]e|[Tt]hey) who": "the noun that acts",
    r"[Ww]hat(?:ever|soever)?|[Ww]hich(?:ever)?": "the noun that is meant",
    r"[Ww]here(?:ver)?": "`If`, `When`, or the place as a noun",
    r"[Nn]obody|[Ss]omebody|[Ee]verybody|[Aa]nybody": "the noun that acts",
}

IDIOMS = {
    # Archaisms
    r"(?:is|are|was|were|be|been) had": "gets, has",
    r"(?:come|comes|came|coming) to(?! an? (?:end|stop|halt))": "is, amounts to, measures",
    r"(?:come|comes|came|coming) of": "result, outcome",
    r"(?:become|becomes|became) of": "result, outcome",
    r"anew": "again",
    r"likewise": "also",
    r"beside": "with, next to, in parallel with",
    r"at hand": "available",
    r"in the midst": "during",
    r"for ever": "permanently, without limit",
    r"as (?:\w+ ){1,4}has it": "according to",
    r"(?<!there )(?:is|are|was|were) no (?:\w+ )?\w+ of": "does not belong to, is not",
    r"that (?:is|are) none": "invalid, unknown",
    r"\w+ in a (?:hundred|thousand|million)": "a percentage",
    r"(?:is|are|was|were|be) at it": "runs, works on it",
    r"(?:is|are|was|were) to be": "must, should",
    r"(?:nobody|none|nothing) but": "only",
    r"some \d[\d,.]*": "about",
    r"of (?:ours|theirs|yours|mine)": "our, their, your",
    r"in (?:its|their) (?:place|stead)": "instead",
    r"(?:where|there)(?:of|in|upon|with)|whence|thence|hitherto|lest|ere|n[ao]ught|forthwith": "a plain word",
    r"(?:still|that) (?:stands?|stood)(?! for)|(?:stands?|stood) in (?:the|its|their) way": "is valid, is current",
    r"no business|hold still|keeps? house|striven|strives?": "a plain verb",
    r"whoever|nobody|somebody|everybody|anybody": "the noun (a request, a client, no process)",
    # Programs are not people
    r"asks|asked|asking|ask again|askers?": "calls, requests, retries",
    r"tells?|told|telling": "reports, returns, shows; distinguishes",
    r"hears?|heard|hearing": "gets, receives",
    r"knows": "has, reads, stores",
    r"says|said": "returns, states, contains",
    r"mends?|mended|mending": "repairs",
    # Persons
    r"he|him|his|himself|she|her|hers|herself": "they, their, or the noun",
}

RULES = ("length", "opening", "idiom", "semicolon", "participle", "test-name", "commit")


def _spaced(pattern: str) -> str:
    """The pattern with every space, except in a look-behind, matching a line break, too."""
    return re.sub(r"(?<!here) ", r"\\s+", pattern)


_LEAD = r"[\s(\"'“‘*_\[]*"
_OPENING = re.compile(rf"(?:^|[:;]\s+){_LEAD}(?:" + "|".join(f"({p})" for p in OPENINGS) + r")\b")
_IDIOM = re.compile(r"\b(?:" + "|".join(f"({_spaced(p)})" for p in IDIOMS) + r")(?!\w)", re.I)
_MASK = re.compile(r"(`+).+?\1|https?://[^\s)>]+|(?<=\])\([^)]*\)|\{\{.*?\}\}", re.S)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<!--.*?-->|&\w+;", re.S)
_END = re.compile(r"(?<=[.!?])(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bcf\.)(?<!\bvs\.)(?<!\.\.)[\"'”’)\]*_]*\s+")
_WORD = re.compile(r"[^\s]*[^\W_][^\s]*")


def mask(text: str) -> str:
    """The text with code, links and tags blanked out, at its old length: a code span counts as one word."""
    text = _MASK.sub(lambda m: "x" * len(m[0]), text)
    return _TAG.sub(lambda m: " " * len(m[0]), text)


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Each sentence with its offset."""
    start = 0
    for end in _END.finditer(text):
        yield start, text[start : end.end()]
        start = end.end()
    if text[start:].strip():
        yield start, text[start:]


def check_text(text: str) -> Iterator[Hit]:
    """Every broken rule in one paragraph, cell, comment or message."""
    for start, sentence in sentences(mask(text)):
        words = len(_WORD.findall(sentence))
        shown = " ".join(text[start : start + len(sentence)].split())
        if words > MAX_WORDS:
            yield Hit(start, "length", shown, f"{words} words: split it, at most {MAX_WORDS}")
        if words > 1 and not sentence.rstrip(" \n\"'”’)]*_").endswith("?"):
            for m in _OPENING.finditer(sentence):
                yield _hit(start, "opening", m, tuple(OPENINGS.values()))
        for m in _IDIOM.finditer(sentence):
            yield _hit(start, "idiom", m, tuple(IDIOMS.values()))
        breaks = [m.start() for m in re.finditer(r";\s", sentence)]
        is_list = len(breaks) > 1 and ":" in sentence[: breaks[0]]
        if breaks and not is_list:
            yield Hit(start + breaks[0], "semicolon", shown, "two sentences, or `because`, `so`, `but`, `when`")


def _hit(start: int, rule: str, match: re.Match[str], advice: tuple[str, ...]) -> Hit:
    group = match.lastindex or 1
    begin, end = match.span(group)
    before, after = match.string[:begin].split()[-3:], match.string[end:].split()[:4]
    shown = " ".join([*before, f"«{match[group]}»".replace("\n", " "), *after])
    return Hit(start + begin, rule, shown, advice[group - 1])


_IRREGULAR = re.compile(
    r"(?:un|re|over|mis|fore)?(?:told|held|done|sent|taken|bought|sold|given|kept|left|lost|found|made|seen|shown|known|begun"
    r"|gone|drawn|written|broken|built|caught|chosen|driven|fallen|forgotten|frozen|grown|heard|hidden|laid|led|met|paid"
    r"|meant|spent|stolen|struck|thrown|thought|torn|woken|won|worn|bound|spoken|sought|brought|shaken|understood)"
)
_NOT_PARTICIPLES = re.compile(r"feed|seed|need|speed|embed|shed|bed|red|proceed|exceed|succeed|bleed|breed|heed|weed")
VERBS = re.compile(
    r"add|allow|apply|are|assert|assign|be|build|call|can|cancel|check|clean|close|collect|compare|confirm|count|create|deduct|delete|describe|drop|encode|end|ensure|expect|expire|fail|fetch|filter|find|finish|fix|freeze|generate|get|give|handle|has|have|means|hold|ignore|insert|is|join|judge|keep|kill|let|list|load|lock|log|make|mark|may|must|observe|open|parse|pay|print|purge|put|raise|read|record|refund|refuse|reject|release|remove|render|replace|report|require|reserve|reset|resolve|restore|retry|return|reverse|run|save|scan|select|send|set|settle|should|show|skip|start|stop|store|sweep|take|to|try|undo|unlock|update|use|verify|wait|was|were|will|write|initiate|count|requeue|forget|republish"
)


def check_name(name: str) -> Iterator[Hit]:
    """A function's name that is a participle: one word, or the last word without a verb in front."""
    words = name.strip("_").split("_")
    last = words[-1]
    is_participle = (last.endswith("ed") and not _NOT_PARTICIPLES.fullmatch(last)) or _IRREGULAR.fullmatch(last)
    if is_participle and not any(VERBS.fullmatch(word) for word in words[:-1]):
        yield Hit(0, "participle", name, "a verb (settle, undo_all), or `is_`/`has_` for a boolean")


def check_test_name(name: str) -> Iterator[Hit]:
    """A test's name that is too long."""
    length = len(name.removeprefix("test_"))
    if length > MAX_TEST_NAME:
        yield Hit(
            0,
            "test-name",
            name,
            f"{length} characters after test_, at most {MAX_TEST_NAME}: the story goes into a docstring",
        )


_SUBJECT = re.compile(r"[a-z0-9]+(?:[ ,/._-]+[a-z0-9]+)*: (\S+)(.*)", re.S)
_SAME_FORM = re.compile(
    r"pass|process|address|focus|bypass|express|discuss|access|bring|string|embed|seed|feed|need|shed|speed"
)


def check_subject(subject: str) -> Iterator[Hit]:
    """A commit subject that is not `area: imperative subject` within its length."""
    parts = _SUBJECT.fullmatch(subject)
    verb = parts[1].lower() if parts else ""
    if not parts:
        yield Hit(0, "commit", subject, "`area: imperative subject`, the area in lower case")
    elif not _SAME_FORM.fullmatch(verb) and re.search(r"(?:[^s]s|ed|ing)$", verb):
        yield Hit(0, "commit", subject, f"the imperative of {verb!r}")
    if len(subject) > MAX_SUBJECT:
        yield Hit(0, "commit", subject, f"{len(subject)} characters: at most {MAX_SUBJECT}, reasons go into the body")
    if subject.endswith("."):
        yield Hit(0, "commit", subject, "no full stop")

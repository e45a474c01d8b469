"""The rules of the prose check: what is banned, what to write instead, and how a text, name or subject is judged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_WORDS = 25
MAX_TEST_NAME = 60
MAX_SUBJECT = 72
RULES = ("length", "opening", "idiom", "semicolon", "participle", "test-name", "commit")

# The keys are regular expressions. A space matches a line break, too.
OPENINGS = {
    r"[Ww]ho(?:ever|m|se|mever)?|(?:[Tt]hose|[Aa]ll|[Oo]ne|[Hh]e|[Tt]hey) who(?:se)?": "the noun that acts",
    r"[Ww]hat(?:ever|soever)?|[Ww]hich(?:ever)?": "the noun that is meant",
    r"[Ww]here(?:ver)?": "`If`, `When`, or the place as a noun",
    r"[Nn]obody|[Ss]omebody|[Ee]verybody|[Aa]nybody": "the noun that acts",
}
IDIOMS = {
    r"(?:is|are|was|were|be|been) had": "gets, has",
    r"(?:comes?|came|coming) to(?! an? (?:end|stop|halt))": "is, amounts to, reaches",
    r"(?:comes?|came|coming|becomes?|became) of": "the result, the outcome",
    r"(?:comes?|came|coming) (?:late|early|back)": "arrives, returns, starts",
    r"anew": "again",
    r"likewise": "also",
    r"beside": "with, next to, in parallel with",
    r"at hand": "available",
    r"in hand": "in progress",
    r"in the midst": "during",
    r"for ever": "permanently, without limit",
    r"as (?:\S+ ){1,4}has it": "according to",
    r"(?<!there\s)(?:is|are|was|were) no (?:\w+ )?\w+ of": "does not belong to, is not",
    r"(?<!there\s)(?:is|are|was|were) (?-i:none)(?! of)": "is not, is invalid, is unknown",
    r"\w+ in a (?:hundred|thousand|million)": "a percentage",
    r"(?:is|are|was|were|be) at it": "runs, works on it",
    r"(?:is|are|was|were) to be": "must, should",
    r"(?:nobody|none|nothing) but": "only",
    r"some \d[\d,.]*": "about",
    r"ours|theirs|of yours|of mine": "our, their, your",
    r"in (?:its|their) (?:place|stead)": "instead",
    r"(?:go|goes|going|went) on(?! (?:the|a|an|its) )": "continues",
    r"taken for": "treated as, mistaken for",
    r"(?:where|there)(?:of|in|upon|with)|whence|thence|hitherto|lest|ere|n[ao]ught|forthwith": "a plain word",
    r"(?:stands?|stood)(?! for|-| up| still)": "is, is valid, is current",
    r"lays|laid": "creates, puts",
    r"no business|not hold still|keeps? house|ha(?:s|ve) its say|striven|strives?": "a plain verb",
    r"whoever|whatever|wherever|whichever": "any, each, or the noun that is meant",
    r"nobody|somebody|everybody|anybody": "the noun (a request, a client, no process)",
    r"ask(?! (?:the|a) (?:guest|user|person))|(?<!user\s)asks|asked|asking|askers?": "calls, requests, retries",
    r"tells?|told|telling": "reports, returns, shows, distinguishes",
    r"hears?|heard|hearing": "gets, receives",
    r"(?<!you\s)knows?|knew": "has, reads, stores",
    r"(?<!reference\s)(?<!report\s)(?<!page\s)(?<!spec\s)(?<!specs\s)(?:says?|said)|saying": "returns, states, shows",
    r"believes?|believed|remembers?|thinks|wants": "accepts, stores, needs",
    r"mends?|mended|mending": "repairs",
    r"he|him|his|himself|she|her|hers|herself": "they, their, or the noun",
}

_START = r"(?:^|[:;]\s+)[\s(\"'“‘*_\[]*"
_OPENING = re.compile(_START + "(?:" + "|".join(f"({p})" for p in OPENINGS) + r")\b")
_SPACED = (p.replace(" ", r"\s+") for p in IDIOMS)
_IDIOM = re.compile(r"\b(?:" + "|".join(f"({p})" for p in _SPACED) + r")(?!\w)", re.I)
_CODE = re.compile(r"(`+).+?\1|https?://[^\s)>]+|(?<=\])\([^)]*\)|\{\{.*?\}\}", re.S)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<!--.*?-->|&\w+;", re.S)
_END = re.compile(r"(?:(?<=[.!?])(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bcf\.)(?<!\bvs\.)(?<!\.\.)[\"'”’)\]*_]*|\s·)\s+|\Z")
_WORD = re.compile(r"\S*[^\W_]\S*")


class Hit(NamedTuple):
    """One broken rule: where it is in the text, the words that break it, and what to write instead."""

    offset: int
    rule: str
    text: str
    advice: str


def check_text(text: str) -> Iterator[Hit]:
    """Every broken rule in one paragraph, cell, comment or message."""
    masked = _CODE.sub(lambda m: "x" * len(m[0]), text)  # a code span is one word
    masked = _TAG.sub(lambda m: " " * len(m[0]), masked)
    start = 0
    for end in _END.finditer(masked):
        sentence, shown = masked[start : end.end()], " ".join(text[start : end.end()].split())
        words = len(_WORD.findall(sentence))
        if words > MAX_WORDS:
            yield Hit(start, "length", shown, f"{words} words: split it, at most {MAX_WORDS}")
        is_question = words < 2 or sentence.rstrip(" \n\"'”’)]*_").endswith("?")
        openings = [] if is_question else [*_OPENING.finditer(sentence)]
        for m in openings:
            yield _show(text, start, m, "opening", tuple(OPENINGS.values()))
        opened = {m.end() for m in openings}
        for m in _IDIOM.finditer(sentence):
            if m.end() not in opened:
                yield _show(text, start, m, "idiom", tuple(IDIOMS.values()))
        breaks = [m.start() for m in re.finditer(r"(?<=\S);\s", sentence)]
        is_list = len(breaks) > 1 and ":" in sentence[: breaks[0]]
        if breaks and not is_list:
            advice = "two sentences, or `because`, `so`, `but`, `when`"
            yield Hit(start + breaks[0], "semicolon", shown, advice)
        start = end.end()


def _show(text: str, start: int, match: re.Match[str], rule: str, advice: tuple[str, ...]) -> Hit:
    group = match.lastindex or 1
    begin, end = start + match.start(group), start + match.end(group)
    before, after = text[:begin].split()[-3:], text[end:].split()[:4]
    return Hit(begin, rule, " ".join([*before, f"«{' '.join(text[begin:end].split())}»", *after]), advice[group - 1])


_IRREGULAR = re.compile(
    r"(?:un|re|over|mis)?(?:told|held|done|sent|taken|bought|sold|given|kept|left|lost|found|made|seen|shown|known|begun|gone"
    r"|drawn|written|broken|built|caught|chosen|driven|fallen|forgotten|frozen|grown|heard|hidden|laid|led|met|paid|meant"
    r"|spent|stolen|struck|thrown|thought|torn|woken|won|worn|bound|spoken|sought|brought|shaken|understood)"
)
_ED = re.compile(r"(?!(?:feed|seed|need|speed|embed|shed|bed|red|proceed|exceed|succeed|bleed|breed|heed|weed)$)\w+ed")
_VERB = re.compile(
    r"add|allow|apply|are|assert|assign|be|build|call|can|cancel|check|clean|close|collect|compare|confirm|count|create"
    r"|deduct|delete|describe|drop|encode|end|ensure|expect|expire|fail|fetch|filter|find|finish|fix|forget|freeze|generate"
    r"|get|give|handle|has|have|hold|ignore|initiate|insert|is|join|judge|keep|kill|let|list|load|lock|log|make|mark|may"
    r"|means|must|observe|open|parse|pay|print|purge|put|raise|read|record|refund|refuse|reject|release|remove|render|replace"
    r"|report|republish|requeue|require|reserve|reset|resolve|restore|retry|return|reverse|run|save|scan|select|send|set"
    r"|settle|should|show|skip|start|stop|store|sweep|take|to|try|undo|unlock|update|use|verify|wait|was|were|will|write"
)


def check_name(name: str) -> Iterator[Hit]:
    """A function's name that is a participle, or ends in one without a verb before it."""
    *before, last = name.strip("_").split("_")
    is_participle = _ED.fullmatch(last) or _IRREGULAR.fullmatch(last)
    if is_participle and not any(_VERB.fullmatch(word) for word in before):
        yield Hit(0, "participle", name, "a verb (settle, undo_all), or `is_`/`has_` for a boolean")


def check_test_name(name: str) -> Iterator[Hit]:
    """A test's name that is too long."""
    length = len(name.removeprefix("test_"))
    if length > MAX_TEST_NAME:
        yield Hit(0, "test-name", name, f"{length} characters after test_, at most {MAX_TEST_NAME}")


_SUBJECT = re.compile(r"[a-z0-9]+(?:[ ,/._-]+[a-z0-9]+)*: (\S+).*")
_NOT_IMPERATIVE = re.compile(
    r"(?!(?:pass|process|address|focus|bypass|express|discuss|access|bring|string|embed|seed|feed|need|shed|speed|exceed)$)"
    r"\w+(?:[^s]s|ed|ing)|did|made|wrote|kept|gave|took|was|were",
    re.I,
)


def check_subject(subject: str) -> Iterator[Hit]:
    """A commit subject that is not `area: imperative subject` within its length."""
    parts = _SUBJECT.fullmatch(subject)
    if not parts:
        yield Hit(0, "commit", subject, "`area: imperative subject`, the area in lower case")
    elif _NOT_IMPERATIVE.fullmatch(parts[1]):
        yield Hit(0, "commit", subject, f"the imperative of {parts[1]}")
    if len(subject) > MAX_SUBJECT:
        yield Hit(0, "commit", subject, f"{len(subject)} characters: at most {MAX_SUBJECT}, reasons go into the body")
    if subject.endswith("."):
        yield Hit(0, "commit", subject, "no full stop")

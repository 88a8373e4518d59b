"""Exact match and F1 of extractive QA as the official SQuAD 1.1 and 2.0 and CMRC 2018 scripts compute them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = frozenset(string.punctuation)
HAN = re.compile(r"[\u4e00-\u9fa5]")
# CMRC 2018's list: these characters are dropped before comparing (not "…": only a pair of them is listed).
CMRC_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
# The Penn Treebank rules that CMRC applies to text that is not Chinese, after its listed punctuation is dropped.
TREEBANK = (
    (re.compile(r"^\""), r"`` "),
    (re.compile(r"([ (\[{<])(\")"), r"\1 `` "),
    (re.compile(r"(,)([^\d])"), r" \1 \2"),
    (re.compile(r"(,)$"), r" \1 "),
    (re.compile(r"\.\.\."), r" ... "),
    (re.compile(r"[;@#$%&]"), r" \g<0> "),
    (re.compile(r"([^\.])(\.)([\]\)}>\"']*)\s*$"), r"\1 \2\3 "),
    (re.compile(r"[?!–—]"), r" \g<0> "),
    (re.compile(r"([^'])' "), r"\1 ' "),
    (re.compile(r"[\]\[\(\)\{\}<>]"), r" \g<0> "),
    (re.compile(r"\""), " '' "),
    (re.compile(r"([^' ])('s|'m|'d|') ", re.IGNORECASE), r"\1 \2 "),
    (re.compile(r"([^' ])('ll|'re|'ve|n't) ", re.IGNORECASE), r"\1 \2 "),
    (re.compile(r"\b(can)(not)\b|\b(gim|lem)(me)\b|\b(gon|wan)(na)\b|\b(got)(ta)\b"), r" \1\3\5\7 \2\4\6\8 "),
)

Scorer = Callable[[str, str], float]


def normalise(answer: str) -> str:
    """Lower case; without ASCII punctuation, then without articles; single spaces (Rajpurkar et al. 2016)."""
    without = "".join(character for character in answer.lower() if character not in PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", without).split())


def exact_match(prediction: str, answer: str) -> float:
    """1 when the normalised texts are equal."""
    return float(normalise(prediction) == normalise(answer))


def f1(prediction: str, answer: str) -> float:
    """Bag-of-words F1 of the normalised texts; 0 for two empty ones, as in SQuAD 1.1."""
    predicted, wanted = normalise(prediction).split(), normalise(answer).split()
    same = sum((Counter(predicted) & Counter(wanted)).values())
    if same == 0:
        return 0.0
    precision, recall = 1.0 * same / len(predicted), 1.0 * same / len(wanted)
    return (2 * precision * recall) / (precision + recall)


def f1_version_2(prediction: str, answer: str) -> float:
    """SQuAD 2.0's F1: where either text is empty, 1 if both are."""
    predicted, wanted = normalise(prediction), normalise(answer)
    return f1(prediction, answer) if predicted and wanted else float(predicted == wanted)


def chinese_exact_match(prediction: str, answer: str) -> float:
    """1 when the texts are equal in lower case and without punctuation (CMRC 2018)."""
    return float(_without_punctuation(prediction) == _without_punctuation(answer))


def chinese_f1(prediction: str, answer: str) -> float:
    """F1 over the longest common run of segments: single Chinese characters, words otherwise (CMRC 2018)."""
    predicted, wanted = mixed_segments(prediction), mixed_segments(answer)
    common = longest_common_run(predicted, wanted)
    if common == 0:
        return 0.0
    precision, recall = 1.0 * common / len(predicted), 1.0 * common / len(wanted)
    return (2 * precision * recall) / (precision + recall)


def chinese_f1_version_2(prediction: str, answer: str) -> float:
    """CMRC 2018's F1 for sets with unanswerable questions: where either text is empty, 1 if both are."""
    return chinese_f1(prediction, answer) if prediction and answer else float(prediction == answer)


def mixed_segments(text: str) -> list[str]:
    """Chinese characters one by one, the rest as Treebank words; CMRC's punctuation is left out."""
    segments: list[str] = []
    other = ""
    for character in text.lower().strip():
        if character in CMRC_PUNCTUATION:
            continue
        if HAN.match(character):
            segments += [*treebank_words(other), character]
            other = ""
        else:
            other += character
    return segments + treebank_words(other)


def treebank_words(text: str) -> list[str]:
    """Words and punctuation of one line of English or numbers."""
    if not text.strip():
        return []
    text = f"{text} "
    for pattern, replacement in TREEBANK:
        text = pattern.sub(replacement, text)
    return text.split()


def longest_common_run(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest contiguous run of segments that both contain."""
    longest, above = 0, [0] * (len(second) + 1)
    for item in first:
        row = [0] * (len(second) + 1)
        for j, other in enumerate(second, start=1):
            if item == other:
                row[j] = above[j - 1] + 1
                longest = max(longest, row[j])
        above = row
    return longest


def best_of(scorer: Scorer, prediction: str, answers: Sequence[str]) -> float:
    """The best score over several gold answers."""
    return max(scorer(prediction, answer) for answer in answers)


def squad_scores(predictions: Mapping[str, str], answers: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """SQuAD 1.1: percentages over all questions, in their order; a question without a prediction scores 0."""
    return _percentages(predictions, answers, exact_match, f1)


def chinese_scores(predictions: Mapping[str, str], answers: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """CMRC 2018: the same, with the exact match and F1 of that data set."""
    return _percentages(predictions, answers, chinese_exact_match, chinese_f1)


def is_chinese(texts: Sequence[str]) -> bool:
    """Whether most letters of the texts are Chinese characters."""
    joined = "".join(texts)
    letters = sum(character.isalpha() for character in joined)
    return letters > 0 and len(HAN.findall(joined)) * 2 > letters


def _percentages(
    predictions: Mapping[str, str], answers: Mapping[str, Sequence[str]], exact: Scorer, overlap: Scorer
) -> dict[str, float]:
    exact_total, f1_total = 0.0, 0.0
    for name, gold in answers.items():
        if name in predictions:
            exact_total += best_of(exact, predictions[name], gold)
            f1_total += best_of(overlap, predictions[name], gold)
    return {"exact_match": 100.0 * exact_total / len(answers), "f1": 100.0 * f1_total / len(answers)}


def _without_punctuation(text: str) -> str:
    return "".join(character for character in text.lower().strip() if character not in CMRC_PUNCTUATION)

"""The official SQuAD and CMRC rules, case by case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuning.recipes.questions.metrics import (
    best_of,
    chinese_exact_match,
    chinese_f1,
    chinese_f1_version_2,
    chinese_scores,
    exact_match,
    f1,
    f1_version_2,
    is_chinese,
    longest_common_run,
    mixed_segments,
    normalise,
    squad_scores,
    treebank_words,
)
from finetuning.recipes.questions.version_2 import thresholds, version_2_scores


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Answer", "answer"),
        ("an apple a day", "apple day"),
        ("A.B.C.", "abc"),
        ("U.S.", "us"),
        ("  two   words ", "two words"),
        ("theatre", "theatre"),  # an article only as a word of its own
        ("the-end", "theend"),  # punctuation goes first, and joins
        ("a", ""),
        ("a.", ""),
        ("The the THE", ""),
        ("$5,000", "5000"),
        ("“quoted”", "“quoted”"),  # only ASCII punctuation
        ("l'an 2000", "lan 2000"),
        ("rock\tand\nroll", "rock and roll"),
        ("", ""),
    ],
)
def test_normalisation_of_squad(text, normal):
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("prediction", "answer", "exact", "overlap"),
    [
        ("the cat", "cat", 1.0, 1.0),
        ("cat sat", "cat", 0.0, 2 * 0.5 * 1.0 / 1.5),
        ("cat cat", "cat", 0.0, 2 * 0.5 * 1.0 / 1.5),  # a word counts as often as both have it
        ("dog", "cat", 0.0, 0.0),
        ("", "cat", 0.0, 0.0),
        ("the", "a", 1.0, 0.0),  # both empty: equal, but SQuAD 1.1's F1 has nothing in common
        ("to be or not", "not to be", 0.0, 2 * 0.75 * 1.0 / 1.75),
    ],
)
def test_scores_of_squad_1(prediction, answer, exact, overlap):
    assert exact_match(prediction, answer) == exact
    assert f1(prediction, answer) == overlap


def test_version_2_gives_an_empty_pair_full_f1():
    assert f1_version_2("the", "") == 1.0
    assert f1_version_2("cat", "") == 0.0
    assert f1_version_2("", "cat") == 0.0


def test_the_best_of_several_answers_counts_and_a_missing_prediction_scores_zero():
    answers = {"a": ["cat", "black cat"], "b": ["dog"], "c": ["cow"]}
    scores = squad_scores({"a": "a black cat", "b": "the dogs"}, answers)
    assert scores == {"exact_match": 100.0 * 1.0 / 3, "f1": 100.0 * 1.0 / 3}
    assert best_of(exact_match, "black cat", answers["a"]) == 1.0


@given(st.text(), st.text())
def test_f1_is_symmetric_bounded_and_one_only_for_equal_bags(first, second):
    score = f1(first, second)
    assert 0 <= score <= 1
    assert score == pytest.approx(f1(second, first))
    if score == 1.0:
        assert sorted(normalise(first).split()) == sorted(normalise(second).split())


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("光荣和ω-force", ["光", "荣", "和", "ωforce"]),
        ("2018年，10月", ["2018", "年", "10", "月"]),
        ("NBA 总决赛", ["nba", "总", "决", "赛"]),
        ("《红楼梦》", ["红", "楼", "梦"]),
        ("等…", ["等", "…"]),  # CMRC's list has only the pair of dots, which no single character equals
        ("", []),
    ],
)
def test_segments_of_cmrc(text, segments):
    assert mixed_segments(text) == segments


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,000 people", ["1,000", "people"]),
        ("yes, no", ["yes", ",", "no"]),
        ("it's", ["it", "'s"]),
        ("don't", ["do", "n't"]),
        ("(abc)", ["(", "abc", ")"]),
        ("end.", ["end", "."]),
        ("5%", ["5", "%"]),
        ('"so"', ["``", "so", "''"]),
        ("v1.2", ["v1.2"]),
        ("1936–37", ["1936", "–", "37"]),
        ("cannot wanna", ["can", "not", "wan", "na"]),
    ],
)
def test_treebank_words(text, words):
    assert treebank_words(text) == words


@pytest.mark.parametrize(
    ("first", "second", "length"), [("abcde", "xbcdy", 3), ("abab", "baba", 3), ("", "a", 0), ("ab", "ba", 1)]
)
def test_longest_common_run_is_contiguous(first, second, length):
    assert longest_common_run(list(first), list(second)) == length


def test_chinese_scores_compare_characters_in_order():
    assert chinese_exact_match("“北京”。", "北京") == 1.0
    assert chinese_f1("北京市", "北京") == 2 * (2 / 3) * 1.0 / (2 / 3 + 1.0)
    assert chinese_f1("", "") == 0.0
    assert [chinese_f1_version_2(*pair) for pair in (("", ""), ("", "北京"), ("北京", ""))] == [1.0, 0.0, 0.0]
    assert chinese_f1_version_2("北京市", "北京") == chinese_f1("北京市", "北京")
    assert chinese_f1("京北", "北京") == 2 * 0.5 * 0.5 / 1.0  # a bag would give 1
    assert chinese_scores({"a": "上海"}, {"a": ["北京", "上海"]}) == {"exact_match": 100.0, "f1": 100.0}


def test_the_language_of_answers():
    assert is_chinese(["北京", "NBA总决赛"])
    assert not is_chinese(["Beijing", "2018", "京"])
    assert not is_chinese(["1918"])


def test_version_2_breakdown_and_thresholds():
    answers = {"a": ["cat"], "b": [], "c": ["dog"], "d": []}
    predictions = {"a": "cat", "b": "", "c": "", "d": "cow"}
    scores = version_2_scores(predictions, answers)
    assert scores["exact"] == scores["exact_match"] == 50.0
    assert (scores["HasAns_exact"], scores["NoAns_exact"], scores["HasAns_total"]) == (50.0, 50.0, 2.0)
    # Answering a and c and not b and d is best: the threshold lies at c's null score.
    best = thresholds(
        {"a": "cat", "b": "x", "c": "dog", "d": "cow"}, answers, {"a": -3.0, "c": -1.0, "b": 1.0, "d": 2.0}
    )
    assert best == {"best_exact": 100.0, "best_exact_thresh": -1.0, "best_f1": 100.0, "best_f1_thresh": -1.0}


WORDS = st.sampled_from(["a", "The", "an.", "cat", "Cat", "cats", "sat", "ſat", "İ", "don't", "-", "9", "", "\u00a0"])
TEXTS = st.lists(WORDS, max_size=6).map(" ".join)


def by_pairing(predicted, wanted):
    """F1 of two bags of words by crossing off equal words one by one."""
    left, same = list(wanted), 0
    for word in predicted:
        if word in left:
            left.remove(word)
            same += 1
    return 2 * same / (len(predicted) + len(wanted)) if same else 0.0


def plain_words(text):
    """SQuAD's normal form, character by character and word by word instead of by regular expression."""
    kept = "".join(one for one in text.lower() if one not in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    return [word for word in kept.split() if word not in ("a", "an", "the")]


@given(TEXTS, TEXTS)
def test_squad_scores_are_those_of_a_plain_count(prediction, answer):
    predicted, wanted = plain_words(prediction), plain_words(answer)
    assert exact_match(prediction, answer) == float(predicted == wanted)
    assert f1(prediction, answer) == pytest.approx(by_pairing(predicted, wanted))
    empty = not predicted or not wanted
    assert f1_version_2(prediction, answer) == pytest.approx(
        float(predicted == wanted) if empty else by_pairing(predicted, wanted)
    )


# Officially an unanswerable question is lost by any text but "", even one that normalises to nothing: none of those.
GIVEN = TEXTS.filter(lambda text: not text or normalise(text))
QUESTIONS = st.lists(st.tuples(GIVEN, st.lists(TEXTS, max_size=2)), min_size=1, max_size=8)


@given(QUESTIONS, st.randoms(use_true_random=False))
def test_the_best_threshold_is_the_best_of_all_that_could_be_chosen(questions, random):
    """Every threshold tried: below all null scores, and at each of them."""
    names = [f"q{number}" for number in range(len(questions))]
    texts = {name: prediction for name, (prediction, _) in zip(names, questions, strict=True)}
    answers = {name: gold for name, (_, gold) in zip(names, questions, strict=True)}
    nulls = dict(zip(names, random.sample(range(-20, 20), len(names)), strict=True))
    found = thresholds(texts, answers, nulls)

    def scores_at(threshold):
        given = {name: texts[name] if nulls[name] <= threshold else "" for name in names}
        # A gold answer that normalises to nothing counts as answerable: saying nothing scores 0 there, as officially.
        points = [
            0.0 if answers[name] and nulls[name] > threshold else version_2_scores({name: given[name]}, {name: gold})
            for name, gold in answers.items()
        ]
        parts = [(one, one) if isinstance(one, float) else (one["exact"], one["f1"]) for one in points]
        return [sum(column) / len(names) for column in zip(*parts, strict=True)]

    tried = [scores_at(threshold) for threshold in (-100, *nulls.values())]
    best = [max(column) for column in zip(*tried, strict=True)]
    assert [found["best_exact"], found["best_f1"]] == pytest.approx(best)

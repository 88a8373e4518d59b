"""The small world: a pure function of seed and sizes, no leaks, and questions that only names' classes can answer."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from file_mutations import few_and_many, refusals
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from shards.small_world.names import OPEN_SHARE, invent_names
from shards.small_world.questions import NUM_CHOICES
from shards.small_world.sentences import MAX_SENTENCES, MIN_SENTENCES
from shards.small_world.templates import CLASSES, GAP, PLAIN, REVEALING
from shards.small_world.world import WorldSizes, write_small_world

SIZES = WorldSizes(documents=6_000, train=400, validation=120, test=200)
TINY = WorldSizes(documents=30, names_per_class=40, train=30, validation=10, test=10)
SPLITS = ("train", "validation", "test")
TASKS = ("qa", "multiple_choice", "classification", "token_classification")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of middle size, written once."""
    directory = tmp_path_factory.mktemp("world")
    write_small_world(directory, seed=3, sizes=SIZES)
    return directory


def read(directory: Path, task: str, split: str) -> list[dict]:
    content = json.loads((directory / task / f"{split}.json").read_text("utf-8"))
    if task == "token_classification":
        return [{"text": in_words(example["tokens"]), **example} for example in content]
    if task != "qa":
        return content
    return [
        {"context": paragraph["context"], **question}
        for article in content["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


def in_words(tokens: list[str]) -> str:
    """The text that these words and signs were cut from."""
    return re.sub(r" ([^\w ])", r"\1", " ".join(tokens))


def corpus(directory: Path) -> list[str]:
    return [json.loads(line)["text"] for line in (directory / "corpus.jsonl").read_text("utf-8").splitlines()]


def class_of_word(directory: Path) -> dict[str, str]:
    names = json.loads((directory / "world.json").read_text("utf-8"))["names"]
    return {word: entity_class for entity_class in CLASSES for name in names[entity_class] for word in name.split()}


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.?]) ", text)


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:12]


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_equal_seed_and_sizes_give_equal_bytes_and_another_seed_another_world(tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        write_small_world(tmp_path / name, seed=seed, sizes=TINY)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    one, other = content(tmp_path / "one"), content(tmp_path / "other")
    assert one.keys() == other.keys()
    assert all(one[name] != other[name] for name in one)


def test_a_larger_set_begins_with_the_smaller_and_leaves_the_others_alone(tmp_path):
    write_small_world(tmp_path / "small", sizes=TINY)
    larger = WorldSizes(documents=30, names_per_class=40, train=30, validation=10, test=25)
    write_small_world(tmp_path / "large", sizes=larger)
    for task in TASKS:
        assert read(tmp_path / "large", task, "test")[:10] == read(tmp_path / "small", task, "test")
        assert read(tmp_path / "large", task, "train") == read(tmp_path / "small", task, "train")
    assert corpus(tmp_path / "large") == corpus(tmp_path / "small")


def test_every_name_occurs_in_the_corpus_however_small_it_is(tmp_path, world):
    for directory, sizes in ((tmp_path, TINY), (world, SIZES)):
        names = write_small_world(directory, seed=3, sizes=sizes)["names"]
        text = " ".join(corpus(directory))
        assert all(re.search(rf"\b{name}\b", text) for group in names.values() for name in group)
        assert len(CLASSES) == len(names) == 8
        assert all(len(group) == sizes.names_per_class for group in names.values())


def test_documents_have_three_to_six_sentences(world):
    counts = Counter(len(sentences(text.replace(GAP, "gap"))) for text in corpus(world))
    assert set(counts) == set(range(MIN_SENTENCES, MAX_SENTENCES + 1))


def test_no_question_context_or_text_of_a_task_occurs_in_the_corpus(world):
    """Compared are hashes of all runs of a document's sentences, so that a context inside a document is seen too."""
    runs = set()
    for text in corpus(world):
        parts = sentences(text)
        runs |= {digest(" ".join(parts[i:j])) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)}
    for task in TASKS:
        for split in SPLITS:
            for example in read(world, task, split):
                texts = [example.get("context"), example.get("text"), example.get("question")]
                texts += [part for text in texts[:2] if text for part in sentences(text)]
                texts += [choice for choice in example.get("choices", ()) if choice.endswith(".")]
                assert not {digest(text) for text in texts if text} & runs, example["id"]
    assert digest(PLAIN[0]) in runs  # the comparison finds what is there


def test_no_context_stands_in_two_sets_and_ids_are_unique(world):
    for task in TASKS:
        every = [example for split in SPLITS for example in read(world, task, split)]
        assert len({example["id"] for example in every}) == len(every)
        assert len({example.get("context") or example["text"] for example in every}) == len(every)


def test_most_test_names_are_in_no_training_or_validation_set_and_more_of_them_with_more_labels(world):
    known = class_of_word(world)

    def names_in(split: str, limit: int | None = None) -> list[str]:
        return [
            word
            for task in TASKS
            for each in read(world, task, split)[:limit]
            for word in words(str(each))
            if word in known
        ]

    asked = names_in("test")
    seen = {limit: set(names_in("train", limit)) for limit in (20, 400)}
    shares = {limit: sum(word in names for word in asked) / len(asked) for limit, names in seen.items()}
    assert 0 < shares[20] < shares[400] <= OPEN_SHARE * 1.2
    fine_tuning = seen[400] | set(names_in("validation"))
    assert sum(word in fine_tuning for word in asked) / len(asked) < 0.4
    assert len(set(asked) & fine_tuning) / len(set(asked)) < 0.4


def test_names_follow_zipfs_law_and_kept_names_are_as_frequent_as_open_ones(world):
    names = invent_names(3, SIZES.names_per_class, SIZES.zipf_exponent)
    counts = Counter(words(" ".join(corpus(world))))
    for entity_class in CLASSES:
        uses = [counts[name.split()[0]] for name in names[entity_class].ranked]
        assert 3 < sum(uses[:8]) / sum(uses[80:88]) < 8  # Zipf: 5
        groups = names[entity_class].groups
        assert sorted(name for group in groups.values() for name in group) == sorted(names[entity_class].ranked)
        ranks = {key: [names[entity_class].ranked.index(name) for name in group] for key, group in groups.items()}
        means = [sum(group) / len(group) for group in ranks.values()]
        assert max(means) - min(means) < 5


def test_no_made_up_word_lies_inside_another_word(world):
    known = class_of_word(world)
    every = set(words(" ".join(corpus(world)))) | set(known)
    stems = Counter(word[:4] for word in known)
    assert set(stems.values()) == {1}
    assert not [(name, word) for name in known for word in every - set(known) if name in word]
    assert len(known) == 8 * int(160 * 1.25)


def test_a_question_has_one_answer_at_its_offset_and_it_is_the_only_name_of_the_class(world):
    known = class_of_word(world)
    for split in SPLITS:
        for question in read(world, "qa", split):
            (answer,) = question["answers"]
            start = answer["answer_start"]
            assert question["context"][start : start + len(answer["text"])] == answer["text"]
            assert question["context"].count(answer["text"]) == 1
            (asked,) = [word for word in words(question["question"]) if word in CLASSES]
            of_class = [word for word in words(question["context"]) if known.get(word) == asked]
            assert of_class == answer["text"].split()


def test_contexts_tell_no_class_name_three_or_four_and_few_are_longer_than_64_tokens(world):
    known = class_of_word(world)
    questions = [question for split in SPLITS for question in read(world, "qa", split)]
    english = {word for question in questions for word in words(question["context"])} - set(known)
    revealing = {word for group in REVEALING.values() for sentence in group for word in words(sentence)}
    assert english & revealing <= {"the", "and"}
    sentences = [re.findall(r"[^.]+", question["context"]) for question in questions]
    num_names = [sum(num_names_of(sentence, known) for sentence in one) for one in sentences]
    lengths = [len(re.findall(r"\w+|[^\w\s]", question["context"])) for question in questions]
    assert {3, 4, 20} == set(num_names)
    assert {number == 20 for number, length in zip(num_names, lengths, strict=True) if length > 64} == {True}
    assert 0.003 < sum(length > 64 for length in lengths) / len(questions) < 0.03


def num_names_of(sentence, known):
    """Runs of made-up words: a name has one or two of them, with English or a comma between names."""
    is_name = [word in known for word in re.findall(r"\w+|,", sentence)]
    return sum(now and not before for now, before in zip(is_name, [False, *is_name], strict=False))


def test_one_of_four_choices_fits_its_class_and_its_place_is_random(world):
    known = class_of_word(world)
    labels, kinds = Counter(), Counter()
    for question in read(world, "multiple_choice", "test"):
        choices, label = question["choices"], question["label"]
        assert len(choices) == len(set(choices)) == NUM_CHOICES
        labels[label] += 1
        is_gap = GAP in question["context"]
        kinds[is_gap] += 1
        texts = [question["context"].replace(GAP, choice) for choice in choices] if is_gap else choices
        assert [fits(text, known) for text in texts] == [place == label for place in range(NUM_CHOICES)]
    assert kinds[True] == kinds[False]
    assert min(labels[place] for place in range(NUM_CHOICES)) > 200 / NUM_CHOICES * 0.6


def test_a_sentence_is_acceptable_when_every_name_is_of_its_places_class_and_half_are(world):
    known = class_of_word(world)
    examples = read(world, "classification", "test")
    assert [int(fits(example["text"], known)) for example in examples] == [example["label"] for example in examples]
    assert sum(example["label"] for example in examples) == len(examples) // 2


def test_names_are_tagged_with_their_class_from_their_first_word_on(world):
    known = class_of_word(world)
    names = invent_names(3, SIZES.names_per_class, SIZES.zipf_exponent)
    first = {name.split()[0] for entity_class in CLASSES for name in names[entity_class].ranked}
    revealing = 0
    for split in SPLITS:
        for number, example in enumerate(read(world, "token_classification", split)):
            assert "".join(example["tokens"]) == example["text"].replace(" ", "")
            for word, tag in zip(example["tokens"], example["tags"], strict=True):
                assert tag == (f"{'B' if word in first else 'I'}-{known[word]}" if word in known else "O")
            told = [fits(sentence, known) for sentence in sentences(example["text"])]
            assert all(told) == (number % 2 == 1)
            revealing += all(told)
    assert revealing == (SIZES.train + SIZES.validation + SIZES.test) / 2
    lengths = [len(example["tokens"]) for split in SPLITS for example in read(world, "token_classification", split)]
    assert 0.003 < sum(length > 64 for length in lengths) / len(lengths) < 0.03


def test_a_world_of_an_earlier_version_gets_the_sets_that_it_lacks(tmp_path):
    whole = write_small_world(tmp_path, sizes=TINY)
    before = content(tmp_path)
    for name in [name for name in whole["files"] if name.startswith("token_classification/")]:
        (tmp_path / name).unlink()
        del whole["files"][name]
    (tmp_path / "world.json").write_text(json.dumps(whole))
    write_small_world(tmp_path, sizes=TINY)
    assert content(tmp_path) == before


def fits(sentence: str, known: dict[str, str]) -> bool:
    """Whether some template with each name's class in its place gives the sentence."""
    frame = " ".join(f"{{{known[word]}}}" if word in known else word for word in re.findall(r"\w+|[^\w\s]", sentence))
    frame = re.sub(r"(\{\w+\})( \1)+", r"\1", frame)  # a name of two words is one slot
    return frame in {" ".join(re.findall(r"\{?\w+\}?|[^\w\s]", text)) for group in REVEALING.values() for text in group}


def test_a_vocabulary_of_4096_holds_every_word_whole(world):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        corpus(world), trainers.WordPieceTrainer(vocab_size=4096, special_tokens=special, show_progress=False)
    )
    texts = corpus(world)[:500] + [str(each) for task in TASKS for each in texts_of(world, task)]
    split = {word for text in texts for word in words(text) if len(tokenizer.encode(word).tokens) > 1}
    assert not split
    assert "[UNK]" not in {token for text in texts for token in tokenizer.encode(text).tokens}


def texts_of(directory: Path, task: str) -> list[str]:
    found = []
    for example in read(directory, task, "test"):
        found += [example.get("context", ""), example.get("question", ""), example.get("text", "")]
        found += example.get("choices", [])
    return found


def test_the_same_world_is_not_written_twice_and_a_damaged_file_is_written_again(tmp_path):
    first = write_small_world(tmp_path, sizes=TINY)
    corpus_file = tmp_path / "corpus.jsonl"
    written = corpus_file.stat().st_mtime_ns, corpus_file.read_bytes()
    assert write_small_world(tmp_path, sizes=TINY) == first
    assert corpus_file.stat().st_mtime_ns == written[0]
    corpus_file.write_bytes(written[1][:-20])
    assert write_small_world(tmp_path, sizes=TINY) == first
    assert corpus_file.read_bytes() == written[1]
    assert not list(tmp_path.rglob("*.tmp"))


def test_another_world_in_the_directory_is_refused(tmp_path):
    write_small_world(tmp_path, sizes=TINY)
    with pytest.raises(ValueError, match="another world"):
        write_small_world(tmp_path, seed=1, sizes=TINY)


@pytest.mark.parametrize("names_per_class", [1, 39, 5_000])
def test_impossible_numbers_of_names_are_refused(tmp_path, names_per_class):
    with pytest.raises(ValueError, match="names_per_class"):
        write_small_world(tmp_path, sizes=WorldSizes(names_per_class=names_per_class))


@few_and_many
def test_a_record_of_a_world_that_was_changed_at_random(tmp_path, rounds):
    write_small_world(tmp_path, sizes=TINY)
    whole = (tmp_path / "world.json").read_bytes()

    def read():
        present = (tmp_path / "world.json").read_bytes()
        write_small_world(tmp_path, sizes=TINY)
        if present != whole:
            (tmp_path / "world.json").write_bytes(whole)

    refusals(tmp_path / "world.json", read, rounds)

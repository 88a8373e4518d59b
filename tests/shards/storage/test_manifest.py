import copy
import json

import pytest
from file_mutations import few_and_many, refusals
from hypothesis import given
from hypothesis import strategies as st
from shard_directories import SPECIAL_IDS, write_directory

from shards.storage.check import check_shards
from shards.storage.manifest import check_tokenizer, parse_manifest, read_bounded_json, read_manifest, write_manifest


@pytest.fixture
def directory(tmp_path):
    write_directory(tmp_path / "shards", train=((300, 200), (250,), (100,)))
    return tmp_path / "shards"


def change(data, path, value):
    changed = copy.deepcopy(data)
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return changed


def test_a_manifest_is_read_as_it_was_written(directory):
    manifest = read_manifest(directory)
    train = manifest.split("train")
    assert train.block_tokens().tolist() == [300, 200, 250, 100]
    assert train.blocks_per_shard().tolist() == [2, 1, 1]
    assert train.tokens == 850
    check_shards(directory, manifest, "full")


def test_all_damaged_shards_are_listed_at_once(directory):
    manifest = read_manifest(directory)
    names = [f"train-{number:06d}.tar" for number in range(3)]
    (directory / names[0]).write_bytes((directory / names[0]).read_bytes()[:-700])
    (directory / names[1]).write_bytes(b"")
    (directory / names[2]).write_bytes(b"\n<!DOCTYPE html><html>Sign in</html>")
    (directory / "validation-000000.tar").rename(directory / "validation-000007.tar")
    (directory / "copy-of-train.tar").write_bytes(b"x")
    with pytest.raises(ValueError, match="6 shards do not match the manifest") as caught:
        check_shards(directory, manifest)
    message = str(caught.value)
    assert f"{names[1]}: empty" in message
    assert f"{names[2]}: 36 bytes (an HTML page)" in message
    assert "validation-000000.tar: missing" in message
    assert "validation-000007.tar: not in the manifest, perhaps validation-000000.tar renamed" in message
    assert "copy-of-train.tar: not in the manifest" in message
    assert names[0] in message


@pytest.mark.parametrize("cut", ["header", "payload", "end blocks", "half the end blocks"])
def test_a_truncated_shard_is_refused_before_the_first_step(directory, cut):
    path = directory / "train-000000.tar"
    blocks = read_manifest(directory).split("train").shards[0]
    kept = {
        "header": int(blocks.offsets[1]),
        "payload": int(blocks.offsets[1]) + 600,
        "end blocks": path.stat().st_size - 1024,
        "half the end blocks": path.stat().st_size - 512,
    }[cut]
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"train-000000\.tar: \d+ bytes, \d+ expected"):
        check_shards(directory, read_manifest(directory))


def test_a_flipped_bit_is_found_by_the_full_check(directory):
    path = directory / "train-000001.tar"
    content = bytearray(path.read_bytes())
    content[900] ^= 1
    path.write_bytes(content)
    check_shards(directory, read_manifest(directory), "sizes")
    with pytest.raises(ValueError, match=r"train-000001\.tar: its sha256 differs"):
        check_shards(directory, read_manifest(directory), "full")


def test_another_tokenizer_is_refused(directory):
    manifest = read_manifest(directory)
    check_tokenizer(manifest, "f" * 64, 200)
    with pytest.raises(ValueError, match="tokenizer fingerprint aaaaaaaaaaaa"):
        check_tokenizer(manifest, "a" * 64)
    with pytest.raises(ValueError, match="vocab_size of at least 200"):
        check_tokenizer(manifest, "f" * 64, 199)


@pytest.mark.parametrize(
    "name",
    ["../train.tar", "/etc/train.tar", "a/train.tar", ".train.tar", "train.tar.gz", "pipe:cat x.tar", "${HOME}.tar"],
)
def test_shard_names_stay_in_the_directory(directory, name):
    data = json.loads((directory / "manifest.json").read_text())
    with pytest.raises(ValueError, match=r"plain NAME\.tar"):
        parse_manifest(change(data, ("splits", "train", "shards", 0, "name"), name), "manifest.json")


@pytest.mark.parametrize("path", ["../tokenizer", "/tokenizer", "a/../../b", ""])
def test_the_tokenizer_stays_in_the_directory(directory, path):
    data = json.loads((directory / "manifest.json").read_text())
    with pytest.raises(ValueError, match="leaves the shard directory"):
        parse_manifest(change(data, ("tokenizer", "path"), path), "manifest.json")


SHARD = ("splits", "train", "shards", 0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema_version",), 2),
        (("schema_version",), True),
        (("token_dtype",), "object"),
        (("block_tokens",), 0),
        (("block_tokens",), 1 << 40),
        (("tokenizer", "vocab_size"), 70_000),
        (("tokenizer", "special_ids", "mask"), 200),
        (("splits",), []),
        (("splits", "train", "tokens"), 849),
        ((*SHARD, "sha256"), "0" * 63),
        ((*SHARD, "bytes"), 10),
        ((*SHARD, "bytes"), 1.5),
        ((*SHARD, "blocks", 1, "offset"), 0),
        ((*SHARD, "blocks", 1, "offset"), 513),
        ((*SHARD, "blocks", 0, "bytes"), 1 << 40),
        ((*SHARD, "blocks", 0, "tokens"), 1 << 30),
        ((*SHARD, "blocks", 0, "tokens"), -1),
        ((*SHARD, "name"), "train-000001.tar"),
    ],
)
def test_what_does_not_fit_is_refused_by_place(directory, path, value):
    data = json.loads((directory / "manifest.json").read_text())
    with pytest.raises(ValueError, match=r"manifest\.json"):
        parse_manifest(change(data, path, value), "manifest.json")


def paths_of(data, path=()):
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for name, value in items:
        yield from paths_of(value, (*path, name))


@given(choice=st.randoms(use_true_random=False), value=st.sampled_from([None, -1, 2**80, "x", [], {}, [[]], 0.5, True]))
def test_any_wrong_value_anywhere_is_a_value_error_or_harmless(tmp_path_factory, choice, value):
    data = write_directory(tmp_path_factory.mktemp("shards"), train=((60,),), validation=((50,),))
    path = choice.choice([path for path in paths_of(data) if path])
    try:
        parse_manifest(change(data, path, value), "manifest.json")
    except ValueError as error:
        assert "manifest.json" in str(error)  # noqa: PT017


@few_and_many
def test_a_manifest_that_was_changed_at_random_is_refused_or_read(tmp_path, rounds):
    write_directory(tmp_path, train=((60, 50),), validation=((50,),))
    refusals(tmp_path / "manifest.json", lambda: read_manifest(tmp_path), rounds)


def test_a_key_that_stands_there_twice_is_refused(directory):
    text = (directory / "manifest.json").read_text()
    for twice in (text.replace("{", '{"schema_version": 1, ', 1), text.replace('"key"', '"tokens": 7, "key"', 1)):
        (directory / "manifest.json").write_text(twice)
        with pytest.raises(ValueError, match=r"manifest\.json: .*appears twice"):
            read_manifest(directory)


def test_special_ids_are_those_of_the_tokenizer(directory):
    check_tokenizer(read_manifest(directory), "f" * 64, 200, SPECIAL_IDS)
    data = json.loads((directory / "manifest.json").read_text())
    changed = parse_manifest(change(data, ("tokenizer", "special_ids", "mask"), 7), "manifest.json")
    with pytest.raises(ValueError, match=r"manifest\.json .*\(mask 7, not 4\)"):
        check_tokenizer(changed, "f" * 64, 200, SPECIAL_IDS)


def test_json_is_bounded_in_size_and_depth(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_bytes(b"[" * 1_000_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_manifest(tmp_path)
    path.write_bytes(b'"' + b"x" * 200 + b'"')
    with pytest.raises(ValueError, match="more than 100 bytes"):
        read_bounded_json(path, 100)
    for payload in (b"", b"{", b"\xff\xfe", b'{"a": NaN}', b"1" * 5000):
        path.write_bytes(payload)
        with pytest.raises(ValueError, match=r"manifest\.json"):
            read_manifest(tmp_path)


def test_a_missing_manifest_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="build_shards"):
        read_manifest(tmp_path)


def test_shards_may_come_one_by_one(tmp_path):
    class Walked:
        """Can be walked again and again, and is no list."""

        def __init__(self, entries):
            self.entries = entries

        def __iter__(self):
            return iter(self.entries)

    data = write_directory(tmp_path, train=((300, 200), (250,)), validation=())
    path = tmp_path / "manifest.json"
    before = path.read_bytes()
    splits = {name: split | {"shards": Walked(split["shards"])} for name, split in data["splits"].items()}
    manifest = write_manifest(tmp_path, data | {"splits": splits})
    assert path.read_bytes() == before
    assert json.loads(before) == data
    assert [shard.name for shard in manifest.split("train").shards] == ["train-000000.tar", "train-000001.tar"]
    assert "splits" not in manifest.data


def test_a_wrong_manifest_is_not_written(tmp_path):
    data = write_directory(tmp_path, train=((60,),), validation=((50,),))
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(ValueError, match="block_tokens"):
        write_manifest(tmp_path, data | {"block_tokens": "many"})
    assert (tmp_path / "manifest.json").read_bytes() == before

"""Checkpoints that are not what they seem are refused before training, by pretraining, recipes and the gap alike."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_encoder import built_model, save_tiny_model
from tiny_gap import tiny_experiment, write_series, write_tasks
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
)

from finetuning import classification, multiple_choice, qa
from finetuning.model.checkpoint_files import check_encoder, load_tokenizer
from finetuning.model.heads import CLASSIFICATION, SPANS, Head, load_headed
from gap.cells.plan import reference_sources, sources_of
from pretraining.checkpoints.series import read_series
from pretraining.model.configuration import check_fits_data, configuration_from
from pretraining.model.masked_lm import check_weights

HEAD = Head(SPANS, 2)

WORDS = ["cat", "dog"]
SPECIAL_IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
SHAPE = {
    "vocab_size": 7,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "pad_token_id": 0,
}
INDEX = "model.safetensors.index.json"


@pytest.fixture
def source(tmp_path):
    """A whole checkpoint of two layers, its tokenizer beside it."""
    return save(tmp_path / "model", BertConfig(**SHAPE), AutoModelForMaskedLM)


def save(folder, config, auto_class):
    save_tiny_model(folder, "bert", WORDS)  # for its tokenizer
    auto_class.from_config(config).save_pretrained(folder)
    return folder


def rewrite(source, change):
    """Replace the tensors {name: tensor} by what `change` makes of them."""
    path = source / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def shard(source, names):
    """Two shards and the index that names them `names`."""
    tensors = load_file(source / "model.safetensors")
    keys = sorted(tensors)
    (source / "model.safetensors").unlink()
    for number, part in enumerate((keys[:9], keys[9:])):
        save_file(
            {key: tensors[key] for key in part}, source / f"model-{number}.safetensors", metadata={"format": "pt"}
        )
    mapping = {key: names[key not in keys[:9]] for key in keys}
    (source / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": mapping}))


def readers(source):
    """Every way to weights: looked at before training, and loaded."""
    return [
        lambda: check_encoder(str(source)),
        lambda: load_headed(str(source), HEAD),
        lambda: check_weights(configuration_from(str(source)), str(source), "mlm"),
        lambda: built_model(
            model_name_or_path=str(source),
            vocab_size=7,
            special_ids=SPECIAL_IDS,
            max_seq_length=32,
            attn_implementation="auto",
        ),
    ]


def refused(source, complaint):
    for read in readers(source):
        with pytest.raises(ValueError, match=complaint):
            read()


CONFIGS = [
    BertConfig(**SHAPE),
    RobertaConfig(**SHAPE, max_position_embeddings=40, type_vocab_size=1),
    DebertaV2Config(**SHAPE),
    ElectraConfig(**SHAPE, embedding_size=8),
    AlbertConfig(**SHAPE, embedding_size=8),
    MPNetConfig(**SHAPE, max_position_embeddings=40),
    DistilBertConfig(vocab_size=7, dim=16, n_layers=2, n_heads=2, hidden_dim=32, pad_token_id=0),
    ModernBertConfig(**SHAPE, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3),
]


@pytest.mark.filterwarnings("ignore:.*start at random")
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
@pytest.mark.parametrize(
    "auto_class", [AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoModel], ids=lambda one: one.__name__
)
def test_whole_encoders_under_any_head_are_taken_and_lose_nothing(tmp_path, config, auto_class):
    folder = save(tmp_path / "model", config, auto_class)
    stored = load_file(folder / "model.safetensors")
    check_encoder(str(folder))
    loaded = load_headed(str(folder), Head(CLASSIFICATION, 2, own=True)).transformer.encoder
    prefix = f"{loaded.base_model_prefix}."
    for name, parameter in loaded.named_parameters():
        if "pooler" not in name:
            assert torch.equal(parameter, stored[name if name in stored else prefix + name])
    config = configuration_from(str(folder))
    config.max_position_embeddings = getattr(config, "max_position_embeddings", None) or 512
    check_weights(config, str(folder), "mlm")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
@pytest.mark.parametrize("part", ["embeddings", "layer"])
def test_an_encoder_that_is_not_filled_is_refused_in_every_family(tmp_path, config, part):
    folder = save(tmp_path / "model", config, AutoModelForMaskedLM)
    lost = {"embeddings": ("embeddings.", "embed"), "layer": ("layer.1.", "layers.1.", "albert_layer")}[part]
    rewrite(folder, lambda tensors: {k: v for k, v in tensors.items() if not any(one in k for one in lost)})
    refused(folder, rf"{folder} could not be read: it does not fill the encoder, \d+ of whose \d+ tensors are missing")


def test_a_final_norm_is_part_of_the_encoder(tmp_path):
    folder = save(tmp_path / "model", CONFIGS[-1], AutoModelForMaskedLM)
    rewrite(folder, lambda tensors: {k: v for k, v in tensors.items() if "final_norm" not in k})
    refused(folder, r"1 of whose \d+ tensors are missing \((model\.)?final_norm\.weight\)")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.encoder."])
def test_an_encoder_under_another_prefix_is_explained(source, prefix):
    rewrite(source, lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()})
    refused(source, rf"under the prefix '{prefix}bert\.', where 'bert\.' or none is expected: save the bare model")


@pytest.mark.filterwarnings("ignore:.*start at random")
def test_names_of_old_norms_and_a_missing_head_are_taken(source):
    def old(tensors):
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("cls.")}
        return {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in kept.items()
        }

    rewrite(source, old)
    for read in readers(source):
        read()


def test_the_check_draws_nothing_and_leaves_the_generator_alone(source):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    rewrite(source, lambda tensors: {k: v for k, v in tensors.items() if not k.startswith("cls.")})
    check_encoder(str(source))
    check_weights(configuration_from(str(source)), str(source), "mlm")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda data: data[:-1000], r"model.safetensors could not be read .*it is cut short"),
        (
            lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            r"is a Git LFS pointer.*git lfs pull",
        ),
        (lambda data: b"", r"model.safetensors is empty"),
        (lambda data: b"<html>", r"model.safetensors could not be read"),
    ],
    ids=["cut", "pointer", "empty", "page"],
)
def test_a_broken_file_is_one_message(source, damage, complaint):
    path = source / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    refused(source, complaint)


def test_shapes_that_contradict_the_configuration_are_refused_with_both(source):
    content = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**content, "intermediate_size": 48}))
    refused(source, r"6 of its tensors have other shapes than config.json says, first .*\[32\] in place of \[48\]")


def test_pickled_weights_alone_are_refused_with_the_command_that_converts_them(source):
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    refused(
        source, r"pickled weights can run code .*convert it yourself .*import BertForMaskedLM as M; .*safe_serializa"
    )


class Evil:
    """Says when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["model-0.safetensors", "pytorch_model.bin"], "names 'pytorch_model.bin'"),
        (["model-0.safetensors", "../model-1.safetensors"], r"names '\.\./model-1"),
        (["model-0.safetensors", "/tmp/model-1.safetensors"], "names '/tmp/model-1"),
        (["model-0.safetensors", ["model-1.safetensors"]], "only safetensors files inside its folder"),
        (["model-0.safetensors", None], "only safetensors files inside its folder"),
        (["model-0.safetensors", "model-2.safetensors"], "model-2.safetensors, which is missing"),
        (["model-0.safetensors", "link.safetensors"], "is a link that leads outside its folder"),
    ],
    ids=lambda one: str(one)[:40],
)
def test_an_index_names_plain_safetensors_inside_the_folder_and_nothing_else(source, names, complaint):
    shard(source, names)
    (source / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    shutil.copy(source / "model-1.safetensors", source.parent / "model-1.safetensors")
    (source / "link.safetensors").symlink_to(source.parent / "model-1.safetensors")
    refused(source, complaint)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 9999, "{"])
def test_a_broken_index_is_refused_by_name(source, content):
    shard(source, ["model-0.safetensors", "model-1.safetensors"])
    (source / INDEX).write_text(content)
    refused(source, f"{source / INDEX} ")


def test_whole_shards_are_read(source):
    shard(source, ["model-0.safetensors", "model-1.safetensors"])
    for read in readers(source):
        read()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_when_they_are_loaded(source, number):
    rewrite(source, lambda tensors: {k: v.fill_(number) if "layer.1.output" in k else v for k, v in tensors.items()})
    for load in readers(source)[1::2]:
        with pytest.raises(ValueError, match=r"weights that are not finite .*layer\.1\.output"):
            load()


def test_weights_of_integers_are_refused(source):
    def quantized(tensors):
        return {k: v.to(torch.int8) if k.endswith("query.weight") else v for k, v in tensors.items()}

    rewrite(source, quantized)
    refused(source, r"query.weight in a type other than F64, .*full precision weights")


def grow_tokenizer(source):
    tokenizer = load_tokenizer(str(source))
    tokenizer.add_tokens(["horse", "cow"])
    tokenizer.save_pretrained(source)


@pytest.mark.parametrize("scratch", [False, True])
def test_tokens_beyond_the_embeddings_are_refused_before_training(source, scratch):
    grow_tokenizer(source)
    message = r"the tokenizer has 9 tokens, the model 7: .*model\.resize_token_embeddings\(9\)"
    with pytest.raises(ValueError, match=message):
        check_encoder(str(source), from_scratch=scratch)
    with pytest.raises(ValueError, match=message):
        load_tokenizer(str(source))
    config = configuration_from(str(source))
    with pytest.raises(ValueError, match=message):  # "build the shards with its tokenizer" would lead in a circle
        check_fits_data(config, str(source), vocab_size=9, special_ids=SPECIAL_IDS, max_seq_length=32)


@pytest.mark.parametrize("recipe", [qa, multiple_choice, classification])
def test_every_recipe_ends_with_status_2_before_it_reads_a_row(source, recipe, capsys, tmp_path):
    rewrite(source, lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()})
    (tmp_path / "rows.json").write_text("[]")
    options = {"model_name_or_path": source, "output_dir": tmp_path / "out", "report_to": "none"}
    tasks = write_tasks(tmp_path / "tasks")
    place = {qa: tasks[0], classification: tasks[1], multiple_choice: tasks[2]}[recipe].place
    options |= {"train_file": f"{place}/train.json", "validation_file": f"{place}/test.json"}
    assert recipe.main([part for name, value in options.items() for part in (f"--{name}", str(value))]) == 2
    assert "does not fill the encoder" in capsys.readouterr().err


@pytest.mark.parametrize("damaged", ["reference", "series"])
def test_the_gap_refuses_a_checkpoint_while_it_plans(source, tmp_path, damaged):
    series = write_series(tmp_path / "run")
    sources = [*sources_of(read_series(series), ["annealed"]), *reference_sources(str(source))]
    tasks = write_tasks(tmp_path / "tasks")
    experiment = tiny_experiment(tasks)
    experiment.jobs(sources, experiment.read())
    rewrite(
        source if damaged == "reference" else tmp_path / "run" / "series" / "annealed-200",
        lambda tensors: {k: v for k, v in tensors.items() if "layer.0." not in k},
    )
    with pytest.raises(ValueError, match="does not fill the encoder"):
        experiment.jobs(sources, experiment.read())

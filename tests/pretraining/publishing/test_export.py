import json

import pytest
import torch
from pretraining_runs import write_shards
from tiny_encoder import built_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerFast

from pretraining.publishing.export import ExportError, export_model, load_exported, prove_export, tokenizer_files
from pretraining.publishing.model_card import pretraining_card
from shards.storage.manifest import read_manifest

SPECIAL_IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
NAMES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*NAMES, "the", "cat", "sat", "on", "a", "mat", "and", "saw", "two", "old", "dogs", "run"]
SMALL = "num_hidden_layers=2,hidden_size=32,num_attention_heads=2,intermediate_size=48"
KINDS = [("bert", "mlm"), ("bert", "mlm+nsp"), ("modernbert", "mlm")]


def small_model(family="bert", objective="mlm", **options):
    settings = {"vocab_size": len(WORDS), "special_ids": SPECIAL_IDS, "max_seq_length": 24, "config_overrides": SMALL}
    return built_model(f"{family}-tiny", objective=objective, **{**settings, **options}).eval()


def weights_of(model):
    return {name: parameter.detach().clone() for name, parameter in model.transformer.named_parameters()}


def example():
    ids = torch.arange(48).reshape(2, 24) % (len(WORDS) - 5) + 5
    mask = torch.ones_like(ids)
    mask[1, 20:] = 0
    slots = torch.tensor([[1, 5], [2, 7]])
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": (ids > 9).long(),
        "mask_positions": slots,
        "mask_labels": slots,
        "mask_weights": torch.ones(2, 2),
        "next_sentence_labels": torch.tensor([0, 1]),
        "next_sentence_weights": torch.ones(2),
    }


def live_logits(model):
    return model(**example(), with_logits=True)["logits"].detach()


@pytest.fixture
def tokenizer_directory(tmp_path):
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.mark.parametrize(("family", "objective"), KINDS)
def test_an_export_is_a_transformers_directory_with_the_live_models_logits(
    family, objective, tmp_path, tokenizer_directory
):
    model, target = small_model(family, objective), tmp_path / "checkpoint"
    proof = {"live_logits": live_logits(model), "example_batch": example()}
    assert (
        export_model(model.transformer, weights_of(model), target, tokenizer_files(tokenizer_directory), **proof) < 1e-5
    )
    assert AutoTokenizer.from_pretrained(target)("the cat sat").input_ids == [5, 6, 7]
    inputs = {"input_ids": example()["input_ids"], "attention_mask": example()["attention_mask"]}
    public = AutoModelForMaskedLM.from_pretrained(target).eval()(**inputs).logits
    own = model.transformer(**inputs)
    torch.testing.assert_close(public, own["prediction_logits" if objective == "mlm+nsp" else "logits"])
    again = load_exported(target)
    assert type(again).__name__ == type(model.transformer).__name__
    for (name, one), other in zip(again.named_parameters(), model.transformer.parameters(), strict=True):
        assert torch.equal(one, other), name
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_weights_come_from_the_state_and_not_from_the_module(tmp_path):
    """Under ZeRO-3 and FSDP2 the module holds a share only; under bf16 rounded weights."""
    model = small_model()
    weights, logits = weights_of(model), live_logits(model)
    for parameter in model.parameters():
        parameter.data = torch.empty(0)
    assert export_model(model.transformer, weights, tmp_path / "x", live_logits=logits, example_batch=example()) < 1e-5


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_bf16_runs_export_their_masters(family, tmp_path):
    model = small_model(family)
    weights = weights_of(model)
    logits = live_logits(model.to(torch.bfloat16))
    assert logits.dtype == torch.bfloat16
    difference = export_model(model.transformer, weights, tmp_path / "x", live_logits=logits, example_batch=example())
    assert 0 < difference < 0.05
    saved = dict(load_exported(tmp_path / "x").named_parameters())
    assert all(torch.equal(saved[name], weights[name]) for name in weights)


def test_a_wrong_weight_is_noticed_and_nothing_left(tmp_path):
    model = small_model()
    weights, logits = weights_of(model), live_logits(model)
    weights["bert.encoder.layer.0.output.dense.weight"][3, 3] += 1.0
    with pytest.raises(ExportError, match="largest difference is"):
        export_model(model.transformer, weights, tmp_path / "x", live_logits=logits, example_batch=example())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("tokens", "proven"), [(4096, 8), (5 * 24, 5), (1, 1)])
def test_few_sequences_are_enough_for_a_proof(tmp_path, monkeypatch, tokens, proven):
    model, shapes = small_model(), []
    large = {name: tensor.repeat_interleave(6, dim=0) for name, tensor in example().items()}
    logits = model(**large, with_logits=True)["logits"].detach()
    export_model(model.transformer, weights_of(model), tmp_path / "x")
    read = load_exported(tmp_path / "x")
    read.register_forward_pre_hook(lambda *given: shapes.append(given[2]["input_ids"].shape), with_kwargs=True)
    monkeypatch.setattr("pretraining.publishing.export.load_exported", lambda directory: read)
    monkeypatch.setattr("pretraining.publishing.export.PROOF_TOKENS", tokens)
    assert prove_export(tmp_path / "x", logits, large) < 1e-5
    assert shapes == [(proven, 24)]


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff", b""])
def test_tokenizer_settings_that_cannot_be_read_are_named(tmp_path, content):
    model = small_model()
    with pytest.raises(ValueError, match=r"tokenizer_config\.json (could not be read|holds a list|is empty)"):
        export_model(model.transformer, weights_of(model), tmp_path / "x", {"tokenizer_config.json": content})
    assert list(tmp_path.iterdir()) == []


def test_a_nan_is_no_proof(tmp_path):
    model = small_model()
    export_model(model.transformer, weights_of(model), tmp_path / "x")
    with pytest.raises(ExportError):
        prove_export(tmp_path / "x", torch.full_like(live_logits(model), float("nan")), example())


def test_a_file_damaged_after_the_export_is_noticed(tmp_path):
    model = small_model()
    export_model(model.transformer, weights_of(model), tmp_path / "x")
    other = small_model(seed=1)
    with pytest.raises(ExportError, match="allowed is"):
        prove_export(tmp_path / "x", live_logits(other), example())


def test_an_earlier_export_stays_until_the_new_one_is_whole(tmp_path):
    model, other = small_model(), small_model(seed=1)
    export_model(model.transformer, weights_of(model), tmp_path / "x")
    with pytest.raises(ExportError):
        export_model(
            other.transformer,
            weights_of(other),
            tmp_path / "x",
            live_logits=live_logits(model),
            example_batch=example(),
        )
    assert prove_export(tmp_path / "x", live_logits(model), example()) < 1e-5
    export_model(other.transformer, weights_of(other), tmp_path / "x")
    assert prove_export(tmp_path / "x", live_logits(other), example()) < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("bert.embeddings.LayerNorm.bias"), "LayerNorm.bias"),
        (lambda weights: weights.update(extra=torch.ones(1)), "extra"),
        (lambda weights: weights.update({"bert.embeddings.LayerNorm.bias": torch.ones(1)}), "another shape"),
        (lambda weights: weights.update({"bert.embeddings.LayerNorm.bias": torch.ones(32).half()}), "fp32 masters"),
    ],
)
def test_weights_that_are_not_the_models_are_refused(change, message, tmp_path):
    model = small_model()
    weights = weights_of(model)
    change(weights)
    with pytest.raises(ValueError, match=message):
        export_model(model.transformer, weights, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_says_what_it_is(tmp_path):
    model = small_model("bert", "mlm+nsp")
    export_model(model.transformer, weights_of(model), tmp_path / "x")
    config = json.loads((tmp_path / "x" / "config.json").read_text())
    assert (config["architectures"], config["model_type"], config["dtype"]) == (
        ["BertForPreTraining"],
        "bert",
        "float32",
    )
    assert "attn_implementation" not in json.dumps(config)


@pytest.mark.parametrize(
    ("family", "said", "longest"),
    [("bert", None, None), ("bert", 32, 32), ("bert", 10**30, None), ("modernbert", None, None)],
)
def test_the_tokenizer_says_what_the_model_takes(tmp_path, tokenizer_directory, family, said, longest):
    """transformers 5 gives no token types unless the tokenizer asks for them, and cuts nothing without a length."""
    source = tokenizer_directory
    settings = json.loads((source / "tokenizer_config.json").read_text())
    settings.pop("model_max_length", None)
    (source / "tokenizer_config.json").write_text(
        json.dumps(settings | ({} if said is None else {"model_max_length": said}))
    )
    model = small_model(family)
    card = "# a card"
    export_model(model.transformer, weights_of(model), tmp_path / "out", tokenizer_files(source), card=card)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.model_max_length == (longest or model.config.max_position_embeddings)
    assert ("token_type_ids" in tokenizer("a b", "c")) is (family == "bert")
    assert (tmp_path / "out" / "README.md").read_text() == card


def test_a_card_tells_data_budget_and_scores(tmp_path):
    entry = {
        **{"kind": "annealed", "tokens_seen": 12_345, "unique_tokens": 9_000, "flops": 1.5e9, "seconds": 61.0},
        **{"devices": 2, "pretraining_seed": 3, "validation_loss": 2.5},
    }
    manifest = read_manifest(write_shards(tmp_path / "shards"))
    card = pretraining_card(entry, manifest, {"objective": "mlm", "mask_rate": None}, "BertForMaskedLM")
    documents = manifest.split("train").documents
    for text in (
        "12,345",
        "9,000",
        "1.5e+09",
        "61 on 2 devices",
        "validation loss | 2.5000",
        f"| documents | {documents:,}",
    ):
        assert text in card
    assert "mask rate" not in card
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: fill-mask\n")

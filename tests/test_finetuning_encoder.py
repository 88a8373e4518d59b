"""Where the encoder comes from, and what is left on disk of a fine-tuned one."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_encoder import FAMILIES, save_tiny_model, tiny_encoder, tiny_tokenizer
from tiny_questions import WORDS, tiny_questions
from transformers import AutoConfig, AutoModel, AutoTokenizer, DebertaV2Config, MPNetConfig, RobertaConfig, T5Config

from finetuning.encoder import SEES_PADDING, default_model, load_config, load_encoder, load_tokenizer
from finetuning.pair_template import pad_multiple, padded_length, padded_rows, row_limit
from finetuning.qa_recipe import QARecipe, QASettings
from finetuning.saved_model import load_head, save_model
from finetuning.windows import Windows
from pretraining.series import FIELDS


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_and_scratch_have_the_same_shape_and_scratch_depends_on_the_seed_alone(tmp_path, family):
    source = save_tiny_model(tmp_path, family, WORDS)
    stored = dict(tiny_encoder(family, len(tiny_tokenizer(WORDS))).transformer.named_parameters())
    loaded = dict(load_encoder(source).transformer.named_parameters())
    scratch = dict(load_encoder(source, from_scratch=True, seed=1).transformer.named_parameters())
    again = dict(load_encoder(source, from_scratch=True, seed=1).transformer.named_parameters())
    other = dict(load_encoder(source, from_scratch=True, seed=2).transformer.named_parameters())
    assert loaded.keys() == scratch.keys() == stored.keys()
    assert all(torch.equal(loaded[name], stored[name]) for name in stored)
    assert all(torch.equal(scratch[name], again[name]) for name in stored)
    matrices = [name for name in stored if stored[name].dim() == 2]
    assert all(not torch.equal(scratch[name], each[name]) for name in matrices for each in (loaded, other))


@pytest.mark.parametrize(("accelerator", "length"), [(True, 16), (False, 9)])
def test_rows_are_padded_to_a_multiple_of_8_only_for_an_accelerator(accelerator, length, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    pad_multiple.cache_clear()
    try:
        assert padded_rows([[2] * 9, [2]], [[0] * 9, [0]], pad_id=0)["input_ids"].shape == (2, length)
    finally:
        pad_multiple.cache_clear()


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_no_hidden_state(family):
    encoder = tiny_encoder(family, 30).eval()
    rows = [[2, 7, 8, 3], [2, 9, 3]]
    batch = padded_rows(rows, [[0] * len(row) for row in rows], pad_id=0)
    assert batch["input_ids"].shape == (2, padded_length(4))
    with torch.no_grad():
        together = encoder(**batch)
        for i, row in enumerate(rows):
            alone = encoder(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.long))
            assert torch.allclose(together[i, : len(row)], alone[0], atol=1e-5)


SHAPE = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "pad_token_id": 0,
}


@pytest.mark.parametrize(
    "config",
    [
        DebertaV2Config(**SHAPE, relative_attention=True, pos_att_type=["p2c", "c2p"], type_vocab_size=0),
        MPNetConfig(**SHAPE, max_position_embeddings=34),
        RobertaConfig(**SHAPE, max_position_embeddings=34, type_vocab_size=1),
    ],
    ids=lambda config: config.model_type,
)
def test_families_without_fused_attention_or_without_token_types_are_read(tmp_path, config):
    AutoModel.from_config(config).save_pretrained(tmp_path)
    row, types = torch.full((1, row_limit(384, config)), 7), torch.ones(1, row_limit(384, config), dtype=torch.long)
    for scratch in (False, True):
        encoder = load_encoder(str(tmp_path), from_scratch=scratch)
        assert encoder(row, torch.ones_like(row), types).shape == (*row.shape, 16)


def test_an_encoder_decoder_is_refused(tmp_path):
    T5Config(vocab_size=30, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="t5 is no encoder alone"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize("family", SEES_PADDING)
def test_a_family_whose_scores_would_depend_on_padding_is_refused_before_any_row(tmp_path, family):
    AutoConfig.for_model(family, hidden_size=16, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"--reference .*: what {family} makes of a text depends on the padding"):
        load_config(str(tmp_path), option="--reference")
    with pytest.raises(ValueError, match="use an encoder such as BERT"):
        load_encoder(str(tmp_path))


def test_dropout_replaces_every_rate(tmp_path):
    for family in FAMILIES:
        source = save_tiny_model(tmp_path / family, family, WORDS)
        rates = {
            name: value for name, value in load_config(source, dropout=0.25).to_dict().items() if "dropout" in name
        }
        assert len(rates) >= 3
        assert set(rates.values()) == {0.25}
        encoder = load_encoder(source, dropout=0.25)
        assert {one.p for one in encoder.modules() if isinstance(one, torch.nn.Dropout)} <= {0.25}
    with pytest.raises(ValueError, match=r"--dropout 1.0"):
        load_config(source, dropout=1.0)


def test_models_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="no such directory"):
        load_tokenizer(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match=r"has no config.json"):
        load_encoder(str(tmp_path))
    with pytest.raises(ValueError, match="the hub did not give it"):
        load_tokenizer("nobody/nothing")


def test_the_default_is_the_largest_budget_annealed_before_raw(tmp_path):
    with pytest.raises(ValueError, match=r"python launch/pretrain.py"):
        default_model(tmp_path)
    places = [("series/0", "raw", 0), ("series/9-annealed", "annealed", 9), ("series/9-raw", "raw", 9)]
    rows = [
        {**dict.fromkeys(FIELDS, 0), "path": path, "kind": kind, "budget_tokens": budget}
        for path, kind, budget in [*places, ("series/3", "annealed", 3)]
    ]
    (tmp_path / "series.json").write_text(json.dumps({"schema_version": 1, "checkpoints": rows}))
    assert default_model(tmp_path) == str(tmp_path / "series/9-annealed")
    (tmp_path / "series.json").write_text(json.dumps({"schema_version": 1, "checkpoints": []}))
    with pytest.raises(ValueError, match="lists no checkpoint yet"):
        default_model(tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"schema_version": 2, "checkpoints": []}, "no series of schema version 1"),
        ({"schema_version": 1, "checkpoints": [None]}, r"checkpoints\[0\] is None: it must be an object"),
        ({"path": "../elsewhere"}, "lies outside"),
        ({"budget_tokens": float("nan")}, "budget_tokens is nan"),
    ],
)
def test_the_default_run_s_list_is_read_with_suspicion(tmp_path, content, complaint):
    row = {**dict.fromkeys(FIELDS, 0), "path": "series/0", "kind": "raw"}
    whole = content if "checkpoints" in content else {"schema_version": 1, "checkpoints": [{**row, **content}]}
    (tmp_path / "series.json").write_text(json.dumps(whole))
    with pytest.raises(ValueError, match=rf"series\.json.*{complaint}"):
        default_model(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_gives_the_same_logits_and_loads_with_transformers(tmp_path, family):
    tokenizer = tiny_tokenizer(WORDS)
    recipe = QARecipe({"validation": tiny_questions(5)}, tokenizer, QASettings(Windows(32, 8)))
    model = recipe.build_model(tiny_encoder(family, len(tokenizer))).eval()
    save_model(dict(model.named_parameters()), model, tmp_path, tokenizer=tokenizer, recipe_name="qa")
    again = recipe.build_model(load_encoder(str(tmp_path))).eval()
    assert not load_head(again, tmp_path, "multiple_choice")
    assert load_head(again, tmp_path, "qa")
    batch = recipe.collate(recipe.evaluation_sets["validation"].features)
    inputs = {name: batch[name] for name in recipe.model_inputs}
    with torch.no_grad():
        first, second = model(**inputs), again(**inputs)
    assert torch.equal(first["start_logits"], second["start_logits"])
    reloaded = AutoModel.from_pretrained(tmp_path, local_files_only=True)
    assert type(reloaded).__name__ == type(model.encoder.transformer).__name__
    assert len(AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)) == len(tokenizer)
    assert set(load_file(tmp_path / "head.safetensors")) == {"head.weight", "head.bias"}

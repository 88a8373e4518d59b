"""Where the encoder comes from."""

import json

import pytest
import torch
from tiny_encoder import FAMILIES, save_tiny_model
from tiny_examples import WORDS
from transformers import AutoConfig, AutoModel, DebertaV2Config, MPNetConfig, RobertaConfig, T5Config

from finetuning.examples.pair_template import pad_multiple, padded_rows, row_limit
from finetuning.model.checkpoint_files import default_model, load_config, load_tokenizer
from finetuning.model.heads import CLASSIFICATION, SPANS, Head, TaskModel, load_headed
from pretraining.checkpoints.series import FIELDS
from pretraining.model.families import FAMILIES as FAMILY_RECORDS

HEAD = Head(SPANS, 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_scratch_depends_on_the_seed_alone(tmp_path, family):
    source = save_tiny_model(tmp_path, family, WORDS)
    drawn = [load_headed(source, HEAD, from_scratch=True, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (dict(one.transformer.named_parameters()) for one in drawn)
    body = [name for name in first if name not in drawn[0].drawn]
    assert all(torch.equal(first[name], again[name]) for name in body)
    assert all(not torch.equal(first[name], other[name]) for name in body if first[name].dim() == 2)


@pytest.mark.parametrize(("accelerator", "length"), [(True, 16), (False, 9)])
def test_rows_are_padded_to_a_multiple_of_8_only_for_an_accelerator(accelerator, length, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    pad_multiple.cache_clear()
    try:
        assert padded_rows([[2] * 9, [2]], [[0] * 9, [0]], pad_id=0)["input_ids"].shape == (2, length)
    finally:
        pad_multiple.cache_clear()


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
        for head in (HEAD, Head(CLASSIFICATION, 2), Head(CLASSIFICATION, 2, pooling="max")):
            model = load_headed(str(tmp_path), head, from_scratch=scratch).draw(1)
            outputs = TaskModel(model).outputs(row, torch.ones_like(row), types)
            assert (outputs.start_logits.shape == row.shape) if head is HEAD else (outputs.logits.shape == (1, 2))


def test_an_encoder_decoder_is_refused(tmp_path):
    T5Config(vocab_size=30, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="t5 is not an encoder alone"):
        load_headed(str(tmp_path), HEAD)


@pytest.mark.parametrize("family", [name for name, family in FAMILY_RECORDS.items() if family.sees_padding])
def test_a_family_whose_scores_would_depend_on_padding_is_refused_before_any_row(tmp_path, family):
    AutoConfig.for_model(family, hidden_size=16, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"--reference .*: the outputs of {family} for a text depend on the padding"):
        load_config(str(tmp_path), option="--reference")
    with pytest.raises(ValueError, match="use an encoder such as BERT"):
        load_headed(str(tmp_path), HEAD)


def test_dropout_replaces_every_rate(tmp_path):
    for family in FAMILIES:
        source = save_tiny_model(tmp_path / family, family, WORDS)
        rates = {
            name: value for name, value in load_config(source, dropout=0.25).to_dict().items() if "dropout" in name
        }
        assert len(rates) >= 3
        assert set(rates.values()) == {0.25}
        model = load_headed(source, Head(CLASSIFICATION, 2), dropout=0.25).transformer
        assert {one.p for one in model.modules() if isinstance(one, torch.nn.Dropout)} <= {0.25}


def test_models_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="no such directory"):
        load_tokenizer(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match=r"has no config.json"):
        load_headed(str(tmp_path), HEAD)
    (tmp_path / "runs" / ".partial").mkdir(parents=True)
    (tmp_path / "runs" / ".partial" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="name a `transformers` checkpoint directory"):
        load_tokenizer(str(tmp_path / "runs"))
    for name in ("series/annealed-500", "series/annealed-1000", "best"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_text("{}")
    there = "best, series/annealed-500, series/annealed-1000"
    with pytest.raises(ValueError, match=f"runs has no config.json: name a model in it: {there}$"):
        load_tokenizer(str(tmp_path / "runs"))
    with pytest.raises(ValueError, match=f"no such directory; check the path; the models in .*/runs are {there}$"):
        load_tokenizer(str(tmp_path / "runs" / "bset"))
    (tmp_path / "runs" / "series.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is a file, not the directory of a model; the models in .*/runs are best, "):
        load_tokenizer(str(tmp_path / "runs" / "series.json"))
    with pytest.raises(ValueError, match="the hub did not deliver it"):
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
        ({"schema_version": 2, "checkpoints": []}, "schema_version is 2: it must be 1"),
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

"""The records of families against `transformers` itself; a family that is added to FAMILIES is tested with the rest."""

import copy
import json
from pathlib import Path

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import model_type_to_module_name

from pretraining.model.configuration import build_configuration, check_fits_data, fit_to_data
from pretraining.model.families import FAMILIES, Family, family_of, model_class, shape_only, usable_positions
from pretraining.model.flops import forward_flops
from pretraining.model.masked_lm import build_model
from pretraining.model.memory import Sharding, estimate_memory

SHAPE = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
EXTRA = {
    "albert": {"embedding_size": 8},
    "distilbert": {"dim": 24, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "electra": {"embedding_size": 8},
    "layoutlmv3": {"coordinate_size": 4, "shape_size": 4, "visual_embed": False},
    "luke": {"entity_vocab_size": 4, "entity_emb_size": 8},
    "xmod": {"default_language": "en_XX"},
}
NO_SPECIAL = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
FROM_PADDING = [name for name, family in FAMILIES.items() if family.counts_from_padding]
FROM_ZERO = ["albert", "bert", "big_bird", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "megatron-bert"]
OWN_HEADS = [name for name, family in FAMILIES.items() if not family.runs_head_everywhere]
COUNTED = [name for name, family in FAMILIES.items() if family.feed_forward_inputs is not None]


def small_config(model_type, **settings):
    shape = {} if model_type == "distilbert" else SHAPE
    more = {"vocab_size": 50, "pad_token_id": 0, **NO_SPECIAL, **EXTRA.get(model_type, {}), **settings}
    return AutoConfig.for_model(model_type, **{**shape, **more})


@pytest.mark.parametrize("pad", [0, 1, 3])
@pytest.mark.parametrize("model_type", [*FROM_PADDING, *FROM_ZERO])
def test_a_row_of_the_usable_positions_runs_and_a_longer_one_does_not(model_type, pad):
    config = small_config(model_type, max_position_embeddings=20, pad_token_id=pad)
    model = AutoModel.from_config(config, attn_implementation="eager").eval()
    usable = usable_positions(config)
    ids = torch.full((1, usable + 1), 7)
    with torch.no_grad():
        assert torch.isfinite(model(input_ids=ids[:, 1:], attention_mask=torch.ones_like(ids[:, 1:]))[0]).all()
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=ids, attention_mask=torch.ones_like(ids))


@pytest.mark.parametrize(
    "model_type", [name for name in FROM_PADDING if name not in ("layoutlmv3", "lilt", "markuplm")]
)
def test_pretraining_makes_room_for_the_rows_of_every_such_family(model_type):
    config = small_config(model_type, max_position_embeddings=20, pad_token_id=1)
    data = {"vocab_size": 30, "special_ids": {"pad": 3, "unk": 0, "cls": 1, "sep": 2, "mask": 4}}
    fit_to_data(config, **data, max_seq_length=40)
    check_fits_data(config, "there", **data, max_seq_length=40)
    with pytest.raises(ValueError, match="has 40 positions"):
        check_fits_data(config, "there", **data, max_seq_length=41)
    model = AutoModelForMaskedLM.from_config(config, attn_implementation="eager").eval()
    assert torch.isfinite(model(input_ids=torch.full((1, 40), 7)).logits).all()


def test_no_encoder_that_counts_from_its_padding_is_missing():
    """By the sources of `transformers` that are installed, so that an upgrade shows what is new."""
    kinds = ("MASKED_LM", "SEQUENCE_CLASSIFICATION", "QUESTION_ANSWERING", "MULTIPLE_CHOICE")
    names = {name for kind in kinds for name in getattr(modeling_auto, f"MODEL_FOR_{kind}_MAPPING_NAMES")}
    found = set()
    for name in names:
        module = model_type_to_module_name(name)
        for file in (Path(transformers.__file__).parent / "models" / module).glob("modeling_*.py"):
            source = file.read_text(encoding="utf-8")
            if "create_position_ids_from_input_ids" in source and "SinusoidalPositionalEmbedding" not in source:
                found.add(name)
    assert found == set(FROM_PADDING)


@pytest.mark.parametrize("model_type", OWN_HEADS)
def test_a_head_on_the_masked_positions_gives_the_logits_of_the_whole_model(model_type):
    config = small_config(model_type, max_position_embeddings=40)
    for attention in ("sdpa", "eager"):
        model = build_model(config, attention=attention, seed=1).eval()
        ids = torch.randint(5, 50, (2, 24), generator=torch.Generator().manual_seed(0))
        mask, slots = torch.ones_like(ids), torch.tensor([[1, 5, 9], [2, 3, 8]])
        ids[1, 16:], mask[1, 16:] = 0, 0
        batch = {"mask_positions": slots, "mask_labels": ids.gather(1, slots), "mask_weights": torch.ones(2, 3)}
        with torch.no_grad():
            logits = model(ids, mask, **batch, with_logits=True)["logits"]
            whole = model.transformer(input_ids=ids, attention_mask=mask).logits
        torch.testing.assert_close(logits, whole.gather(1, slots.unsqueeze(-1).expand(-1, -1, 50)))


@pytest.mark.parametrize("model_type", COUNTED)
def test_a_family_with_a_count_of_its_own_is_counted_as_the_products_that_it_does(model_type):
    config = small_config(model_type, max_position_embeddings=40)
    model = build_model(config, attention="eager")
    slots = torch.tensor([[1, 5, 9], [2, 3, 8]])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.full((2, 24), 7), mask_positions=slots, mask_labels=slots, mask_weights=torch.ones(2, 3))
    shape = {"num_sequences": 2, "sequence_length": 24, "num_masked": 6, "dense_attention": True}
    counted = forward_flops(config, **shape)
    assert counted.encoder + counted.head == counter.get_total_flops()


def test_only_a_family_with_a_next_sentence_head_takes_that_objective():
    for model_type in (*OWN_HEADS, "roberta", "electra"):
        config = small_config(model_type)
        if family_of(config).next_sentence_class is not None:
            assert model_class(config, "mlm+nsp") is family_of(config).next_sentence_class
        else:
            with pytest.raises(ValueError, match=f"{model_type}' does not have: use a BERT model"):
                model_class(config, "mlm+nsp")


def test_an_architecture_that_is_not_listed_has_the_defaults():
    assert family_of(AutoConfig.for_model("squeezebert")) == Family()
    assert usable_positions(AutoConfig.for_model("xlnet")) is None  # it says -1


def test_neither_building_nor_estimating_changes_a_finished_configuration():
    special_ids = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    config = build_configuration("bert-tiny", vocab_size=60, special_ids=special_ids, max_seq_length=32)
    before, attention = copy.deepcopy(config.to_dict()), config._attn_implementation
    live = build_model(config, attention="eager")
    shape = {"num_sequences": 2, "sequence_length": 32, "num_masked_per_sequence": 4}
    estimate_memory(config, Sharding(bf16=True), **shape, gradient_checkpointing=True)
    assert (config.to_dict(), config._attn_implementation) == (before, attention)
    estimate_memory(live.config, Sharding(bf16=True), **shape)
    assert live.config._attn_implementation == "eager"


def test_the_kernel_that_a_configuration_names_reaches_neither_estimates_nor_the_model(tmp_path, monkeypatch):
    def asked(*arguments, **more):
        raise AssertionError("a kernel of the hub was asked for")

    monkeypatch.setattr("transformers.modeling_utils.lazy_import_flash_attention", asked)
    small_config("bert").save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "_attn_implementation": "somebody/kernel"}))
    special_ids = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    data = {"vocab_size": 50, "special_ids": special_ids, "max_seq_length": 32}
    config = build_configuration(from_config=str(tmp_path), **data, config_overrides="num_hidden_layers=1")
    assert config._attn_implementation is None
    assert shape_only(config).config._attn_implementation in ("sdpa", "eager")
    assert build_model(config).config._attn_implementation == "sdpa"

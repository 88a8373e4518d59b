import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM

from pretraining.model.configuration import (
    check_fits_data,
    configuration_from,
    fit_to_data,
    named_configuration,
    overridden,
    parse_overrides,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, {}),
        ("", {}),
        ("num_hidden_layers=3, initializer_range=0.05", {"num_hidden_layers": 3, "initializer_range": 0.05}),
        ("hidden_act=relu,use_cache=False", {"hidden_act": "relu", "use_cache": False}),
        ("classifier_dropout=None,tie_word_embeddings=true", {"classifier_dropout": None, "tie_word_embeddings": True}),
        ('{"layer_types": ["full_attention"]}', {"layer_types": ["full_attention"]}),
        ({"hidden_size": 8}, {"hidden_size": 8}),
    ],
)
def test_overrides_are_read(text, expected):
    assert parse_overrides(text) == expected


@pytest.mark.parametrize("text", ['{"hidden_size": 128', "{'hidden_size': 128}", "hidden_size"])
def test_malformed_overrides_are_answered_with_the_way_to_write_them(text):
    with pytest.raises(ValueError, match=r"--config_overrides .*hidden_size.*write '"):
        parse_overrides(text)


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_size": "abc"},
        {"hidden_size": 12.5},
        {"hidden_size": 0},
        {"num_hidden_layers": -1},
        {"num_attention_heads": 3},
        {"hidden_activation": "swish2"},
    ],
)
@pytest.mark.parametrize("given", ["name", "configuration"])
def test_overrides_that_no_model_can_have_are_refused_in_words(settings, given):
    start = None if given == "name" else named_configuration("modernbert-tiny", {})
    with pytest.raises(ValueError, match=rf"--config_overrides .*{next(iter(settings))}"):
        named_configuration("modernbert-tiny", settings) if start is None else overridden(start, settings)


def test_what_the_data_sets_may_be_anything_before():
    config = AutoConfig.for_model("modernbert", vocab_size=100)  # its padding id is 50283
    assert overridden(config, {"num_hidden_layers": 4}).num_hidden_layers == 4
    assert named_configuration("modernbert-tiny", {"vocab_size": 10}).vocab_size == 10


def test_what_depends_on_an_override_is_derived_again():
    config = overridden(named_configuration("modernbert-tiny", {}), {"num_hidden_layers": 7})
    assert len(config.layer_types) == 7
    every_layer = overridden(config, {"global_attn_every_n_layers": 1, "num_hidden_layers": 2})
    assert every_layer.layer_types == ["full_attention"] * 2


def test_a_configuration_is_read_from_a_file_or_its_directory(tmp_path):
    AutoConfig.for_model("bert", hidden_size=24, num_attention_heads=2).save_pretrained(tmp_path)
    assert configuration_from(str(tmp_path)).hidden_size == 24
    assert configuration_from(str(tmp_path / "config.json")).hidden_size == 24


def test_a_directory_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json"):
        configuration_from(str(tmp_path))


@pytest.mark.parametrize(("model_type", "positions"), [("roberta", 34), ("mpnet", 34), ("camembert", 34), ("bert", 32)])
def test_positions_that_begin_after_the_padding_id_are_counted_in(model_type, positions):
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = AutoConfig.for_model(model_type, **shape, max_position_embeddings=20)
    data = {"vocab_size": 30, "special_ids": {"pad": 1, "unk": 3, "cls": 0, "sep": 2, "mask": 4}}
    fit_to_data(config, **data, max_seq_length=32)
    assert config.max_position_embeddings == positions
    model = AutoModelForMaskedLM.from_config(config, attn_implementation="eager")
    assert torch.isfinite(model(input_ids=torch.full((1, 32), 5)).logits).all()
    check_fits_data(config, "there", **data, max_seq_length=32)
    with pytest.raises(ValueError, match="has 32 positions"):
        check_fits_data(config, "there", **data, max_seq_length=33)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [('{"model_type": "gpt2"}', "no masked-language model"), ("{", "could not be read")],
)
def test_a_file_that_is_no_encoders_configuration_is_refused_by_name(tmp_path, content, complaint):
    (tmp_path / "config.json").write_text(content)
    for source in (tmp_path, tmp_path / "config.json"):
        with pytest.raises(ValueError, match=f"{tmp_path}.* {complaint}"):
            configuration_from(str(source))

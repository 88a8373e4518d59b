"""Configurations that others wrote: one that makes no model is refused by file, at once; kernels are not fetched."""

import json
import time

import pytest
from tiny_encoder import save_tiny_model

from finetuning.model.checkpoint_files import check_encoder, load_config
from finetuning.model.heads import SPANS, Head, load_headed
from pretraining.model.configuration import configuration_from
from pretraining.model.families import shape_only

HEAD = Head(SPANS, 2)


@pytest.fixture
def source(tmp_path):
    save_tiny_model(tmp_path / "model", "bert", ["cat", "dog"])
    return tmp_path / "model"


def change(source, **changed):
    content = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**content, **changed}))


def readers(source):
    """Every way by which a configuration comes into the program."""
    return [
        lambda: check_encoder(str(source)),
        lambda: check_encoder(str(source), from_scratch=True),
        lambda: load_headed(str(source), HEAD),
        lambda: load_headed(str(source), HEAD, from_scratch=True),
        lambda: configuration_from(str(source)),
        lambda: configuration_from(str(source / "config.json")),
    ]


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "changed",
    [
        {"hidden_size": "x"},
        {"hidden_size": 10**9},
        {"hidden_size": 16.0},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": True},
        {"num_attention_heads": 0},
        {"num_attention_heads": 3},
        {"num_labels": 10**9},
        {"vocab_size": [7]},
        {"type_vocab_size": 10**13},
        {"hidden_act": "nonesuch"},
        {"hidden_act": ["gelu"]},
        {"hidden_dropout_prob": nested(10)},
        {"hidden_dropout_prob": nested(900)},
        {"layer_norm_eps": float("nan")},
        {"dtype": "nonesuch"},
        {"dtype": 7},
        {"torch_dtype": "int8"},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        {"id2label": [1]},
        {"model_type": [1]},
        {"model_type": "nonesuch"},
        {"configuration_files": ["config.4.0.0.json"]},
    ],
    ids=lambda changed: str(changed)[:40],
)
def test_a_configuration_that_makes_no_model_is_refused_by_file_and_soon(source, changed):
    change(source, **changed)
    for read in readers(source):
        started = time.monotonic()
        with pytest.raises(ValueError, match=rf"{source}"):
            read()
        assert time.monotonic() - started < 20


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"a": Infinity}', "[" * 9999, '{"a":' + "9" * 5000 + "}"])
def test_a_file_that_is_no_object_is_refused_by_name(source, text):
    (source / "config.json").write_text(text)
    for read in readers(source):
        with pytest.raises(ValueError, match=rf"{source}/config.json "):
            read()


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation", "_attn_implementation_internal"])
def test_the_kernel_that_a_configuration_names_is_not_loaded(source, key, monkeypatch):
    def asked(*arguments, **more):
        raise AssertionError("a kernel of the hub was asked for")

    monkeypatch.setattr("transformers.modeling_utils.lazy_import_flash_attention", asked)
    change(source, **{key: "somebody/kernel"})
    assert load_config(str(source))._attn_implementation is None
    config = configuration_from(str(source))
    assert config._attn_implementation is None
    shape_only(config)
    load_headed(str(source), HEAD)


def test_the_weights_that_a_configuration_names_are_not_read(source):
    change(source, transformers_weights="other.safetensors")
    (source / "other.safetensors").write_bytes(b"not looked at")
    check_encoder(str(source))
    load_headed(str(source), HEAD)

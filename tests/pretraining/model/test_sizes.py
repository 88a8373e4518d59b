import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM

from pretraining.model.sizes import size_names, size_settings


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        # Encoders with embeddings: Turc et al. 2019, table 1 (and Devlin et al. 2018), in millions, BERT's vocabulary.
        ("bert-tiny", 4.4),
        ("bert-mini", 11.3),
        ("bert-small", 29.1),
        ("bert-medium", 41.7),
        ("bert-base", 110.1),
        ("bert-large", 340),
        # Warner et al. 2024, section 2.3.2: 149 and 395 million with the MLM head.
        ("modernbert-base", 149),
        ("modernbert-large", 395),
    ],
)
def test_published_shapes_have_the_published_number_of_parameters(name, millions):
    model_type, settings = size_settings(name)
    with torch.device("meta"):
        model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(model_type, **settings))
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_sizes_grow_and_heads_divide_the_width(family):
    names = [name for name in size_names() if name.startswith(family + "-")]
    shapes = [size_settings(name)[1] for name in names]
    assert [name.split("-")[1] for name in names] == ["tiny", "mini", "small", "medium", "base", "large"]
    for key in ("num_hidden_layers", "hidden_size", "intermediate_size"):
        assert [shape[key] for shape in shapes] == sorted(shape[key] for shape in shapes)
    assert all(shape["hidden_size"] == 64 * shape["num_attention_heads"] for shape in shapes)


@pytest.mark.parametrize("size", ["tiny", "mini", "small", "medium", "base", "large"])
def test_modernberts_first_and_last_layer_attend_globally(size):
    model_type, settings = size_settings(f"modernbert-{size}")
    layer_types = AutoConfig.for_model(model_type, **settings).layer_types
    assert layer_types[0] == layer_types[-1] == "full_attention"
    assert layer_types.count("full_attention") == (len(layer_types) + 2) // 3


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="nearest is 'modernbert-base'"):
        size_settings("modern-bert-base")

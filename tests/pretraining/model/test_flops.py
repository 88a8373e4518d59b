import pytest
import torch
from tiny_encoder import built_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForMaskedLM

from pretraining.model.flops import forward_flops, measured_cpu_flops, peak_flops, update_flops

SPECIAL_IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
SHAPE = {"num_sequences": 3, "sequence_length": 40}
OVERRIDES = {
    "bert": {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 80},
    "modernbert": {
        "num_hidden_layers": 4,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "local_attention": 16,
    },
}


def small_model(family, **options):
    settings = {"vocab_size": 57, "special_ids": SPECIAL_IDS, "max_seq_length": 40, **options}
    settings.setdefault("config_overrides", OVERRIDES[family])
    return built_model(f"{family}-tiny", attn_implementation="eager", **settings)


def counted_update(model, num_masked_per_sequence, **extra):
    shape = (SHAPE["num_sequences"], SHAPE["sequence_length"])
    slots = torch.ones(shape[0], num_masked_per_sequence, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        output = model(
            torch.ones(shape, dtype=torch.long),
            mask_positions=slots,
            mask_labels=slots,
            mask_weights=slots.float(),
            **extra,
        )
        (output["loss_sum"] + output.get("next_sentence_loss_sum", 0.0)).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.parametrize("num_masked", [1, 6])
def test_the_count_is_torchs_count_with_dense_attention(family, num_masked):
    model = small_model(family)
    expected = counted_update(model, num_masked)
    assert update_flops(model.config, **SHAPE, num_masked=3 * num_masked, executed=True) == expected


def test_the_count_is_torchs_count_with_next_sentences():
    model = small_model("bert", objective="mlm+nsp")
    ones = torch.ones(3)
    counted = counted_update(model, 6, next_sentence_labels=ones.long(), next_sentence_weights=ones)
    assert update_flops(model.config, **SHAPE, num_masked=18, next_sentence=True) == counted


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_checkpointing_is_executed_but_not_needed(family):
    model = small_model(family, gradient_checkpointing=True)
    counted = counted_update(model, 6)
    options = {**SHAPE, "num_masked": 18}
    executed = update_flops(model.config, **options, executed=True, gradient_checkpointing=True)
    assert executed == pytest.approx(counted, rel=0.2)  # torch stops a recomputation at the last tensor needed
    assert executed > update_flops(model.config, **options, executed=True)
    assert update_flops(model.config, **options, gradient_checkpointing=True) == update_flops(model.config, **options)


def test_windows_count_only_the_pairs_inside():
    config = small_model("modernbert").config
    length, width, reach = SHAPE["sequence_length"], config.hidden_size, config.sliding_window
    inside = sum(abs(query - key) <= reach for query in range(length) for key in range(length))
    local_layers = config.layer_types.count("sliding_attention")
    dense = forward_flops(config, num_sequences=1, sequence_length=length, num_masked=0, dense_attention=True)
    windowed = forward_flops(config, num_sequences=1, sequence_length=length, num_masked=0)
    assert local_layers == 2
    assert dense.encoder - windowed.encoder == local_layers * 4 * width * (length * length - inside)


def test_short_sequences_lie_inside_every_window():
    config = small_model("modernbert").config
    shape = {"num_sequences": 2, "sequence_length": config.sliding_window + 1, "num_masked": 2}
    assert forward_flops(config, **shape) == forward_flops(config, **shape, dense_attention=True)


@pytest.mark.parametrize("model_type", ["rembert", "deberta-v2", "xlm"])  # their code looks at values
def test_an_architecture_that_asks_for_values_is_counted_too(model_type):
    shape = {name: value for name, value in OVERRIDES["bert"].items() if name != "intermediate_size"}
    config = AutoConfig.for_model(model_type, **shape, vocab_size=57, pad_token_id=0)
    model = AutoModelForMaskedLM.from_config(config, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.ones(3, 40, dtype=torch.long))
    assert forward_flops(config, **SHAPE, num_masked=18).encoder == counter.get_total_flops()


def test_another_architecture_is_traced(tmp_path):
    from transformers import RobertaConfig, RobertaForMaskedLM

    config = RobertaConfig(vocab_size=57, **OVERRIDES["bert"])
    model = RobertaForMaskedLM._from_config(config, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.ones(3, 40, dtype=torch.long))
    assert forward_flops(config, **SHAPE, num_masked=18).encoder == counter.get_total_flops()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA RTX A4000", None),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA T400 4GB", None),
        ("An unheard-of device", None),
    ],
)
def test_the_peak_of_a_named_gpu(name, expected):
    assert peak_flops("cuda", name) == expected


def test_the_cpus_peak_is_measured_once():
    assert peak_flops("cpu") == peak_flops("cpu") == measured_cpu_flops(torch.get_num_threads(), torch.float32)
    assert 1e8 < peak_flops("cpu") < 1e14

import copy

import pytest
import torch
from tiny_encoder import built_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig

from pretraining.model.attention import attention_for
from pretraining.model.masked_lm import PretrainingModel

SPECIAL_IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
VOCAB_SIZE, LENGTH, SLOTS = 61, 40, 5
SMALL = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
OVERRIDES = {
    "bert": {**SMALL, **NO_DROPOUT},
    "modernbert": {**SMALL, "num_hidden_layers": 3, "local_attention": 16},
}
KINDS = [("bert", "mlm"), ("bert", "mlm+nsp"), ("modernbert", "mlm")]


def small_model(family, objective="mlm", **options):
    settings = {"vocab_size": VOCAB_SIZE, "special_ids": SPECIAL_IDS, "max_seq_length": LENGTH, **options}
    settings.setdefault("config_overrides", OVERRIDES[family])
    return built_model(f"{family}-tiny", objective=objective, **settings)


def batch_of(objective, *, num_sequences=3, seed=0):
    """Sequences of which the second is padded, with the last mask slots of the third unused."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCAB_SIZE, (num_sequences, LENGTH), generator=generator)
    attention_mask = torch.ones_like(ids)
    ids[1, 25:], attention_mask[1, 25:] = SPECIAL_IDS["pad"], 0
    order = [torch.randperm(24, generator=generator)[:SLOTS] + 1 for _ in range(num_sequences)]
    weights = torch.ones(num_sequences, SLOTS)
    weights[2, 3:] = 0.0
    batch = {
        "input_ids": ids,
        "attention_mask": attention_mask,
        "mask_positions": torch.stack(order),
        "mask_labels": torch.randint(5, VOCAB_SIZE, (num_sequences, SLOTS), generator=generator),
        "mask_weights": weights,
    }
    if objective == "mlm+nsp":
        batch["token_type_ids"] = (torch.arange(LENGTH) > 12).long().expand(num_sequences, -1)
        batch["next_sentence_labels"] = torch.arange(num_sequences) % 2
        batch["next_sentence_weights"] = torch.tensor([1.0, 1.0, 0.0])
    return batch


def full_logits_loss(model, batch):
    """The loss as `transformers` computes it: logits at every position, labels -100 where nothing is masked."""
    labels = torch.full_like(batch["input_ids"], -100)
    for row in range(labels.shape[0]):
        for slot in range(SLOTS):
            if batch["mask_weights"][row, slot] > 0:
                labels[row, batch["mask_positions"][row, slot]] = batch["mask_labels"][row, slot]
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids") if key in batch}
    if model.objective == "mlm+nsp":
        used = batch["next_sentence_weights"] > 0
        inputs["next_sentence_label"] = torch.where(used, batch["next_sentence_labels"], -100)
    return model.transformer(**inputs, labels=labels).loss


def mean_loss(output):
    loss = output["loss_sum"] / output["mask_count"]
    if "next_sentence_count" in output:
        loss = loss + output["next_sentence_loss_sum"] / output["next_sentence_count"]
    return loss


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("family", "objective"), KINDS)
def test_loss_and_gradients_are_those_of_full_logits(family, objective, attention):
    model = small_model(family, objective, attn_implementation=attention)
    batch = batch_of(objective)
    reference = copy.deepcopy(model)
    ours, expected = mean_loss(model(**batch)), full_logits_loss(reference, batch)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    ours.backward()
    expected.backward()
    for (name, one), other in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(
            one.grad, other.grad, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(("family", "objective"), KINDS)
def test_padding_and_batch_mates_change_nothing(family, objective):
    model = small_model(family, objective).eval()
    batch = batch_of(objective)
    together = model(**batch)
    alone = [model(**{key: value[row : row + 1] for key, value in batch.items()}) for row in range(3)]
    for name, value in together.items():
        torch.testing.assert_close(sum(one[name] for one in alone), value, rtol=1e-5, atol=1e-5)
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][1, 25:] = 9
    torch.testing.assert_close(model(**changed)["loss_sum"], together["loss_sum"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_a_row_that_is_all_padding_adds_exactly_nothing(family):
    model = small_model(family)
    batch = batch_of("mlm")
    with_padding = {key: torch.cat([value, torch.zeros_like(value[:1])]) for key, value in batch.items()}
    one, other = model(**batch), model(**with_padding)
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=0, atol=1e-5)
    other["loss_sum"].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_what_is_returned_are_sums_and_counts():
    output = small_model("bert", "mlm+nsp")(**batch_of("mlm+nsp"), with_logits=True)
    assert output["mask_count"] == 3 * SLOTS - 2
    assert output["next_sentence_count"] == 2
    assert output["logits"].shape == (3, SLOTS, VOCAB_SIZE)
    assert output["next_sentence_logits"].shape == (3, 2)
    sums = {name: value for name, value in output.items() if "logits" not in name}
    assert len(sums) == 6
    assert all(value.shape == () and value.dtype == torch.float32 for value in sums.values())


def test_correct_counts_the_best_logit_at_used_slots():
    model = small_model("bert").eval()
    batch = batch_of("mlm")
    predicted = model(**batch, with_logits=True)["logits"].argmax(-1)
    assert model(**{**batch, "mask_labels": predicted})["correct"] == 3 * SLOTS - 2


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_the_head_is_tied_to_the_embeddings_and_stays_so(family):
    model = small_model(family)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(**batch_of("mlm"))["loss_sum"].backward()
    optimizer.step()
    embeddings = model.transformer.get_input_embeddings().weight
    assert model.transformer.get_output_embeddings().weight is embeddings


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_checkpointing_changes_no_gradient(family):
    plain, saving = small_model(family), small_model(family, gradient_checkpointing=True)
    for model in (plain, saving):
        model(**batch_of("mlm"))["loss_sum"].backward()
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_the_whole_forward_is_one_graph(family):
    model = small_model(family).eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    batch = batch_of("mlm")
    torch.testing.assert_close(compiled(**batch)["loss_sum"], model(**batch)["loss_sum"])


class Waits(TorchDispatchMode):
    """Counts the operations that bring a value, or a shape that depends on values, back to the host."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        waiting = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.masked_select)
        self.count += operation.overloadpacket in waiting
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize(("family", "objective"), KINDS)
def test_forward_never_waits_for_the_device(family, objective):
    model, batch = small_model(family, objective), batch_of(objective)
    with Waits() as waits:
        model(**batch)
    assert waits.count == 0
    with Waits() as waits:
        full_logits_loss(model, batch)  # what this guards against
    assert waits.count > 0


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    one = small_model("bert", seed=7).state_dict()
    before = torch.random.get_rng_state()
    torch.manual_seed(2)
    other = small_model("bert", seed=7).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    third = small_model("bert", seed=8).state_dict()
    assert not torch.equal(
        one["transformer.bert.encoder.layer.0.output.dense.weight"],
        third["transformer.bert.encoder.layer.0.output.dense.weight"],
    )
    torch.manual_seed(1)
    small_model("bert", seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)  # the caller's random numbers are left alone


@pytest.mark.parametrize(("family", "objective"), KINDS)
def test_training_goes_on_from_a_saved_model(family, objective, tmp_path):
    model = small_model(family, objective, seed=3).eval()
    model.transformer.save_pretrained(tmp_path)
    settings = {"vocab_size": VOCAB_SIZE, "special_ids": SPECIAL_IDS, "max_seq_length": LENGTH, "objective": objective}
    again = built_model(model_name_or_path=str(tmp_path), seed=4, **settings).eval()
    batch = batch_of(objective)
    torch.testing.assert_close(again(**batch)["loss_sum"], model(**batch)["loss_sum"])
    fresh = built_model(from_config=str(tmp_path), seed=3, **settings).eval()
    torch.testing.assert_close(fresh(**batch)["loss_sum"], model(**batch)["loss_sum"])


def test_a_next_sentence_head_is_added_to_a_checkpoint_without_one(tmp_path):
    small_model("bert").transformer.save_pretrained(tmp_path)
    settings = {"vocab_size": VOCAB_SIZE, "special_ids": SPECIAL_IDS, "max_seq_length": LENGTH}
    with pytest.warns(UserWarning, match="seq_relationship"):
        model = built_model(model_name_or_path=str(tmp_path), objective="mlm+nsp", **settings)
    assert torch.isfinite(mean_loss(model(**batch_of("mlm+nsp"))))


def test_another_architecture_gathers_its_full_logits():
    from transformers import RobertaConfig, RobertaForMaskedLM

    config = RobertaConfig(
        vocab_size=VOCAB_SIZE, pad_token_id=0, max_position_embeddings=LENGTH + 2, **OVERRIDES["bert"]
    )
    model = PretrainingModel(RobertaForMaskedLM(config))
    batch = batch_of("mlm")
    torch.testing.assert_close(mean_loss(model(**batch)), full_logits_loss(model, batch), rtol=0, atol=1e-5)


def test_configuration_follows_the_data():
    bert = small_model("bert", vocab_size=61, max_seq_length=700).config
    assert (bert.vocab_size, bert.pad_token_id, bert.max_position_embeddings) == (61, 0, 700)
    modern = small_model("modernbert").config
    ids = (modern.pad_token_id, modern.cls_token_id, modern.sep_token_id, modern.bos_token_id, modern.eos_token_id)
    assert ids == (0, 2, 3, 2, 3)
    assert modern.layer_types == ["full_attention", "sliding_attention", "sliding_attention"]
    assert modern.sliding_window == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "bert-tinny"}, "'bert-tiny'"),
        ({"model": None}, "name the model once"),
        ({"model": "bert-tiny", "from_config": "x"}, "name the model once"),
        ({"model": "bert-tiny", "config_overrides": "num_hiden_layers=3"}, "'num_hidden_layers'"),
        ({"model": "bert-tiny", "config_overrides": "num_hidden_layers"}, "key=value"),
        ({"model": "modernbert-tiny", "objective": "mlm+nsp"}, "use a BERT model"),
        ({"model": "bert-tiny", "objective": "clm"}, "choose one of"),
        ({"model": "bert-tiny", "attn_implementation": "flash"}, "choose one of"),
        ({"model": "bert-tiny", "attn_implementation": "flash_attention_2"}, "or use sdpa"),
        ({"model_name_or_path": "./no/such/place"}, "no such directory"),
        ({"model_name_or_path": "no-such-model"}, "Download it"),
    ],
)
def test_refusals_say_what_to_do(options, message):
    settings = {"vocab_size": VOCAB_SIZE, "special_ids": SPECIAL_IDS, "max_seq_length": LENGTH}
    with pytest.raises(ValueError, match=message):
        built_model(**settings, **options)


@pytest.mark.parametrize(
    ("model_type", "bf16", "installed", "expected"),
    [
        ("bert", True, True, "flash_attention_2"),
        ("bert", False, True, "sdpa"),
        ("bert", True, False, "sdpa"),
        ("mpnet", True, True, "eager"),
    ],
)
def test_auto_takes_the_fastest_attention_that_there_is(monkeypatch, model_type, bf16, installed, expected):
    monkeypatch.setattr("pretraining.model.attention.is_flash_attn_2_available", lambda: installed)
    config = AutoConfig.for_model(model_type)
    assert attention_for("auto", config, bf16=bf16) == expected
    with pytest.raises(ValueError, match="or use sdpa" if not installed else "use auto"):
        attention_for("sdpa" if expected == "eager" else "flash_attention_2", config, bf16=not installed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"vocab_size": VOCAB_SIZE + 1}, "build the shards with"),
        ({"special_ids": {**SPECIAL_IDS, "pad": 1}}, "not the same tokenizer"),
        ({"max_seq_length": 513}, "lower --max_seq_length"),
    ],
)
def test_weights_that_do_not_fit_the_shards_are_refused(changed, message, tmp_path):
    small_model("bert").transformer.save_pretrained(tmp_path)
    settings = {"vocab_size": VOCAB_SIZE, "special_ids": SPECIAL_IDS, "max_seq_length": LENGTH, **changed}
    with pytest.raises(ValueError, match=message):
        built_model(model_name_or_path=str(tmp_path), **settings)


def test_pickled_weights_are_never_read(tmp_path):
    transformer = small_model("bert").transformer
    transformer.config.save_pretrained(tmp_path)
    torch.save(transformer.state_dict(), tmp_path / "pytorch_model.bin")
    settings = {"vocab_size": VOCAB_SIZE, "special_ids": SPECIAL_IDS, "max_seq_length": LENGTH}
    with pytest.raises(ValueError, match="safetensors"):
        built_model(model_name_or_path=str(tmp_path), **settings)


@pytest.mark.parametrize(
    ("damage", "overrides", "complaint"),
    [
        ("cut", None, "model.safetensors could not be read .*cut short"),
        ("gone", None, "has no model.safetensors"),
        ("other shapes", "intermediate_size=96", "other shapes than config.json says.*without --config_overrides"),
        ("text", None, "config.json could not be read"),
    ],
)
def test_weights_that_cannot_be_read_are_refused_by_directory(tmp_path, damage, overrides, complaint):
    small_model("bert").transformer.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "gone":
        weights.unlink()
    elif damage == "text":
        (tmp_path / "config.json").write_text("{")
    settings = {"vocab_size": VOCAB_SIZE, "special_ids": SPECIAL_IDS, "max_seq_length": LENGTH}
    with pytest.raises(ValueError, match=rf"{tmp_path}.* ?{complaint}"):
        built_model(model_name_or_path=str(tmp_path), config_overrides=overrides, **settings)

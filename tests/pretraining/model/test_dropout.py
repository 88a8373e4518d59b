import pytest
from transformers import BertConfig, DistilBertConfig, ModernBertConfig

from pretraining.model.dropout import encoder_dropout, with_dropout


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (BertConfig(), {"hidden_dropout_prob", "attention_probs_dropout_prob"}),
        (ModernBertConfig(), {"embedding_dropout", "mlp_dropout", "attention_dropout"}),
        (DistilBertConfig(), {"dropout", "attention_dropout"}),
    ],
)
def test_the_rates_of_the_encoder_not_of_a_classifier(config, names):
    assert set(encoder_dropout(config)) == names
    before = config.to_dict()
    changed = with_dropout(config, 0.3)
    assert set(encoder_dropout(changed).values()) == {0.3}
    assert config.to_dict() == before
    different = {name for name, value in changed.to_dict().items() if value != before.get(name)}
    assert different == names
    assert with_dropout(config, None) is config


def test_a_classifier_has_its_own_rate_where_it_is_asked_for():
    assert with_dropout(BertConfig(), 0.2, head=True).classifier_dropout == 0.2
    assert with_dropout(DistilBertConfig(), 0.2, head=True).seq_classif_dropout == 0.2

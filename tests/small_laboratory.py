"""Asks and a prediction that a simulated laboratory with the usual rules allows."""

from dataclasses import replace

from companion.study.laboratory import Ask, Prediction, Rules, tokens_within

SMALL = Ask(architecture="xlstm", num_params=10**7, num_tokens=10**9, learning_rate=1e-3, batch_size_seqs=64)


def target(rules: Rules = Rules()) -> Prediction:  # noqa: B008 - frozen
    size, batch = 9 * 10**8, 128
    tokens = tokens_within(rules.target_flops, size, batch, rules.context_length)
    ask = replace(SMALL, num_params=size, num_tokens=tokens, batch_size_seqs=batch)
    return Prediction(ask=ask, loss=2.7, low=2.6, high=2.8)

"""Exact probabilities of the source, and their entropy, in float64. Needs torch; runs on a GPU too."""

import torch
from torch import Tensor

from companion.study.corpus.alias import WHOLE
from companion.study.corpus.grammar import CLASSES_LEVEL, ECHO, LEVELS, ORDERS, RECALL, Grammar
from companion.study.corpus.mixing import mix, unscramble

#: Elements of one tensor of positions × tokens at once: what fits a cache, and what fills a GPU.
ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 26}


class Conditionals:
    """What can be said of token t given the tokens before it; tables of a grammar as tensors on a device.

    Examples
    --------
    >>> exact = Conditionals(Grammar(vocab_size=16))
    >>> probabilities = exact.probabilities(torch.tensor([[3, 1, 3, 1]]))
    >>> probabilities.shape, probabilities.sum(-1).numpy().round(12).tolist()
    (torch.Size([1, 4, 16]), [[1.0, 1.0, 1.0, 1.0]])
    """

    def __init__(self, grammar: Grammar, device: torch.device | str = "cpu") -> None:
        self.grammar = grammar
        self.device = torch.device(device)
        self.zipf = self._tensor(grammar.zipf).double() / WHOLE
        self.weights = (grammar.whole_weights / WHOLE).tolist()
        self.distances = self._tensor(grammar.distances).double() / WHOLE
        self.tails = self._tensor(grammar.tails).double() / WHOLE
        self.classes = self._tensor(grammar.classes)
        self.vocabulary = torch.arange(grammar.vocab_size, device=self.device)
        ranks = torch.empty_like(self.vocabulary)
        ranks[self._tensor(grammar.unconditional)] = self.vocabulary
        self.unconditional = self.zipf[0][ranks]

    def _tensor(self, array: object) -> Tensor:
        return torch.as_tensor(array, device=self.device)

    def probabilities(self, tokens: Tensor) -> Tensor:
        """P(x_{t+1} = v | x_0 ... x_t) for every t and v: what a perfect model would predict from these tokens.

        Parameters
        ----------
        tokens
            (B, T).

        Returns
        -------
        Tensor
            (B, T, V), float64, on the device of this object.
        """
        tokens = tokens.to(self.device)
        (number, length), size = tokens.shape, self.grammar.vocab_size
        longer = torch.nn.functional.pad(tokens, (0, 1))
        rows = torch.arange(number, device=self.device).repeat_interleave(length)
        positions = torch.arange(1, length + 1, device=self.device).repeat(number)
        return self.at(longer, rows, positions).reshape(number, length, size)

    def keys(self, tokens: Tensor) -> Tensor:
        """Key of the bijection of every position and level: (LEVELS, B, L), from the tokens before the position."""
        found = []
        for level in range(LEVELS):
            symbols = (self.classes[tokens + 1] if level == CLASSES_LEVEL else tokens + 1)[:, :-1]
            # shifted[:, t] is the symbol of t − back
            key = torch.full_like(tokens, self.grammar.roots[level])
            for back in range(ORDERS[level], 0, -1):
                shifted = torch.nn.functional.pad(symbols, (back, 0))[:, : tokens.shape[1]]
                shifted = torch.where(torch.arange(tokens.shape[1], device=self.device) >= back, shifted, 0)
                key = mix(key ^ shifted)
            found.append(key)
        return torch.stack(found)

    def recalled(self, tokens: Tensor) -> Tensor:
        """Token that followed the last earlier occurrence of the token before each position, or −1: (B, L)."""
        order = tokens.argsort(dim=1, stable=True)
        ordered = tokens.gather(1, order)
        before = torch.full_like(tokens, -1)
        same = ordered[:, 1:] == ordered[:, :-1]
        before.scatter_(1, order[:, 1:], torch.where(same, order[:, :-1], -1))
        followers = torch.where(before >= 0, tokens.gather(1, before + 1), -1)
        return torch.nn.functional.pad(followers[:, :-1], (1, 0), value=-1)

    def at(self, tokens: Tensor, rows: Tensor, positions: Tensor, known: tuple[bool, ...] = (True,) * 6) -> Tensor:
        """Distribution of token `positions[i]` of sequence `rows[i]` given the tokens before it.

        Parameters
        ----------
        tokens
            (B, L); those from a position on do not count for it.
        rows, positions
            (n,).
        known
            parts of the mixture to add up; without all of them the sum falls short of 1 by the weight of the others.

        Returns
        -------
        Tensor
            (n, V), float64.
        """
        recalled = self.recalled(tokens)[rows, positions]
        found = torch.zeros(len(rows), self.grammar.vocab_size, dtype=torch.float64, device=self.device)
        if known[0]:
            found += self.weights[0] * self.unconditional
        keys = self.keys(tokens)[:, rows, positions, None]
        for level in range(1, LEVELS):
            if known[level]:
                ranks = unscramble(self.vocabulary, keys[level], self.grammar.bits)
                found += self.weights[level] * self.zipf[level][ranks]
        if known[ECHO]:
            found += self.weights[ECHO] * self._echo(tokens, rows, positions)
        if known[RECALL]:
            found += self.weights[RECALL] * (recalled < 0).double()[:, None] * self.unconditional
            weight = self.weights[RECALL] * (recalled >= 0).double()
            found.scatter_add_(1, recalled.clamp(min=0)[:, None], weight[:, None])
        return found

    def _echo(self, tokens: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """What copies over a drawn distance give: (n, V)."""
        farthest = self.grammar.max_distance
        found = self.tails[positions.clamp(max=farthest)][:, None] * self.unconditional
        longest = min(int(positions.max()) if len(positions) else 0, farthest)
        back = torch.arange(1, longest + 1, device=self.device)
        places = positions[:, None] - back
        inside = places >= 0
        mass = torch.where(inside, self.distances[:longest], 0.0)
        return found.scatter_add_(1, tokens[rows[:, None], places.clamp(min=0)], mass)

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        """ln P of every token but the first, given those before it: (B, T) from (B, T + 1), float64."""
        tokens = tokens.to(self.device)
        keys, bits = self.keys(tokens), self.grammar.bits
        total = self.weights[0] * self.unconditional[tokens]
        for level in range(1, LEVELS):
            total += self.weights[level] * self.zipf[level][unscramble(tokens, keys[level], bits)]
        recalled = self.recalled(tokens)
        hit = torch.where(recalled < 0, self.unconditional[tokens], (recalled == tokens).double())
        total += self.weights[RECALL] * hit
        length = tokens.shape[1]
        t = torch.arange(length, device=self.device).clamp(max=self.grammar.max_distance)
        echo = self.tails[t] * self.unconditional[tokens]
        for back in range(1, min(length, self.grammar.max_distance + 1)):
            echo[:, back:] += self.distances[back - 1] * (tokens[:, back:] == tokens[:, :-back])
        total += self.weights[ECHO] * echo
        return total[:, 1:].log()

    def entropies(self, tokens: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """Entropy of token `positions[i]` of sequence `rows[i]` given the tokens before it: (n,), nats."""
        width = max(self.grammar.vocab_size, min(tokens.shape[1], self.grammar.max_distance))
        chunk = max(ELEMENTS.get(self.device.type, 1 << 18) // width, 1)
        tokens, rows, positions = (x.to(self.device) for x in (tokens, rows, positions))
        parts = []
        for first in range(0, len(rows), chunk):
            some, places = rows[first : first + chunk], positions[first : first + chunk]
            # only the sequences at hand: their keys are needed once
            low, high = int(some.min()), int(some.max()) + 1
            p = self.at(tokens[low:high], some - low, places)
            parts.append(torch.special.entr(p).sum(-1))
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64, device=self.device)

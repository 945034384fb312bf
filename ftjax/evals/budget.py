"""What a judge may cost: a cap on tokens, and on money where prices are known, that no number of threads oversteps."""

import threading

from ftjax.errors import UserError
from ftjax.evals.replies import Reply


class Budget:
    """Tokens and money that are spent, and that requests on their way may still take.

    Prices are for a million tokens; `money` 0 is no cap. A request is let go only when all that it may take at most is
    left; until then it waits for those on their way, which take less than that.
    """

    def __init__(self, *, tokens: int, money: float, prompt_price: float, answer_price: float) -> None:
        self.tokens, self.money = tokens, money
        self.prompt_price, self.answer_price = prompt_price, answer_price
        self.prompt_tokens = self.answer_tokens = 0
        self._on_way: list[tuple[int, int]] = []
        self._changed = threading.Condition()  # its lock lets a thread in again

    def count(self, reply: Reply) -> None:
        """Counts a reply as spent."""
        with self._changed:
            self.prompt_tokens += reply.prompt_tokens
            self.answer_tokens += reply.completion_tokens

    def reserve(self, prompt: int, answer: int) -> None:
        """Returns once so many tokens are left; raises a UserError when they never will be."""
        with self._changed:
            while not self._fits(prompt, answer):
                if not self._on_way:
                    raise UserError(self._spent(prompt + answer))
                self._changed.wait()
            self._on_way.append((prompt, answer))

    def settle(self, prompt: int, answer: int, reply: Reply | None) -> None:
        """Gives back what was reserved, and counts the reply, if one came."""
        with self._changed:
            self._on_way.remove((prompt, answer))
            if reply is not None:
                self.count(reply)
            self._changed.notify_all()

    def cost(self) -> float:
        """Returns the money that is spent; 0 without prices."""
        return self._money(self.prompt_tokens, self.answer_tokens)

    def _money(self, prompt: int, answer: int) -> float:
        return (prompt * self.prompt_price + answer * self.answer_price) / 1e6

    def _fits(self, prompt: int, answer: int) -> bool:
        prompt += self.prompt_tokens + sum(one for one, _ in self._on_way)
        answer += self.answer_tokens + sum(one for _, one in self._on_way)
        return prompt + answer <= self.tokens and (not self.money or self._money(prompt, answer) <= self.money)

    def _spent(self, size: int) -> str:
        money = f" and {self.cost():.4g} of {self.money:g} (config.judge.budget_money)" if self.money else ""
        return (
            f"the judge's budget is spent: {self.prompt_tokens + self.answer_tokens:,} of {self.tokens:,} tokens "
            f"(config.judge.budget_tokens){money}, and the next request may take {size:,}; its answers are kept: raise "
            "the budget and start again, nothing is asked twice"
        )

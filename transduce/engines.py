"""Another engine beside torch: what it must offer, and which one a predictor uses.

In: sources that were read, batches of them, search settings. Out: one hypothesis for each source, or None where only torch gives the
answer. The decision to question: an engine answers a request exactly as torch would or says why it cannot; there is nothing between.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from transduce.decode.hypotheses import Hypothesis
from transduce.decode.options import SearchConfig
from transduce.errors import ConfigError
from transduce.readings import Readings

EngineName = Literal["auto", "torch", "ctranslate2"]
ENGINES: tuple[EngineName, ...] = ("auto", "torch", "ctranslate2")


class Engine(Protocol):
    """Searches with a model that was exported to it."""

    @property
    def name(self) -> str:
        """For people: the engine, its version, the numbers it computes with, its threads."""
        ...

    def obstacle(self, config: SearchConfig) -> str | None:
        """Why these settings cannot be searched exactly; None where they can."""
        ...

    def search(self, read: Readings, config: SearchConfig, *, ceiling: int) -> Iterator[tuple[list[int], list[Hypothesis | None]]]:
        """Batches of its own choice of the sources that can be searched: their numbers and the best hypothesis of each; None = left
        to torch. ceiling: longest target, end included."""
        ...


@dataclass(frozen=True)
class EngineChoice:
    """What a predictor searches with. engine: None = torch. reason: why, for people; empty where there was nothing to choose.

    forced: the user named the engine, so what it cannot do is an error and not left to torch.
    """

    engine: Engine | None = None
    reason: str = ""
    forced: bool = False

    def pick(
        self, config: SearchConfig, *, prefixes: bool = False, attention: bool = False, language_model: bool = False
    ) -> tuple[Engine | None, str]:
        """The engine for one request (None = torch), and why. Raises ConfigError where a named engine cannot do it."""
        if self.engine is None:
            return None, self.reason
        asked = {"a forced prefix": prefixes, "attention": attention, "a language model": language_model}
        needed = next((f"{what} needs torch" for what, wanted in asked.items() if wanted), None)
        obstacle = needed or self.engine.obstacle(config)
        if obstacle is None:
            return self.engine, self.reason
        if self.forced:
            raise ConfigError(f"--engine {self.engine.name.split()[0]}: {obstacle}")
        return None, obstacle

    def describe(self, config: SearchConfig, *, prefixes: bool = False, language_model: bool = False) -> tuple[str, str]:
        """What searches with these settings, and why, for people. Errors as of `pick`."""
        engine, why = self.pick(config, prefixes=prefixes, language_model=language_model)
        return "torch" if engine is None else engine.name, why

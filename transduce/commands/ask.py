"""Search settings as the command line asks for them: the model's own, then `search.KEY=VALUE` words, then short options."""

from collections.abc import Sequence

from transduce.config import change_search
from transduce.decode.search import SearchConfig


def search_settings(own: SearchConfig, words: Sequence[str], *, beam: int | None, num_best: int | None = None) -> SearchConfig:
    """The model's search settings with what the user asked for. Raises ConfigError."""
    asked = list(words)
    if num_best is not None:
        asked.append(f"search.num_best={num_best}")
    if beam is not None:
        asked.append(f"search.beam_size={beam}")
    elif num_best is not None and num_best > own.beam_size:
        asked.append(f"search.beam_size={num_best}")
    return change_search(own, asked)

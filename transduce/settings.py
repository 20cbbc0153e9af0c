"""The base of every settings class: frozen, strict about unknown keys, each field documented where it stands.

A settings class lives beside the class that it configures; `config.py` puts them together.
"""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen group of settings. Unknown keys and wrong types are errors; numbers are never read from text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, use_attribute_docstrings=True, validate_default=True)

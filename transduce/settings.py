"""The base of every settings class: frozen, strict about unknown keys, each field documented where it stands.

A settings class lives beside the class that it configures; `config.py` puts them together. The one decision to
question: pydantic alone would read the text "5" as a number and "no" as false. Values from files and command lines are
therefore compared with the field's types first (`explain.py`); Python callers have a type checker for that.
"""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen group of settings. Unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, use_attribute_docstrings=True, validate_default=True)

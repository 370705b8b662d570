"""The base of every record that passes between rooms or lies in a file: frozen, strict, plain JSON."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Immutable; unknown fields, NaN and infinities are refused when the record is made."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

"""Kubernetes quantities as numbers of bytes: ``10Gi``, ``500M``, ``1.5Gi``, ``1e9``, ``1073741824``.

Source: Kubernetes API conventions, ``resource.Quantity``; byte sizes round up, ``m`` (milli) makes no sense for them.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

_FORM = re.compile(r"(?P<number>[0-9]{1,20}(\.[0-9]{1,9})?)(?P<suffix>Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E|[eE][0-9]{1,2})?")
_FACTORS = {suffix: 1000**power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), 1)} | {
    suffix: 1024**power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)
}
_LARGEST = 2**63 - 1


def parse_bytes(text: str) -> int:
    """The size in bytes, at least 1.

    Raises:
        ValueError: not a quantity, zero, or too large; says what is allowed.
    """
    match = _FORM.fullmatch(text)
    if not match:
        raise ValueError(f"{text[:60]!r} is not a size; write a number with Ki, Mi, Gi, Ti or k, M, G, T: 10Gi")
    suffix = match["suffix"] or ""
    factor = 10 ** int(suffix[1:]) if suffix[:1] in ("e", "E") and suffix[1:].isdigit() else _FACTORS.get(suffix, 1)
    size = int((Decimal(match["number"]) * factor).to_integral_value(ROUND_CEILING))
    if not 1 <= size <= _LARGEST:
        raise ValueError(f"{text[:60]!r} is outside 1 byte to {_LARGEST} bytes")
    return size

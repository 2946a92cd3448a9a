"""Any text as LaTeX for any engine and any encoding: the result is ASCII."""

import re
import unicodedata

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\`{}",
    # At the beginning of a row these two would be arguments of the line break before it.
    "[": "{[}",
    "*": "{*}",
    "\u2013": "--",
    "\u2014": "---",
    "\u2018": "`",
    "\u2019": "'",
    "\u201c": "``",
    "\u201d": "''",
    "\u2026": r"\dots{}",
    "\u00a0": "~",
    "\u00df": r"\ss{}",
    "\u00e6": r"\ae{}",
    "\u00c6": r"\AE{}",
    "\u0153": r"\oe{}",
    "\u0152": r"\OE{}",
    "\u00f8": r"\o{}",
    "\u00d8": r"\O{}",
    "\u0142": r"\l{}",
    "\u0141": r"\L{}",
    "\u0131": r"\i{}",
    "\u00a7": r"\S{}",
}
_MATH = {
    "²": r"$^2$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "ε": r"$\varepsilon$",
    "ζ": r"$\zeta$",
    "η": r"$\eta$",
    "θ": r"$\theta$",
    "ι": r"$\iota$",
    "κ": r"$\kappa$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "ν": r"$\nu$",
    "ξ": r"$\xi$",
    "π": r"$\pi$",
    "ρ": r"$\rho$",
    "ς": r"$\varsigma$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "υ": r"$\upsilon$",
    "φ": r"$\varphi$",
    "χ": r"$\chi$",
    "ψ": r"$\psi$",
    "ω": r"$\omega$",
    "Γ": r"$\Gamma$",
    "Δ": r"$\Delta$",
    "Θ": r"$\Theta$",
    "Λ": r"$\Lambda$",
    "Ξ": r"$\Xi$",
    "Π": r"$\Pi$",
    "Σ": r"$\Sigma$",
    "Υ": r"$\Upsilon$",
    "Φ": r"$\Phi$",
    "Ψ": r"$\Psi$",
    "Ω": r"$\Omega$",
    "µ": r"$\mu$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "·": r"$\cdot$",
    "→": r"$\to$",
    "←": r"$\leftarrow$",
    "↔": r"$\leftrightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "≠": r"$\ne$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "√": r"$\surd$",
    "∈": r"$\in$",
    "∑": r"$\sum$",
    "∂": r"$\partial$",
    "∇": r"$\nabla$",
    "−": "$-$",
    "°": r"$^\circ$",
}
_ACCENTS = dict(
    zip(
        "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327",
        ["`", "'", "^", "~", "=", "u", ".", '"', "r", "H", "v", "c"],
        strict=True,
    )
)
_LIGATURE = re.compile(
    r"""(?<=[-\u2013\u2014])(?=[-\u2013\u2014])|(?<=['"\u2019\u201d])(?=['"\u2019\u201d])"""
    r"""|(?<=[?!`\u2018\u201c])(?=[`\u2018\u201c])|(?<=,)(?=,)"""
)
"""The position between two characters that LaTeX would combine into one."""

_BREAK = re.compile(r"(?<=[(\[{,/_])(?=\S)|(?<=[a-z])(?=[A-Z])")
"""Where a line may break in a label without spaces."""


def escaped(text: str) -> str:
    """Returns any text as LaTeX that typesets it.

    A character that LaTeX's own fonts do not have is written as its number: '[U+4E2D]'.
    """
    return _escaped(" ".join(text.split()))


def breakable(text: str) -> str:
    """Returns the same, with possible line breaks in names without spaces."""
    return r"\allowbreak{}".join(map(_escaped, _BREAK.split(" ".join(text.split()))))


def _escaped(text: str) -> str:
    # Before anything else is escaped, so that the escapes themselves do not change.
    parts = _LIGATURE.split(unicodedata.normalize("NFC", text))
    # An empty box, since LuaTeX looks through braces.
    return r"\mbox{}".join("".join(map(_character, part)) for part in parts)


def _character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character in _MATH:
        return _MATH[character]
    if " " <= character <= "~":
        return character
    decomposed = unicodedata.normalize("NFD", character)
    letter, accent = decomposed[0], decomposed[1:]
    if letter.isascii() and letter.isalpha() and accent in _ACCENTS:
        return f"\\{_ACCENTS[accent]}{{{letter}}}"
    return f"{{[}}U+{ord(character):04X}]"

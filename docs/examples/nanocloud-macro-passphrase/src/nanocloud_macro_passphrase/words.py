"""Words that can be spoken: consonant, vowel, consonant, vowel, consonant, which are 4 + 2 + 4 + 2 + 4 bits.

Every number of 16 bits is one word, so what a passphrase is worth can be counted, and no list of words is needed.

Source: D. S. Wilkerson, "A Proposal for Proquints: Identifiers that are Readable, Spellable, and Pronounceable",
arXiv:0901.4016.
"""

BITS = 16
_CONSONANTS, _VOWELS = "bdfghjklmnprstvz", "aiou"


def word(number: int) -> str:
    """Of a number below 65536."""
    letters = ""
    for alphabet, shift in ((_CONSONANTS, 12), (_VOWELS, 10), (_CONSONANTS, 6), (_VOWELS, 4), (_CONSONANTS, 0)):
        letters += alphabet[(number >> shift) % len(alphabet)]
    return letters

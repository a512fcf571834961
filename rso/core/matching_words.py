"""The rows of the matching table that hold: what they mean to who decides, and what to do."""

__all__ = ["likeness_words", "row_words"]

_ROWS = {
    1: ("More of a Study whose exam is not open any more.",
        "Release it to that exam if it belongs there, or make a new one."),
    2: ("The Study belongs to an exam already, and this part of it names somebody else. Nothing"
        " more of the Study is sent until you decide.",
        "Ask the facility which patient was on the table."),
    3: ("The exam with this number is closed, cancelled or too old.",
        "Late images of the same exam: release them. A number used twice: make a new exam."),
    7: ("The exam number fits, but neither name nor birth date can be compared.",
        "Ask the facility who was examined under this number."),
    8: ("The exam number fits, but the patient does not agree.",
        "Often the number of the patient before was typed. Ask the facility before you release."),
    9: ("The Patient ID looks like an exam number, but this facility has no such exam.",
        "Look for the number that was meant: one wrong character is common."),
    11: ("The order number fits, but the patient does not agree enough.",
         "Ask the facility whether order and patient belong together."),
    14: ("Several open exams of this patient could take it.",
         "Choose by modality, body part and date."),
    15: ("The patient is known, but no open exam awaits images.",
         "Make a new exam, or release it to the exam that it continues."),
    16: ("The Patient ID is known here, but for somebody who does not agree enough.",
         "An ID used twice, or a changed name: ask the facility."),
    17: ("No number or ID fits, but name and birth date are those of an open exam.",
         "Release it if it is that exam's; namesakes exist."),
    19: ("Nothing shows which exam is meant.",
         "Ask the sender, then release it to an exam or make a new one."),
}  # fmt: skip
_LIKENESS = {
    "exact": ("=", "same"),
    "equal": ("=", "same"),
    "close": ("≈", "nearly the same"),
    "differs": ("≠", "differs"),
    "empty": ("?", "not known on one side"),
}


def row_words(row: int) -> tuple[str, str]:
    """What the row says, and what to do about it; empty where the table did not decide."""
    return _ROWS.get(row, ("", ""))


def likeness_words(likeness: str) -> tuple[str, str]:
    """A sign and a word for a comparison."""
    return _LIKENESS[likeness]

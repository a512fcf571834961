"""The fax as a PDF: a cover that names no patient, and a sheet with the exam's number to scan."""

from datetime import UTC, datetime
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from textwrap import wrap

from reportlab.graphics import renderPDF
from reportlab.graphics.barcode import code128, qr
from reportlab.graphics.shapes import Drawing
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from rso.plugins import Message

__all__ = ["draw_fax"]

_FONTS = Path(__file__).parent / "fonts"
_LEFT = 20 * mm
_WORDS = {
    "en": {
        "to": "To", "from": "From", "date": "Date", "pages": "Pages",
        "confidential": "Confidential. This fax is for the addressee alone.",
        "misdirected": "If it reached you by mistake, please destroy it and tell the sender.",
        "exam": "Exam number", "scan": "Put this number into Patient ID (0010,0020).",
    },
    "de": {
        "to": "An", "from": "Von", "date": "Datum", "pages": "Seiten",
        "confidential": "Vertraulich. Dieses Fax ist nur für den Empfänger bestimmt.",
        "misdirected": "Falls es Sie irrtümlich erreicht hat: bitte vernichten und den Absender"
        " verständigen.",
        "exam": "Untersuchungsnummer", "scan": "Diese Nummer gehört in Patient ID (0010,0020).",
    },
}  # fmt: skip


@lru_cache(maxsize=1)
def _fonts() -> tuple[str, str]:
    for name, file in (("Sans", "DejaVuSans.ttf"), ("Sans-Bold", "DejaVuSans-Bold.ttf")):
        pdfmetrics.registerFont(TTFont(name, _FONTS / file))
    return "Sans", "Sans-Bold"


def draw_fax(message: Message, sender: str, *, at: datetime | None = None) -> bytes:
    """A PDF of one page, or two when there is an exam: A4, black on white.

    Args:
        message: What to say; its text holds no patient data.
        sender: Name of the site.
        at: The date on the cover; now by default.
    """
    made = BytesIO()
    canvas = Canvas(made, pagesize=A4, invariant=1)
    canvas.setTitle(message.subject)
    canvas.setAuthor(sender)
    pages = 2 if message.exam_number else 1
    _cover(canvas, message, sender, at or datetime.now(UTC), pages)
    canvas.showPage()
    if message.exam_number:
        _sheet(canvas, message)
        canvas.showPage()
    canvas.save()
    return made.getvalue()


def _words(message: Message) -> dict[str, str]:
    return _WORDS.get(message.language, _WORDS["en"])


def _lines(canvas: Canvas, text: str, top: float, *, size: int = 12, width: int = 76) -> float:
    regular, _ = _fonts()
    canvas.setFont(regular, size)
    for paragraph in text.splitlines():
        for line in wrap(paragraph, width, break_long_words=True) or [""]:
            canvas.drawString(_LEFT, top, line)
            top -= size * 1.5
    return top


def _cover(canvas: Canvas, message: Message, sender: str, at: datetime, pages: int) -> None:
    _, bold = _fonts()
    words = _words(message)
    top = A4[1] - 30 * mm
    canvas.setFont(bold, 26)
    canvas.drawString(_LEFT, top, "FAX")
    top -= 18 * mm
    for label, value in (
        (words["to"], message.address),
        (words["from"], sender[:60]),
        (words["date"], at.strftime("%Y-%m-%d %H:%M UTC")),
        (words["pages"], str(pages)),
    ):
        canvas.setFont(bold, 12)
        canvas.drawString(_LEFT, top, label)
        _lines_at(canvas, value, top)
        top -= 9 * mm
    canvas.setLineWidth(1)
    canvas.line(_LEFT, top, A4[0] - _LEFT, top)
    top -= 12 * mm
    canvas.setFont(bold, 14)
    canvas.drawString(_LEFT, top, message.subject[:60])
    _lines(canvas, message.text, top - 10 * mm)
    _lines(canvas, f"{words['confidential']}\n{words['misdirected']}", 32 * mm, size=10, width=92)


def _lines_at(canvas: Canvas, value: str, top: float) -> None:
    regular, _ = _fonts()
    canvas.setFont(regular, 12)
    canvas.drawString(_LEFT + 32 * mm, top, value)


def _sheet(canvas: Canvas, message: Message) -> None:
    _, bold = _fonts()
    words = _words(message)
    plain = message.exam_number.replace("-", "")
    top = A4[1] - 30 * mm
    canvas.setFont(bold, 14)
    canvas.drawString(_LEFT, top, words["exam"])
    canvas.setFont(bold, 34)
    canvas.drawString(_LEFT, top - 16 * mm, message.exam_number)
    barcode = code128.Code128(plain, barHeight=22 * mm, barWidth=0.6 * mm, humanReadable=False)
    barcode.drawOn(canvas, _LEFT, top - 48 * mm)
    size = 55 * mm
    code = qr.QrCodeWidget(plain, barLevel="M", barWidth=size, barHeight=size)
    drawing = Drawing(size, size)
    drawing.add(code)
    renderPDF.draw(drawing, canvas, _LEFT - 4 * mm, top - 112 * mm)
    top = _lines(canvas, words["scan"], top - 125 * mm)
    _lines(canvas, message.text, top - 6 * mm)

"""QR code and Code 128 of an exam number, as SVG."""

__all__ = ["barcode_svg", "qr_svg"]


def qr_svg(text: str) -> str:
    """A QR code that scales to its box, dark on light."""
    # A fifth of a second: the web starts without it.
    from reportlab.graphics.barcode.qrencoder import QRCode, QRErrorCorrectLevel  # noqa: PLC0415

    code = QRCode(None, QRErrorCorrectLevel.M)
    code.addData(text)
    code.make()
    size = code.getModuleCount()
    path = "".join(
        f"M{x + 4} {y + 4}h1v1h-1z" for y in range(size) for x in range(size) if code.isDark(y, x)
    )
    return _svg(size + 8, size + 8, path, "QR code of the exam number")


def barcode_svg(text: str) -> str:
    """A Code 128 that scales to its box."""
    from reportlab.graphics.barcode import code128  # noqa: PLC0415

    code = code128.Code128(text, barWidth=1, barHeight=20, quiet=1)
    code.validate()
    code.encode()
    code.decompose()
    x, path = 10, ""
    for i, symbol in enumerate(code.decomposed):
        width = "abcdefgh".find(symbol.lower()) + 1
        if symbol.isupper() or (symbol.islower() and i % 2 == 0):
            path += f"M{x} 0h{width}v20h-{width}z"
        x += width
    return _svg(x + 10, 20, path, "Barcode of the exam number")


def _svg(width: int, height: int, path: str, label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="{label}" preserveAspectRatio="none">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
        f'<path d="{path}" fill="#000"/></svg>'
    )

"""The web from outside, without a browser: pages, the API and STOW-RS keep to what they promise."""

import http.client
import urllib.parse
from pathlib import Path

from rso.testing.site import Site


def test_web_pages_and_api_keep_to_the_facility(site: Site) -> None:
    """Sign-in, the form and the list work; nobody sees another facility's exam."""
    browser = Browser(site.web)
    status, _ = browser.post("/sign-in", email="tech@example.org", password="wrong")
    assert status == 401
    status, _ = browser.post("/sign-in", email="tech@example.org", password="a good password")
    assert status == 303
    status, page = browser.get("/")
    assert status == 200
    csrf = page.split('_csrf" value="')[1].split('"')[0]
    form = {"facility": "NORTH", "family": "<b>DOE</b>", "given": "JANE", "indication": "pain"}
    assert browser.post("/exams/new", **form)[0] == 403
    status, where = browser.post("/exams/new", _csrf=csrf, **form)
    assert status == 303
    number = where.split("/")[2]
    status, page = browser.get(f"/exams/{number}")
    assert status == 200
    assert "<b>DOE</b>" not in page
    stranger = Browser(site.web)
    assert stranger.get("/")[0] == 302
    stranger.post("/sign-in", email="south@example.org", password="another good password")
    assert stranger.get(f"/exams/{number}")[0] == 404
    assert number not in stranger.get("/")[1]
    token = site.rso("token", "create", "--user", "south@example.org", "--json")["token"]
    assert Browser(site.web, token).get(f"/api/exams/{number}")[0] == 404
    assert Browser(site.web, "wrong").get("/api/exams")[0] == 401


class Browser:
    """Just enough of one: cookies, forms, no following of redirects."""

    def __init__(self, port: int, token: str = "") -> None:
        self.port = port
        self.headers = {"Accept": "text/html"}
        if token:
            self.headers = {"Authorization": f"Bearer {token}"}

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = dict(self.headers)
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        if cookie := answer.getheader("Set-Cookie"):
            assert "HttpOnly" in cookie
            self.headers["Cookie"] = cookie.split(";")[0]
        connection.close()
        return answer.status, answer.getheader("Location") or text

    def get(self, path: str) -> tuple[int, str]:
        """Status and text."""
        return self._ask("GET", path)

    def post(self, path: str, **form: str) -> tuple[int, str]:
        """Status and where it leads."""
        return self._ask("POST", path, urllib.parse.urlencode(form))


def test_stow_answers_as_the_standard_says(site: Site, samples: Path) -> None:
    """Stored, refused and mixed parts are told apart; a wrong body has a clear status."""
    token = site.rso("token", "create", "--user", "tech@example.org", "--json")["token"]
    good = (samples / "CT_small.dcm").read_bytes()

    def stow(parts: list[bytes], kind: str = "multipart/related", end: bool = True) -> int:
        body = b"".join(
            b"--XX\r\nContent-Type: application/dicom\r\n\r\n" + p + b"\r\n" for p in parts
        )
        connection = http.client.HTTPConnection("127.0.0.1", site.web, timeout=30)
        connection.request(
            "POST", "/dicomweb/studies", body + (b"--XX--\r\n" if end else b""),
            {"Authorization": f"Bearer {token}",
             "Content-Type": f'{kind}; type="application/dicom"; boundary=XX'},
        )  # fmt: skip
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    assert stow([good]) == 200
    assert stow([good, b"MZ" + bytes(3000)]) == 202
    assert stow([bytes(10)]) == 409
    assert stow([good], "multipart/form-data") == 415
    assert stow([good], end=False) == 400
    assert stow([]) == 400

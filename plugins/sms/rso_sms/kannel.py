"""``kannel://``: Kannel's sendsms interface as an Apprise schema.

``kannel://user:password@host:13013/+12025550100?from=RSO``
"""

from typing import Any

import requests
from apprise import NotifyType
from apprise.plugins.base import NotifyBase

from rso.core.notifying import is_gsm7

__all__ = ["NotifyKannel"]

_ACCEPTED = 202


class NotifyKannel(NotifyBase):  # type: ignore[misc]
    """Sends one SMS to each number of the URL's path."""

    service_name = "Kannel"
    service_url = "https://www.kannel.org/"
    protocol = "kannel"
    secure_protocol = "kannels"
    setup_url = "https://www.kannel.org/download/kannel-userguide-snapshot/userguide.html"
    title_maxlen = 0
    body_maxlen = 1600
    templates = ("{schema}://{user}:{password}@{host}:{port}/{targets}",)

    def __init__(self, targets: list[str], sender: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.targets, self.sender = targets, sender

    def send(
        self,
        body: str,
        title: str = "",  # noqa: ARG002
        notify_type: NotifyType = NotifyType.INFO,  # noqa: ARG002
        **_: Any,
    ) -> bool:
        """Hand the text to Kannel; 7 bits a character where they suffice."""
        scheme = "https" if self.secure else "http"
        url = f"{scheme}://{self.host}:{self.port or 13013}/cgi-bin/sendsms"
        done = bool(self.targets)
        for target in self.targets:
            asked = {
                "username": self.user or "",
                "password": self.password or "",
                "to": target,
                "from": self.sender,
                "text": body,
                "charset": "UTF-8",
                "coding": "0" if is_gsm7(body) else "2",
            }
            try:
                answer = requests.get(
                    url,
                    params=asked,
                    timeout=self.request_timeout,
                    verify=self.verify_certificate,
                    allow_redirects=False,
                )
            except requests.RequestException as exc:
                self.logger.warning("Kannel cannot be reached: %s", type(exc).__name__)
                done = False
                continue
            if answer.status_code != _ACCEPTED:
                self.logger.warning("Kannel answered %d", answer.status_code)
                done = False
        return done

    def url(self, *_: Any, **__: Any) -> str:
        """The URL without its secrets."""
        return f"kannel://{self.host}:{self.port or 13013}/"

    @staticmethod
    def parse_url(url: str) -> dict[str, Any] | None:
        """The parts of a URL."""
        found: dict[str, Any] | None = NotifyBase.parse_url(url, verify_host=False)
        if found:
            found["targets"] = NotifyBase.split_path(found["fullpath"])
            found["sender"] = NotifyBase.unquote(found["qsd"].get("from", ""))
        return found

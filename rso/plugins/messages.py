"""What every notifier adds to the web application; the routes behind are RSO's own."""

from rso.core.contributions import ExamAction, Page, Tile

__all__ = ["MESSAGES", "MESSAGES_TILE", "TELL_SOMEBODY"]

MESSAGES = Page(title="Messages", path="/notifications", roles=("coordinator", "auditor"))
MESSAGES_TILE = Tile(title="Messages", path="/notifications/tile", roles=("coordinator", "auditor"))
TELL_SOMEBODY = ExamAction(
    title="Tell somebody",
    path="/exams/{number}#notifications",
    roles=("customer", "technician", "coordinator"),
    statuses=("requested", "receiving", "settled", "delivered"),
)

"""The web application: pages, JSON API, and what they share."""

"""RSO notifier: fax, over Apprise."""

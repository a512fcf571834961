"""RSO notifier: SMS, over Apprise."""

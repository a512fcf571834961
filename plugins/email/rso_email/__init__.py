"""RSO notifier: email, over Apprise."""
